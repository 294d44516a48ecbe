"""The activation cache: the same losses with and without it, nothing stale used, and given up where it does not help."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import ARCHITECTURES, write_model
from tunesmith import prepare, settings
from tunesmith.train import cache
from tunesmith.train.cache import Store
from tunesmith.train.events import CacheFilled, EpochDone, StepDone, Trained
from tunesmith.train.loop import train


@pytest.fixture(autouse=True)
def _always_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two blocks of width 32 reading and computing take alike."""
    monkeypatch.setattr(cache, "_pays", lambda *_: True)


def losses(
    given: dict[str, Any], folder: Path, *, kept: str, store: Store | None = None
) -> tuple[list[float], list[Any]]:
    given = given | {"train": {**given["train"], "cache": kept, "dropout": "model"}}
    ready = prepare.prepare(settings.parse(given), folder / kept / "data", torch.device("cpu"), lambda _: None)
    ready = dataclasses.replace(ready, store=store or ready.store)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / kept / "steps")
    events = list(train(job))
    return [event.loss for event in events if isinstance(event, StepDone)], events


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("last", [1, 2])
def test_losses_are_the_same_with_and_without(
    settings: dict[str, Any], tmp_path: Path, architecture: str, last: int
) -> None:
    if architecture == "albert" and last == 2:
        pytest.skip("ALBERT has one block, passed twice")
    given = settings | {
        "model": str(write_model(tmp_path / "model", architecture)),
        "method": {"name": "partial", "last": last},
    }
    plain, _ = losses(given, tmp_path, kept="off")
    found, events = losses(given, tmp_path, kept="auto")
    assert found == pytest.approx(plain, rel=1e-4)
    filled = [event for event in events if isinstance(event, CacheFilled)]
    # Two blocks that train leave nothing to keep but embeddings; a block that is passed twice cannot be skipped.
    assert [event.stage for event in filled] == (["block 1"] if last == 1 and architecture != "albert" else [])
    validated = [event.validation_loss for event in events if isinstance(event, EpochDone)]
    assert np.isfinite(validated).all()


@pytest.mark.parametrize(
    "method", ["gradual", {"name": "partial", "stages": ["final"]}, {"name": "partial", "stages": ["head"]}]
)
def test_every_cut_gives_the_same_losses(settings: dict[str, Any], tmp_path: Path, method: Any) -> None:
    plain, _ = losses(settings | {"method": method}, tmp_path, kept="off")
    found, events = losses(settings | {"method": method}, tmp_path, kept="auto")
    assert found == pytest.approx(plain, rel=1e-4)
    assert any(isinstance(event, CacheFilled) for event in events)
    trained = events[-1]
    assert isinstance(trained, Trained)
    assert trained.cache is not None
    assert trained.cache["hits"] > 0


def test_bf16_agrees_to_its_rounding(settings: dict[str, Any], tmp_path: Path) -> None:
    from tunesmith.models.precision import native_bf16  # noqa: PLC0415

    if not native_bf16(torch.device("cpu")):
        pytest.skip("this processor has no bf16")
    settings["train"] |= {"precision": "bf16", "learning_rate": 1e-4}
    given = settings | {"model": "builtin:minilm", "method": {"name": "partial", "last": 1}}
    plain, _ = losses(given, tmp_path, kept="off")
    found, _ = losses(given, tmp_path, kept="auto")
    assert found[:2] == pytest.approx(plain[:2], rel=3e-2)  # later steps carry the first ones' rounding on
    assert found == pytest.approx(plain, rel=0.2)


def test_a_mapped_file_holds_what_memory_does_not(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings | {"method": {"name": "partial", "last": 1}}
    plain, _ = losses(given, tmp_path, kept="off")
    monkeypatch.setattr(cache, "SHARE_OF_MEMORY", 0.0)
    store = Store(tmp_path / "kept")
    found, _ = losses(given, tmp_path, kept="auto", store=store)
    assert found == pytest.approx(plain, rel=1e-4)
    assert sum(path.stat().st_size for path in store.folder.iterdir() if path.suffix != ".json") == store.bytes
    monkeypatch.setattr(cache, "has_room", lambda *_: False)
    refused = Store(tmp_path / "refused")
    found, _ = losses(given, tmp_path / "again", kept="auto", store=refused)
    assert found == pytest.approx(plain, rel=1e-4)
    assert not refused.kept


def test_other_weights_or_rows_find_nothing_kept(settings: dict[str, Any], tmp_path: Path, rows: Path) -> None:
    given = settings | {"method": {"name": "partial", "last": 1}}
    store = Store(tmp_path / "kept")
    losses(given, tmp_path / "a", kept="auto", store=store)
    first = set(store.kept)
    assert len(first) == 2
    losses(given, tmp_path / "b", kept="auto", store=store)
    assert set(store.kept) == first
    (tmp_path / "model").mkdir()
    other = write_model(tmp_path / "model" / "other", "bert")
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1  # one bit of the last tensor of the file
    weights.write_bytes(content)
    losses(given | {"model": str(other)}, tmp_path / "c", kept="auto", store=store)
    with open(rows, "a") as handle:
        handle.write("word1 word2 word3,good\n")
    before = len(store.kept)
    losses(given, tmp_path / "d", kept="auto", store=store)
    assert len(store.kept) > before


def test_the_pass_that_solves_for_the_head_is_kept_for_the_first_epoch(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["train"] |= {"epochs": 1}
    _, events = losses(settings | {"method": {"name": "partial", "last": 1}}, tmp_path, kept="auto")
    assert [type(event).__name__ for event in events[:4]] == [
        "CacheFilled", "HeadSolved", "StartMeasured", "StepDone",
    ]  # fmt: skip
    _, events = losses(settings | {"method": "full"}, tmp_path / "full", kept="auto")
    assert [type(event).__name__ for event in events[:3]] == ["HeadSolved", "StartMeasured", "StepDone"]


def test_every_cut_that_is_kept_is_decided_on_for_whoever_goes_on(settings: dict[str, Any], tmp_path: Path) -> None:
    """A resumed process that timed again might decide otherwise, and end with other weights."""
    store = Store(tmp_path / "kept")
    losses(settings | {"method": "gradual"}, tmp_path, kept="auto", store=store)
    assert len(store.kept) > 2
    assert all(store.decided(key) is True for key in store.kept)


def test_what_does_not_pay_is_not_filled_again(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[str] = []
    fill = cache._fill
    monkeypatch.setattr(cache, "_pays", lambda *_: False)
    monkeypatch.setattr(cache, "_fill", lambda *given: filled.append(given[2].name) or fill(*given))
    store = Store(tmp_path / "kept")
    for _ in range(2):
        losses(settings | {"method": {"name": "partial", "last": 1}}, tmp_path, kept="auto", store=store)
    assert filled == ["train", "validation"]  # the first time alone


def test_what_reads_slower_than_it_computes_is_given_up(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_pays", lambda *_: False)
    given = settings | {"method": {"name": "partial", "last": 1}}
    plain, _ = losses(given, tmp_path, kept="off")
    store = Store(tmp_path / "kept")
    found, events = losses(given, tmp_path, kept="auto", store=store)
    assert found == plain
    assert not store.kept
    assert not any(isinstance(event, CacheFilled) for event in events)
