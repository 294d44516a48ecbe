"""The learning-rate range test: it sees a rate that is too high, costs little, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tunesmith import prepare, settings
from tunesmith.train import range_test
from tunesmith.train.course import Job
from tunesmith.train.range_test import STEPS, affordable, rises_at, smoothed

LONG = {"epochs": 60, "batch_size": 16, "learning_rate": "auto", "precision": "fp32"}


def begin(values: dict[str, Any], folder: Path) -> Job:
    ready = prepare.prepare(settings.parse(values), folder / "cache", torch.device("cpu"), lambda _: None)
    return prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / "checkpoints")


NOISY = np.random.default_rng(0).gamma(1.5, 0.3, STEPS).tolist()


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ([0.0] * STEPS, None),
        (np.linspace(0.0, -0.4, STEPS).tolist(), None),
        ([0.0] * 16 + [0.9, 1.5, 3.0, 9.0, 20.0, 50.0, 90.0, 99.0], 17),
        ([5.0] * STEPS, 0),
        ([0.0] * 22 + [9.0, 9.0], None),  # one bad batch or two
        ([0.0] * 17, 17),  # no number came after it
    ],
)
def test_a_rise_is_seen_where_it_begins_whatever_the_noise(added: list[float], expected: int | None) -> None:
    assert rises_at([loss + more for loss, more in zip(NOISY, added, strict=False)], NOISY, 0.7) == expected


def test_averages_start_with_the_first_loss() -> None:
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])


@pytest.mark.parametrize("method", ["full", "probe", "bitfit", "lora", "gradual"])
def test_it_changes_nothing(settings: dict[str, Any], tmp_path: Path, method: str) -> None:
    """Row 12 of the known failures: weights, gradients and chance are what they were."""
    job = begin(settings | {"method": method, "train": LONG}, tmp_path)
    before = {name: tensor.clone() for name, tensor in job.model.module.state_dict().items()}
    chance = torch.get_rng_state()
    found = range_test.range_test(job)
    assert (found is None) == (method == "probe")
    after = job.model.module.state_dict()
    assert after.keys() == before.keys()
    backbone = [name for name in before if name.startswith(job.model.backbone)]
    assert all(torch.equal(before[name], after[name]) for name in (before if method != "gradual" else backbone))
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(parameter.grad is None for parameter in job.model.module.parameters())


def test_a_short_run_is_not_tested(settings: dict[str, Any], tmp_path: Path) -> None:
    job = begin(settings | {"train": LONG}, tmp_path)
    short = dataclasses.replace(job, plan=dataclasses.replace(job.plan, share_of_epoch=0.1))
    assert affordable(job) > 0
    assert affordable(short) == 0
    assert range_test.range_test(short) is None


def test_it_costs_a_few_per_cent_of_the_rows(settings: dict[str, Any], tmp_path: Path) -> None:
    job = begin(settings | {"train": LONG}, tmp_path)
    passed = job.plan.epochs * job.steps_an_epoch * job.plan.batch.rows
    assert STEPS * affordable(job) <= 0.03 * passed


def test_a_rate_that_tears_the_network_up_is_lowered(settings: dict[str, Any]) -> None:
    """A tiny network of random weights bears little: its features hardly differ, so that its solved head is steep."""
    plan = tunesmith.plan(settings | {"train": LONG})
    tested = plan["range_test"]
    assert tested["factor"] < 1
    assert tested["too_high"] in tested["rates"]
    planned = max(tested["rates"]) / range_test.HIGHEST
    rates = {row["learning_rate"] for row in plan["phases"][-1]["rows"]}
    assert max(rates) == pytest.approx(tested["factor"] * planned)
    assert max(rates) == pytest.approx(tested["too_high"] / range_test.MARGIN)
    assert "range test" in plan["reasons"][-1]


def test_few_rows_a_step_are_no_reason_for_a_lower_rate(settings: dict[str, Any], tmp_path: Path) -> None:
    """The test's steps have fewer rows than the plan's, and bear less by the root of that: so it tries lower rates than it
    tells."""
    job = begin(settings | {"train": LONG}, tmp_path)
    rates: list[float] = []
    tried = range_test.optimiser.set_rates

    def noted(adamw: Any, factor: float) -> None:
        rates.append(factor)
        tried(adamw, factor)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(range_test.optimiser, "set_rates", noted)
        found = range_test.range_test(job)
    assert found is not None
    rows = affordable(job)
    assert rows < job.plan.batch.rows
    assert rates[0] == pytest.approx(range_test.LOWEST * (rows / job.plan.batch.rows) ** 0.5)


def test_a_plan_may_want_no_test(settings: dict[str, Any], tmp_path: Path) -> None:
    job = begin(settings | {"train": LONG}, tmp_path)
    assert (
        range_test.range_test(dataclasses.replace(job, plan=dataclasses.replace(job.plan, tests_rates=False))) is None
    )


def test_guards_that_look_back_do_not_hide_a_rate_that_is_too_high(settings: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for guard in ({}, {"distil": 1.0, "l2_sp": 1.0}):
        tested = range_test.range_test(begin(settings | {"train": LONG | guard}, tmp_path / str(len(guard))))
        assert tested is not None
        found.append(tested.losses)
    assert found[0] == found[1]


def test_a_rate_that_the_user_sets_is_not_tested(settings: dict[str, Any]) -> None:
    assert "range_test" not in tunesmith.plan(settings | {"train": {**LONG, "learning_rate": 1e-4}})


def test_a_tested_run_is_resumed_with_the_rates_that_were_found(settings: dict[str, Any], tmp_path: Path) -> None:
    def stop(event: Any) -> None:
        if type(event).__name__ == "StepDone" and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tunesmith.finetune(settings | {"train": LONG}, run=tmp_path / "run", listen=stop)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    done = tunesmith.resume(tmp_path / "run")
    report = json.loads(done.report.read_text())
    assert report["plan"]["range_test"] == plan["range_test"]
    assert report["plan"]["phases"] == plan["phases"]
    assert "The range test" in done.page.read_text()
