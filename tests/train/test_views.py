"""Training on varied images: every epoch sees others, a resumed run the same, and fixed variants go into the cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from steps import prepared
from tiny import write_image_model, write_images
from tunesmith import prepare
from tunesmith.errors import SettingsError
from tunesmith.models import augment
from tunesmith.tasks import reading_images
from tunesmith.tasks.object_detection import ObjectDetection
from tunesmith.train import cache
from tunesmith.train.course import Job
from tunesmith.train.events import CacheFilled, StepDone, Trained
from tunesmith.train.loop import train
from tunesmith.train.trial import predict


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Any]:
    return {
        "task": {"name": "image-classification", "augment": "strong"},
        "model": str(write_image_model(tmp_path / "model", "vit")),
        "data": str(write_images(tmp_path / "images", 64)),
        "method": "full",
        "train": {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32", "checkpoint_seconds": 0},
        "evaluate": {"resamples": 100},
    }


def begin(given: dict[str, Any], folder: Path) -> Job:
    ready = prepared(given, folder)
    return prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / "checkpoints")


def finish(job: Job) -> tuple[list[float], dict[str, torch.Tensor]]:
    events = list(train(job))
    last = events[-1]
    assert isinstance(last, Trained)
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    return losses, {name: tensor.clone() for name, tensor in last.model.module.state_dict().items()}


def test_each_epoch_sees_each_image_once_in_a_view_of_its_own(images: dict[str, Any], tmp_path: Path) -> None:
    job = begin(images, tmp_path)
    count = len(job.train)
    assert (job.plan.views, len(job.seen)) == (3, 3 * count)
    for epoch in range(3):
        seen = np.sort(np.concatenate(job.steps(epoch, job.plan.phases[-1])))
        assert seen.tolist() == [epoch * count + row for row in range(count)]
    assert any("varied: turned by up to 15 degrees, cropped" in reason for reason in job.plan.reasons)


@pytest.mark.parametrize(("architecture", "stop_after"), [("vit", 3), ("vit", 6), ("resnet", 8)])
def test_a_resumed_run_sees_the_same_variants(
    images: dict[str, Any], tmp_path: Path, architecture: str, stop_after: int
) -> None:
    images["model"] = str(write_image_model(tmp_path / architecture, architecture))
    _, whole = finish(begin(images, tmp_path / "whole"))
    _, plain = finish(begin(images | {"task": "image-classification"}, tmp_path / "plain"))
    assert any(not torch.equal(whole[name], plain[name]) for name in whole)
    events = train(begin(images, tmp_path / "cut"))
    for event in events:
        if isinstance(event, StepDone) and event.step == stop_after:
            break
    events.close()  # type: ignore[attr-defined]
    _, resumed = finish(begin(images, tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_fixed_variants_are_kept_and_give_the_same_losses(
    images: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_pays", lambda *_: True)
    images["task"] = {"name": "image-classification", "augment": {"crop": 0.5, "flip": True, "views": 2}}
    images["method"] = {"name": "partial", "last": 1}
    losses = {}
    for kept in ("off", "auto"):
        job = begin(images | {"train": {**images["train"], "cache": kept}}, tmp_path / kept)
        assert job.plan.views == 2
        losses[kept], _ = finish(job)
    assert losses["auto"] == pytest.approx(losses["off"], rel=1e-3)
    again = list(train(begin(images, tmp_path / "again")))
    assert any(isinstance(event, CacheFilled) for event in again)


def test_variants_that_are_new_each_epoch_leave_nothing_to_keep(images: dict[str, Any], tmp_path: Path) -> None:
    job = begin(images | {"method": {"name": "partial", "last": 1}}, tmp_path)
    assert (job.plan.views, job.plan.cache) == (3, False)
    assert not any(isinstance(event, CacheFilled) for event in train(job))


def test_a_probe_and_a_single_epoch_vary_nothing(images: dict[str, Any], tmp_path: Path) -> None:
    assert begin(images | {"method": "probe"}, tmp_path / "probe").plan.views == 1
    assert begin(images | {"train": {**images["train"], "epochs": 1}}, tmp_path / "one").plan.views == 1


def test_features_that_are_held_are_those_of_the_image_as_it_is(images: dict[str, Any], tmp_path: Path) -> None:
    given = images | {"train": {**images["train"], "distil": 1.0}}
    losses, _ = finish(begin(given, tmp_path))
    assert np.isfinite(losses).all()


def test_the_trial_counts_what_varying_costs(images: dict[str, Any], tmp_path: Path) -> None:
    job = begin(images, tmp_path)
    assert predict(job).seconds > 0
    images["task"] = {"name": "image-classification", "augment": {"crop": 0.5, "views": 3}}
    fixed = begin(images | {"method": {"name": "partial", "last": 1}}, tmp_path / "fixed")
    plain = begin(images | {"task": "image-classification", "method": {"name": "partial", "last": 1}}, tmp_path / "p")
    assert predict(fixed, forward=1.0).solving > 1.5 * predict(plain, forward=1.0).solving


def test_the_report_shows_what_training_saw(images: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.finetune(images, run=tmp_path / "run")
    shown = json.loads(run.report.read_text())["views"]
    assert all(len(row["images"]) == 3 for row in shown)
    assert shown[0]["images"][0] != shown[0]["images"][1]
    assert "What training saw" in run.page.read_text()


def test_without_the_library_it_is_refused_before_training(
    images: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="needs kornia"):
        begin(images, tmp_path)


def test_few_images_are_varied_lightly_where_that_is_left_open(
    images: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images["task"] = {"name": "image-classification", "augment": "auto"}
    few = begin(images, tmp_path / "few")
    assert any("as they are fewer than 5,000: turned by up to 5 degrees" in reason for reason in few.plan.reasons)
    assert not any("mirrored" in reason for reason in few.plan.reasons)
    monkeypatch.setattr(reading_images, "FEW", 10)
    many = begin(images, tmp_path / "many")
    assert many.plan.views == 1


def test_what_is_left_open_leaves_the_targets_of_the_task_true(images: dict[str, Any], tmp_path: Path) -> None:
    boxes = ObjectDetection.tiny(tmp_path / "boxes")
    boxes |= {"task": {"name": "object-detection", "augment": "auto"}, "method": "full"}
    (told,) = [one for one in begin(boxes, tmp_path / "boxes").plan.reasons if "are varied" in one]
    assert "cropped" in told
    assert "turned" not in told
    rows = [f"{file},{number}.5\n" for number, file in enumerate(sorted(Path(images["data"]).rglob("*.png")))]
    (tmp_path / "scores.csv").write_text("file,score\n" + "".join(rows))
    scores = images | {"data": str(tmp_path / "scores.csv")}
    scores["task"] = {"name": "image-classification", "augment": "auto"}
    (told,) = [one for one in begin(scores, tmp_path / "scores").plan.reasons if "are varied" in one]
    assert told.endswith("varied, as they are fewer than 5,000: changed in brightness and colour by up to 13.5 %.")
