"""Batches that are made ahead are the same batches, and a run that uses them the same run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tiny import write_image_model, write_images
from tunesmith.contracts import Batch, Indices
from tunesmith.errors import DataError
from tunesmith.models import pixels
from tunesmith.train.ahead import MOST, Ahead, ahead

PARTS = [np.arange(3 * part, 3 * part + 3) for part in range(6)]


class Noted:
    """Makes batches, and knows who made each."""

    def __init__(self) -> None:
        self.made: list[tuple[list[int], bool]] = []
        self.bad: list[int] = []

    def __call__(self, indices: Indices) -> Batch:
        aside = threading.current_thread() is not threading.main_thread()
        self.made.append((indices.tolist(), aside))
        if indices.tolist() == self.bad:
            raise DataError("gone")
        return {"rows": torch.from_numpy(indices)}


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def made(noted: Noted) -> Iterator[Ahead]:
    with ahead(noted) as found:
        yield found


def test_what_is_expected_is_made_by_another_thread(made: Ahead, noted: Noted) -> None:
    made.expect(PARTS)
    for part in PARTS:
        assert made(part)["rows"].tolist() == part.tolist()
    assert noted.made == [(part.tolist(), True) for part in PARTS]


def test_no_more_wait_than_are_allowed(made: Ahead, noted: Noted) -> None:
    made.expect(PARTS)
    made(PARTS[0])
    made.threads.shutdown(wait=True)
    assert len(noted.made) <= 1 + MOST


def test_what_is_not_expected_is_made_at_once(made: Ahead, noted: Noted) -> None:
    made.expect(PARTS[:2])
    assert made(PARTS[5])["rows"].tolist() == PARTS[5].tolist()
    assert made(PARTS[0])["rows"].tolist() == PARTS[0].tolist()
    assert made(PARTS[0])["rows"].tolist() == PARTS[0].tolist()  # a second pass over the same rows
    assert (PARTS[5].tolist(), False) in noted.made
    assert (PARTS[0].tolist(), False) in noted.made


def test_a_change_of_mind_forgets_what_was_expected(made: Ahead, noted: Noted) -> None:
    made.expect(PARTS[:2])
    made.expect([PARTS[1], PARTS[3]])
    for part in (PARTS[1], PARTS[3]):
        assert made(part)["rows"].tolist() == part.tolist()
    made.expect(PARTS[4:])
    made.expect([*PARTS[4:], PARTS[0]])  # what goes on as expected is not made twice
    for part in (*PARTS[4:], PARTS[0]):
        made(part)
    assert [rows for rows, _ in noted.made].count(PARTS[4].tolist()) == 1


def test_what_goes_wrong_comes_out_where_the_batch_is_asked_for(made: Ahead, noted: Noted) -> None:
    noted.bad = PARTS[1].tolist()
    made.expect(PARTS[:2])
    made(PARTS[0])
    with pytest.raises(DataError, match="gone"):
        made(PARTS[1])


def trained(folder: Path, name: str, **train: Any) -> tuple[dict[str, torch.Tensor], str]:
    """Weights and the printed plan of a run on varied images."""
    from safetensors.torch import load_file  # noqa: PLC0415

    settings = {
        "task": {"name": "image-classification", "augment": {"flip": True, "crop": 0.6}},
        "model": str(folder / "model"),
        "data": str(folder / "images"),
        "method": "full",
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "micro_batch_tokens": 8}
        | train,
        "evaluate": {"baselines": [], "resamples": 100},
    }
    run = tunesmith.finetune(settings, run=folder / name)
    return load_file(run.model / "model.safetensors"), (run.folder / "plan.json").read_text()


@pytest.mark.parametrize("train", [{}, {"sam": 0.05}, {"r_drop": 1.0, "dropout": 0.1}])
def test_a_run_without_room_for_pixels_ends_with_the_same_weights(
    train: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_model(tmp_path / "model", "vit")
    write_images(tmp_path / "images", 60)
    kept, told = trained(tmp_path, "kept", **train)
    assert "no room" not in told
    monkeypatch.setattr(pixels, "has_room", lambda *_: False)
    monkeypatch.setattr(Ahead, "expect", lambda *_: None)
    anew, told = trained(tmp_path, "anew", **train)
    assert "The disk has no room for the pixels of all images" in told
    assert kept.keys() == anew.keys()
    assert all(torch.equal(kept[name], anew[name]) for name in kept)
    assert not list(tmp_path.rglob("anew/**/*.pixels"))
