"""The timed trial: it says what training will take, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tiny import METHODS
from tunesmith import prepare, settings
from tunesmith.data.batches import micro_batches
from tunesmith.plans import Comparison
from tunesmith.train import trial


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_changes_nothing(settings: dict[str, Any], tmp_path: Path, method: str) -> None:
    """Row 12 of the known failures: weights, optimiser and chance are what they were."""
    given = parse(settings | {"method": method})
    ready = prepare.prepare(given, tmp_path / "cache", torch.device("cpu"), lambda _: None)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[-1], tmp_path / "checkpoints")
    before = {name: tensor.clone() for name, tensor in ready.model.module.state_dict().items()}
    chance = torch.get_rng_state()
    found = trial.predict(job)
    assert found.seconds > 0
    assert found.peak_memory_bytes > sum(tensor.nbytes for tensor in before.values())
    after = ready.model.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), chance)
    assert not ready.store.kept
    assert not (tmp_path / "checkpoints").exists()
    assert all(parameter.grad is None for parameter in ready.model.module.parameters())


def test_a_plan_says_what_the_trial_found(settings: dict[str, Any]) -> None:
    assert tunesmith.plan(settings)["predicted"]["seconds"] > 0


@pytest.mark.parametrize("more", [{"ema": 0.9}, {"l2_sp": 0.1}, {"ewc": 0.1}])
def test_what_guards_keep_is_counted(settings: dict[str, Any], tmp_path: Path, more: dict[str, Any]) -> None:
    given = parse(settings | {"train": {**settings["train"], **more}})
    ready = prepare.prepare(given, tmp_path / "cache", torch.device("cpu"), lambda _: None)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], tmp_path / "checkpoints")
    copies = {"ema": 3, "l2_sp": 2, "ewc": 3}[next(iter(more))]
    solving = trial.SOLVER_BYTES * len(job.train) * 32
    assert trial._beside(job, 1000) == copies * 1000 + solving


def test_a_timed_step_is_a_few_forward_passes_the_longest_among_them(settings: dict[str, Any], tmp_path: Path) -> None:
    small = {"batch_size": 32, "micro_batch_tokens": 24}
    ready = prepare.prepare(
        parse(settings | {"train": settings["train"] | small}), tmp_path / "cache", torch.device("cpu"), lambda _: None
    )
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], tmp_path / "checkpoints")
    phase, lengths = job.plan.phases[-1], job.train.lengths
    for indices in job.steps(0, phase):
        whole = micro_batches(indices, lengths, 24)
        some = micro_batches(trial._some(job, phase, indices), lengths, 24)
        assert len(some) <= trial.MOST_PARTS < len(whole)
        assert max(lengths[part].max() for part in some) == lengths[indices].max()
    compared = dataclasses.replace(phase, compares=Comparison())
    assert len(trial._some(job, compared, indices)) == len(indices)


def test_what_one_plan_keeps_counts_for_all_that_are_tried_beside_it() -> None:
    one, other = (trial.Predicted(1.0, 1000, 0.0, 1.0, 0.0, 0.0, kept_bytes=kept) for kept in ({"block 1": 100}, {}))
    least = trial.Predicted(1.0, 0, 0.0, 1.0, 0.0, 0.0, timed=False)
    assert [found.peak_memory_bytes for found in trial.sharing([one, other, least])] == [1000, 1100, 0]


parse = settings.parse


def test_what_is_kept_of_few_steps_is_counted_once(settings: dict[str, Any], tmp_path: Path) -> None:
    """Some of them are timed twice."""
    more = {"train": settings["train"] | {"batch_size": 32, "epochs": 3}, "method": {"name": "partial", "last": 1}}
    ready = prepare.prepare(parse(settings | more), tmp_path / "cache", torch.device("cpu"), lambda _: None)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], tmp_path / "checkpoints")
    assert len(job.steps(0, job.plan.phases[-1])) < max(trial.TIMED_STEPS)
    (found,) = trial.predict(job).kept_bytes.values()
    assert found == 32 * trial.KEPT_BYTES[job.plan.precision] * trial._tokens(job)  # the tiny network is 32 wide
