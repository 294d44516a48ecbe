"""The activation cache on image networks: the same losses with and without it, batch-norm in the trained stages included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import write_image_model, write_images
from tunesmith import prepare, settings
from tunesmith.tasks.image_classification import ImageClassification
from tunesmith.train import cache
from tunesmith.train.events import CacheFilled, StepDone, Trained
from tunesmith.train.loop import train


@pytest.fixture(autouse=True)
def _always_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two blocks of width 32 reading and computing take alike."""
    monkeypatch.setattr(cache, "_pays", lambda *_: True)


def carried_out(given: dict[str, Any], folder: Path, kept: str) -> list[Any]:
    given = given | {"train": {**given["train"], "cache": kept}}
    ready = prepare.prepare(settings.parse(given), folder / kept / "data", torch.device("cpu"), lambda _: None)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / kept / "s")
    return list(train(job))


@pytest.mark.parametrize(
    ("architecture", "method", "stages"),
    [
        ("vit", {"name": "partial", "last": 1}, ["block 1"]),
        ("resnet", {"name": "partial", "last": 1}, ["block 3"]),
        ("resnet", {"name": "partial", "last": 3}, ["block 1"]),
        ("resnet", "gradual", ["block 3"]),
        ("convnext", {"name": "partial", "last": 2}, ["block 2"]),
        ("swin", {"name": "partial", "last": 1}, ["block 3"]),
        ("swin", {"name": "partial", "last": 2}, ["block 2"]),
        ("mobilenet-v2", {"name": "partial", "last": 1}, ["block 15"]),
        ("efficientnet", {"name": "partial", "stages": ["final"]}, ["final"]),
    ],
)
def test_losses_and_statistics_are_the_same_with_and_without(
    tmp_path: Path, architecture: str, method: Any, stages: list[str]
) -> None:
    given = {
        "task": "image-classification",
        "model": str(write_image_model(tmp_path / "model", architecture)),
        "data": str(write_images(tmp_path / "images", 64)),
        "method": method,
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"},
    }
    plain, found = (carried_out(given, tmp_path, kept) for kept in ("off", "auto"))
    losses = [[event.loss for event in events if isinstance(event, StepDone)] for events in (plain, found)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert [event.stage for event in found if isinstance(event, CacheFilled)][:1] == stages
    assert isinstance(plain[-1], Trained)
    assert isinstance(found[-1], Trained)
    buffers = [dict(events[-1].model.module.named_buffers()) for events in (plain, found)]
    for name, value in buffers[0].items():
        torch.testing.assert_close(buffers[1][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("augment", ["none", {"flip": True, "crop": 0.6, "views": 2}])
def test_later_epochs_need_no_images(augment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither decoded nor varied: what is kept is all that the stages which train read."""
    made: list[int] = []
    inputs = ImageClassification.inputs

    def counted(self: Any, examples: Any, indices: Any, model: Any) -> Any:
        made.append(len(indices))
        return inputs(self, examples, indices, model)

    monkeypatch.setattr(ImageClassification, "inputs", counted)
    counts = []
    for epochs in (2, 4):
        given = {
            "task": {"name": "image-classification", "augment": augment},
            "model": str(write_image_model(tmp_path / str(epochs) / "model", "vit")),
            "data": str(write_images(tmp_path / str(epochs) / "images", 64)),
            "method": {"name": "partial", "last": 1},
            "train": {"epochs": epochs, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32", "patience": 9},
        }
        made.clear()
        events = carried_out(given, tmp_path / str(epochs), "auto")
        assert any(isinstance(event, CacheFilled) for event in events)
        counts.append(sum(made))
    assert counts[0] == counts[1]
