"""Batches that are made ahead are the same batches, and a run that uses them the same run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tunesmith
from tiny import write_image_model, write_images
from tunesmith.contracts import Batch, Indices
from tunesmith.errors import DataError
from tunesmith.models import pixels
from tunesmith.models.augment import Augment
from tunesmith.models.varied import varied
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


def trained(folder: Path, name: str, **train: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights of a run on varied images, and what it said."""
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
    said: list[str] = []
    run = tunesmith.finetune(settings, run=folder / name, listen=lambda one: said.append(str(one)))
    return load_file(run.model / "model.safetensors"), said


@pytest.mark.parametrize("train", [{}, {"sam": 0.05}, {"r_drop": 1.0, "dropout": 0.1}])
def test_a_run_without_room_for_pixels_ends_with_the_same_weights(
    train: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image_model(tmp_path / "model", "vit")
    write_images(tmp_path / "images", 90)
    kinds: set[type] = set()
    read = pixels.read_files

    def noting(*given: Any) -> Any:
        found = read(*given)
        kinds.add(type(found.values))
        return found

    monkeypatch.setattr(pixels, "read_files", noting)
    kept, said = trained(tmp_path, "kept", **train)
    assert np.memmap in kinds
    assert pixels.Decoded not in kinds
    assert not any("too little room" in one for one in said)
    monkeypatch.setattr(pixels, "has_room", lambda *_: False)
    monkeypatch.setattr(Ahead, "expect", lambda *_: None)
    kinds.clear()
    anew, said = trained(tmp_path, "anew", **train)
    assert kinds == {pixels.Decoded}
    assert any("The disk has too little room for the pixels of all images" in one for one in said)
    assert kept.keys() == anew.keys()
    assert all(torch.equal(kept[name], anew[name]) for name in kept)


def test_where_there_is_no_room_is_no_part_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was begun on a full disk goes on when there is room again."""
    given = {
        "task": "image-classification",
        "model": str(write_image_model(tmp_path / "model", "vit")),
        "data": str(write_images(tmp_path / "images", 90)),
        "method": "full",
    }
    plans = []
    for room in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(pixels, "has_room", lambda *_, room=room: room)
            plans.append(tunesmith.plan(given))
    for plan in plans:
        plan.pop("predicted")
    assert plans[0] == plans[1]


def test_an_image_that_is_varied_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [str(file) for file in sorted(write_images(tmp_path / "images", 20).rglob("*.png"))]
    reading = pixels.find_reading(transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}), 3)
    plain = pixels.Pixels(pixels.Decoded(reading, files), reading.scale, reading.shift, None, "k")
    opened = []
    read = pixels.picture.read
    monkeypatch.setattr(pixels.picture, "read", lambda file: opened.append(str(file)) or read(file))
    seen = varied(plain, Augment(flip=True, crop=0.5), 3, 0)
    seen.batch(np.array([1, 21, 45]))
    assert sorted(opened) == sorted([files[1], files[1], files[5]])
