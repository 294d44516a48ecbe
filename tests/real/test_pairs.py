"""Real pairs with scores and real weights, from the folder shared/ beside the checkout; skipped where it is absent."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import tunesmith

DATA = Path(__file__).parents[3] / "shared" / "data" / "stsb"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no folder shared/data/stsb beside the checkout")


def some(split: str, rows: int, folder: Path) -> str:
    """The first rows of a split, evenly taken."""
    with open(DATA / f"{split}.csv", newline="", encoding="utf-8") as handle:
        header, *found = csv.reader(handle)
    path = folder / f"{split}.csv"
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *found[:: len(found) // rows][:rows]])
    return str(path)


def test_minilm_orders_real_pairs_before_training_and_no_worse_after(tmp_path: Path) -> None:
    data = {split: some(split, rows, tmp_path) for split, rows in (("train", 96), ("validation", 100), ("test", 200))}
    given = {
        "task": "text-similarity", "model": "builtin:minilm", "data": data, "method": "full",
        "train": {"epochs": 1, "batch_size": 16},
    }  # fmt: skip
    report = json.loads(tunesmith.finetune(given, run=tmp_path / "run").report.read_text())
    assert report["problem"] == "scored-pairs"
    assert report["baselines"]["probe"]["spearman"]["value"] > 0.8
    assert report["metrics"]["test"]["spearman"]["value"] > 0.8
    assert "the model's files say so" in " ".join(report["plan"]["reasons"])
