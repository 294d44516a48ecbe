"""surgical: the part of the network whose gradients are longest relative to its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith import prepare, settings
from tunesmith.contracts import Facts, Parameter, Stage
from tunesmith.methods.surgical import Surgical
from tunesmith.plans import cut_of
from tunesmith.settings import TrainSettings
from tunesmith.train.events import Trained
from tunesmith.train.evidence import relative_gradients
from tunesmith.train.loop import train

NAMES = ["embeddings", *[f"block {number}" for number in range(6)], "final", "head"]
STAGES = [Stage(name, (Parameter(f"{name}.weight", 10, bias=False, norm=False),)) for name in NAMES]


def facts(relative: dict[str, float]) -> Facts:
    return Facts(1000, 1000, 2, 32, False, True, "linear", 32, lambda _: relative, TrainSettings())


@pytest.mark.parametrize(
    ("largest", "expected", "cut"),
    [
        ("block 0", {"embeddings", "block 0", "block 1"}, None),
        ("block 3", {"block 2", "block 3", "block 4"}, "block 2"),
        ("block 5", {"block 5", "final"}, "block 5"),
    ],
)
def test_the_part_with_the_longest_gradients_trains(largest: str, expected: set[str], cut: str | None) -> None:
    relative = dict.fromkeys(NAMES, 0.1) | {largest: 1.0}
    plan = Surgical(Surgical.Settings()).plan(STAGES, facts(relative))
    rates = {row.stage for row in plan.phases[-1].rows if row.learning_rate is not None}
    assert rates == expected | {"head"}
    assert cut_of(plan.phases[-1]) == cut


def test_the_gradient_is_that_of_the_mean_loss_over_the_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    given = parse(settings | {"method": "probe"})
    ready = prepare.prepare(given, tmp_path / "cache", torch.device("cpu"), lambda _: None)
    plan = ready.frontier.candidates[0]
    found = relative_gradients(prepare.job(ready, ready.model, plan, tmp_path / "checkpoints"))
    again = prepare.prepare(given, tmp_path / "again", torch.device("cpu"), lambda _: None)
    job = prepare.job(again, again.model, plan, tmp_path / "checkpoints 2")
    model = next(event for event in train(job) if isinstance(event, Trained)).model
    model.module.requires_grad_(True)
    rows = torch.arange(len(job.train)).numpy()
    logits = model.module(**job.task.inputs(job.train, rows, model)).logits
    (job.task.loss(logits, job.train, rows).sum / len(rows)).backward()
    for stage in model.stages:
        held = [model.module.get_parameter(name) for name in stage.parameters]
        gradient = torch.cat([torch.zeros(1) if one.grad is None else one.grad.flatten() for one in held])
        weights = torch.cat([one.detach().flatten() for one in held])
        assert found[stage.name] == pytest.approx(float(gradient.norm() / weights.norm()), rel=1e-3)


def test_a_plan_says_why_these_stages_train(settings: dict[str, Any]) -> None:
    plan = tunesmith.plan(settings | {"method": "surgical"})
    assert "longest relative to the weights" in plan["reasons"][0]


parse = settings.parse
