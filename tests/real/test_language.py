"""A real small language model, taught answers that are nothing like what it knows; skipped, and said so, without shared/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith

SHARED = Path(__file__).parents[3] / "shared"
DATA = SHARED / "data"
ROWS = 160
"""Rows of train, so that an epoch takes seconds, and"""
PAGES = 12_000
"""characters of the novels that are told before and after; what is replayed is more."""
pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def _present() -> None:
    if not SHARED.is_dir():
        pytest.skip("no folder shared/ beside the checkout")


def few(name: str, folder: Path) -> dict[str, str]:
    """The first rows of each split of a real data set, in files of their own."""
    found = {}
    for split, count in (("train", ROWS), ("validation", 30), ("test", 40)):
        lines = (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        path = folder / f"{split}.jsonl"
        path.write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
        found[split] = str(path)
    return found


def taught(name: str, folder: Path, replay: float) -> dict[str, Any]:
    """The report of a run on `name`, with the novels watched."""
    folder.mkdir()
    novels = {}
    for split, part, size in (("train", "train", 20), ("validation", "held-out", 1), ("test", "held-out", 1)):
        text = (DATA / "books" / f"{part}.txt").read_text(encoding="utf-8")
        path = folder / f"novels-{split}.txt"
        path.write_text(text[: size * PAGES], encoding="utf-8")
        novels[split] = str(path)
    settings = {
        "task": {"name": "causal-lm", "written": 0},
        "model": str(SHARED / "weights" / "gpt2-books"),
        "data": few(name, folder),
        "method": "full",
        "train": {"epochs": 1, "learning_rate": 5e-4, "replay": replay},
        "evaluate": {
            "resamples": 200,
            "retention": [{"name": "novels", "task": "causal-lm", "data": novels}],
        },
    }
    run = tunesmith.finetune(settings, run=folder / "run")
    return dict(json.loads(run.report.read_text(encoding="utf-8")))


def perplexities(report: dict[str, Any]) -> tuple[float, float]:
    """Of answers on test rows, before training and after."""
    before, after = report["baselines"]["before"], report["metrics"]["test"]
    return before["perplexity"]["value"], after["perplexity"]["value"]


def test_perplexity_of_answers_falls_while_that_of_the_novels_is_watched_and_guarded(tmp_path: Path) -> None:
    free, guarded = (taught("e2e", tmp_path / f"{replay}", replay) for replay in (0.0, 0.5))
    for report in (free, guarded):
        before, after = perplexities(report)
        assert after < report["baselines"]["frequencies"]["perplexity"]["value"] < before
        (novels,) = report["retention"]
        assert novels["difference"]["low"] > 0  # something is forgotten
    (lost,), (kept,) = free["retention"], guarded["retention"]
    assert kept["difference"]["value"] < 0.8 * lost["difference"]["value"]


def test_answers_to_real_instructions_become_likelier(tmp_path: Path) -> None:
    report = taught("alpaca-1k", tmp_path / "run", 0.0)
    before, after = perplexities(report)
    assert after < 0.7 * before
    assert report["retention"][0]["difference"]["low"] > 0
