"""The learning-rate range test: at which rate does the loss go up? A few small steps that are undone.

Smith 2017, section 3.3: the rate grows from step to step, and the loss says where it becomes too high. Rates that methods
choose by width and batch are mostly well below; for a network that bears less than others of its width they are lowered.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tunesmith import seeds
from tunesmith.contracts import Batched
from tunesmith.errors import TrainingError
from tunesmith.models.dropout import set_dropout
from tunesmith.models.freezing import apply_phase
from tunesmith.plans import Phase, Plan
from tunesmith.train import optimiser
from tunesmith.train.course import Job
from tunesmith.train.events import Trained
from tunesmith.train.loop import train
from tunesmith.train.step import Stepper
from tunesmith.train.weights import copy_of, load_into, of

STEPS = 24
LOWEST, HIGHEST = 0.25, 64.0
"""Times the planned rate."""
SHARE_OF_RUN = 0.03
"""Rows that may be spent, of all that training passes."""
FEWEST_ROWS, MOST_ROWS = 4, 16
"""Of a step."""
MARGIN = 4.0
"""A rate this much below the one at which the loss goes up is safe to stay at."""
MEMORY = 0.8
"""Of the moving average over losses, which undoes the noise of small steps; it looks back over about five of them."""


@dataclass(frozen=True)
class RangeTest:
    """What was tried, and what follows for the plan."""

    rates: tuple[float, ...]
    """The highest rate of any stage at each step."""
    losses: tuple[float, ...]
    """Moving averages; shorter than `rates` where the loss was no number any more."""
    too_high: float | None
    """The rate at which the loss went up; None where it never did."""
    factor: float
    """By which the plan's rates are multiplied."""


def affordable(job: Job) -> int:
    """Rows a step of a test that costs no more than a few per cent of the run; 0 where it would be too few to tell."""
    rows = int(SHARE_OF_RUN * job.plan.epochs * job.steps_an_epoch * job.plan.batch.rows / STEPS)
    return min(rows, MOST_ROWS) if rows >= FEWEST_ROWS else 0


def range_test(job: Job) -> RangeTest | None:
    """Try the rates of the plan's last training phase; None where the run is too short for a test.

    The head is solved for first, on features that the run itself will use again. Weights and chance are afterwards what they
    were.
    """
    rows = affordable(job)
    if not rows or job.plan.phases[-1].head != "train":
        return None
    kept, chance = copy_of(of(job.model.module)), torch.get_rng_state()
    solving = tuple(phase for phase in job.plan.phases if phase.head == "solve")
    try:
        ready = job
        if solving:
            first = dataclasses.replace(job, plan=dataclasses.replace(job.plan, phases=solving))
            trained = next(event for event in train(first) if isinstance(event, Trained))
            ready = dataclasses.replace(job, model=trained.model)
        factors = np.geomspace(LOWEST, HIGHEST, STEPS)
        losses = _losses(ready, job.plan.phases[-1], factors.tolist(), rows)
    finally:
        load_into(job.model.module, kept)
        torch.set_rng_state(chance)
        job.model.module.zero_grad()
    planned = max(row.learning_rate or 0.0 for row in job.plan.phases[-1].rows)
    place = rises_at(losses)
    too_high = None if place is None else float(factors[place])
    factor = 1.0 if too_high is None else min(1.0, too_high / MARGIN)
    return RangeTest(
        tuple(float(planned * one) for one in factors),
        tuple(smoothed(losses)),
        None if too_high is None else planned * too_high,
        factor,
    )


def _losses(job: Job, phase: Phase, factors: Sequence[float], rows: int) -> list[float]:
    """The mean loss of each step's rows before its update; ends where it is no number."""
    module = job.model.module
    module.train()
    apply_phase(module, job.model.stages, phase)
    if job.plan.dropout is not None:
        set_dropout(module, job.plan.dropout)
    adamw = optimiser.build(module, job.model.stages, phase)
    given = Batched(job.train, lambda indices: job.task.inputs(job.train, indices, job.model))
    stepper = Stepper(job.task, job.model, given, adamw, job.plan, job.seed, len(factors))
    order = seeds.generator(job.seed, "range test").permutation(len(job.train))
    losses: list[float] = []
    for number, factor in enumerate(factors):
        optimiser.set_rates(adamw, factor)
        chosen = np.take(order, range(number * rows, (number + 1) * rows), mode="wrap")
        try:
            done = stepper.step(np.unique(chosen), number)
        except TrainingError:
            break
        losses.append(done.loss_sum / done.count)
    return losses


def smoothed(losses: Sequence[float]) -> list[float]:
    """Exponential moving averages, without the pull to zero at the start."""
    found, average = [], 0.0
    for number, loss in enumerate(losses, 1):
        average = MEMORY * average + (1 - MEMORY) * loss
        found.append(average / (1 - MEMORY**number))
    return found


def rises_at(losses: Sequence[float]) -> int | None:
    """The first step at which the averaged loss is half as high again as its lowest, beyond noise; None where it never is.

    `losses` that end before the last step ended in what is no number, which counts as a rise.
    """
    averages = smoothed(losses)
    early = np.array(losses[: max(3, STEPS // 3)])
    noise = 3 * float(early.std()) * math.sqrt((1 - MEMORY) / (1 + MEMORY)) if len(early) > 1 else 0.0
    lowest = math.inf
    for place, average in enumerate(averages):
        lowest = min(lowest, average)
        if average > 1.5 * lowest + noise:
            return place
    return len(losses) if len(losses) < STEPS else None


def scaled(plan: Plan, found: RangeTest) -> Plan:
    """`plan` with its rates as the test says."""
    if found.factor == 1:
        return plan
    phases = tuple(
        dataclasses.replace(
            phase,
            rows=tuple(
                row
                if row.learning_rate is None
                else dataclasses.replace(row, learning_rate=row.learning_rate * found.factor)
                for row in phase.rows
            ),
        )
        for phase in plan.phases
    )
    told = (
        f"All rates are lowered to {found.factor:.2g} of that, as the range test saw the loss go up at {found.too_high:.2g}."
    )
    return dataclasses.replace(plan, phases=phases, reasons=(*plan.reasons, told))
