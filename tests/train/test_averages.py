"""Weights that are averaged or mixed: along training, and between its two ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from steps import (
    job_of,
    prepared,
)
from tunesmith.evaluate import wise_ft
from tunesmith.evaluate.wise_ft import Point
from tunesmith.models.running_statistics import reestimate
from tunesmith.train import checkpoint, statistics
from tunesmith.train.events import StepDone, Trained
from tunesmith.train.guards import mix
from tunesmith.train.loop import train
from tunesmith.train.weights import copy_of, of


def test_swa_keeps_the_plain_mean_of_the_last_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    given = settings | {"train": settings["train"] | {"swa": 0.25, "learning_rate": 1e-4}}
    job = job_of(prepared(given, tmp_path), tmp_path)
    passed = []
    for event in train(job):
        if isinstance(event, StepDone):
            assert event.steps == 12
            passed.append(copy_of(of(job.model.module)))
    found = checkpoint.newest(job.checkpoints)
    assert found is not None
    assert found.progress.averaged_steps == 3
    for name, tensor in found.averaged.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([one[name] for one in passed[-3:]]).mean(0))


def test_training_does_not_end_before_the_average_is_begun(settings: dict[str, Any], tmp_path: Path) -> None:
    """A rate of nearly zero improves nothing, so that patience alone would end it after the second epoch."""
    given = settings | {"train": settings["train"] | {"swa": 0.25, "learning_rate": 1e-12, "epochs": 4, "patience": 1}}
    last = list(train(job_of(prepared(given, tmp_path), tmp_path)))[-1]
    assert isinstance(last, Trained)
    assert last.epochs == 4


def test_running_statistics_are_those_of_the_batches() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    module[0].running_mean.fill_(9.0)
    module.config = None  # type: ignore[assignment]
    given = [torch.randn(6, 3) + number for number in range(4)]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    network = Network().train()
    norms = statistics.training_norms(network)
    assert norms == [module[0]]
    reestimate(network, norms, [{"x": one} for one in given], "fp32")
    torch.testing.assert_close(module[0].running_mean, torch.stack([one.mean(0) for one in given]).mean(0))
    torch.testing.assert_close(module[0].running_var, torch.stack([one.var(0) for one in given]).mean(0))
    assert (module[0].momentum, module[0].training, module[1].training) == (0.1, True, True)
    assert statistics.training_norms(network.eval()) == []


def test_a_mixture_of_weights_is_a_straight_line_between_them() -> None:
    start, end = ({"w": torch.randn(3), "n": torch.tensor(number)} for number in (1, 2))
    for alpha in (0.0, 0.3, 1.0):
        mixed = copy_of(start)
        mix(mixed, end, alpha)
        torch.testing.assert_close(mixed["w"], (1 - alpha) * start["w"] + alpha * end["w"])
    assert torch.equal(mixed["w"], end["w"])


@pytest.mark.parametrize("method", ["full", "lora", "pissa", "bitfit"])
def test_the_ends_of_the_curve_are_the_weights_before_and_after(
    settings: dict[str, Any], tmp_path: Path, method: str
) -> None:
    from tunesmith.models import adapters  # noqa: PLC0415
    from tunesmith.train.loop import START  # noqa: PLC0415

    given = settings | {"method": method, "train": settings["train"] | {"wise_ft": True}}
    job = job_of(prepared(given, tmp_path), tmp_path)
    before = {name: tensor.clone() for name, tensor in of(rehearsal_of(given, tmp_path).module).items()}
    trained = next(event for event in train(job) if isinstance(event, Trained)).model
    after = copy_of(of(trained.module))
    start = wise_ft.start_of(trained, job.checkpoints / START)
    assert all(torch.equal(after[name], tensor) for name, tensor in of(trained.module).items())
    if trained.adapter is not None:
        trained = adapters.merge(trained)
    assert start.keys() == of(trained.module).keys()
    for name, tensor in before.items():  # the backbone as it came; the head was solved for
        own = name.replace("bert.", f"{trained.backbone}.", 1)
        if name.startswith("bert."):
            torch.testing.assert_close(start[own], tensor, atol=1e-5, rtol=1e-4)
    how = wise_ft.Scales(job.task, job.plan, job.train, job.validation, (), None, 0)
    points = wise_ft.curve(trained, start, how)
    end = copy_of(of(trained.module))
    wise_ft.put(trained, start, end, 1.0, how)
    assert all(torch.equal(end[name], tensor) for name, tensor in of(trained.module).items())
    assert len(points) == 11


def rehearsal_of(given: dict[str, Any], folder: Path) -> Any:
    return prepared(given | {"method": "full"}, folder / "again").model


def test_the_mixture_is_the_best_that_keeps_enough() -> None:
    points = [
        Point(alpha, metric, 1.0, 1, {"a": kept, "b": 1.0})
        for alpha, metric, kept in ((0.0, 0.5, 1.0), (0.5, 0.8, 0.96), (0.7, 0.9, 0.9), (1.0, 0.7, 0.8))
    ]
    assert wise_ft.choose(points, None)[0].alpha == 0.7
    chosen, why = wise_ft.choose(points, 0.95)
    assert (chosen.alpha, "Of the 2 mixtures (of 4)" in why) == (0.5, True)
    assert "rejected" not in why
    chosen, why = wise_ft.choose(points, 0.97)
    assert (chosen.alpha, "The trained weights are rejected" in why) == (0.0, True)
    chosen, why = wise_ft.choose(points[2:], 0.95)
    assert (chosen.alpha, why.startswith("No mixture keeps 95 %")) == (0.7, True)
