"""The learning-rate range test: at which rate does the loss go up? A few small steps that are undone.

Smith 2017, section 3.3: the rate grows from step to step, and the loss says where it becomes too high. Rates that methods
choose by width and batch are mostly well below; for a network that bears less than others of its width they are lowered.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np
import torch

from tunesmith.contracts import Batched, Indices
from tunesmith.data.batches import spread
from tunesmith.errors import TrainingError
from tunesmith.models.dropout import set_dropout
from tunesmith.models.forward import device_of, evaluated, precision, to
from tunesmith.models.freezing import apply_phase
from tunesmith.plans import Phase, Plan, cut_of
from tunesmith.train import optimiser
from tunesmith.train.anchors import Anchors
from tunesmith.train.course import Job
from tunesmith.train.events import RangeTest, Trained
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
LEAST_BORNE = 0.5
"""By how much the rates of a test are lowered at most, as its steps have fewer rows: not all of a rise is noise."""
MEMORY = 0.8
"""Of the moving average over losses, which undoes the noise of small steps; it looks back over about five of them."""

TAIL = 3
"""Steps that a rise lasts at least: a single bad batch is none."""


def affordable(job: Job) -> int:
    """Rows a step of a test that costs no more than a few per cent of the run; 0 where it would be too few to tell."""
    rows = int(SHARE_OF_RUN * job.plan.epochs * job.steps_an_epoch * job.plan.batch.rows / STEPS)
    return min(rows, MOST_ROWS) if rows >= FEWEST_ROWS else 0


def range_test(job: Job) -> RangeTest | None:
    """Try the rates of the plan's last training phase; None where the plan wants no test, the run is too short for one, or
    rows are compared, of which a few have no loss like that of a whole step.

    A step of fewer rows than the plan's is noisier, and bears less, by the root of the rows (Malladi et al. 2022, section 4):
    so much lower are the rates that it tries, down to half; what it finds is told for steps as the plan has them.

    The head is solved for first, on features that the run itself will use again. Weights and chance are afterwards what they
    were.
    """
    rows = affordable(job)
    if not rows or not job.plan.tests_rates or job.plan.phases[-1].head != "train" or job.plan.phases[-1].compares:
        return None
    began = time.perf_counter()
    kept, chance = copy_of(of(job.model.module)), torch.get_rng_state()
    solving = tuple(phase for phase in job.plan.phases if phase.head == "solve")
    cuts = [cut for phase in job.plan.phases if job.plan.cache and (cut := cut_of(phase))]
    try:
        ready = job
        if solving:
            # The run itself will read what the pass that solves for the head keeps.
            plan = dataclasses.replace(job.plan, phases=solving)
            first = dataclasses.replace(job, plan=plan, cuts=tuple(dict.fromkeys([*job.cuts, *cuts])))
            trained = next(event for event in train(first) if isinstance(event, Trained))
            ready = dataclasses.replace(job, model=trained.model)
        factors: list[float] = np.geomspace(LOWEST, HIGHEST, STEPS).tolist()
        sample = ready.sample()
        with ready.served(len(job.plan.phases) - 1, sample) as served, ready.unread_skipped(sample):
            losses, before = _losses(ready, job.plan.phases[-1], served.by_source["train"], factors, rows)
    finally:
        load_into(job.model.module, kept)
        torch.set_rng_state(chance)
        job.model.module.zero_grad()
    planned = max(row.learning_rate or 0.0 for row in job.plan.phases[-1].rows)
    place = rises_at(losses, before, _ignorant(job))
    too_high = None if place is None else factors[place]
    factor = 1.0 if too_high is None else min(1.0, too_high / MARGIN)
    return RangeTest(
        tuple(planned * one for one in factors),
        tuple(smoothed(losses)),
        None if too_high is None else planned * too_high,
        factor,
        time.perf_counter() - began,
    )


def _losses(
    job: Job, phase: Phase, given: Batched, factors: Sequence[float], rows: int
) -> tuple[list[float], list[float]]:
    """The mean loss of each step's rows just before its update, up to where it is no number; and before all updates."""
    module = job.model.module
    module.train()
    apply_phase(module, job.model.stages, phase)
    if job.plan.dropout is not None:
        set_dropout(module, job.plan.dropout)
    adamw = optimiser.build(module, job.model.stages, phase)
    # Guards that look back hold the weights where they are, which would hide a rate that is too high.
    # Mixed rows have a higher loss than the same rows before the step, which would be taken for a rise.
    guards = dataclasses.replace(job.plan.guards.without_origin(), mixup=0.0, cutmix=0.0)
    plan = dataclasses.replace(job.plan, guards=guards)
    stepper = Stepper(job.task, job.model, given, adamw, plan, job.seed, len(factors), Anchors())
    order = job.drawn("range test")
    parts = [
        spread(np.unique(np.take(order, range(number * rows, (number + 1) * rows), mode="wrap")), job.together)
        for number in range(len(factors))
    ]
    losses: list[float] = []
    before = [_mean_loss(job, given, part) for part in parts]
    whole = min(job.plan.batch.rows, len(job.train) // job.together)
    bears = max(LEAST_BORNE, math.sqrt(min(1.0, rows / whole)))
    for number, (factor, part) in enumerate(zip(factors, parts, strict=True)):
        optimiser.set_rates(adamw, bears * factor)
        try:
            done = stepper.step(part, number)
        except TrainingError:
            break
        losses.append(done.loss_sum / done.count)
    return losses, before


def _ignorant(job: Job) -> float:
    commonest = job.task.commonest(job.train, job.validation, job.model)
    return float(job.task.score(job.validation, commonest)["loss"])


def _mean_loss(job: Job, given: Batched, rows: Indices) -> float:
    module, device = job.model.module, device_of(job.model.module)
    with evaluated(module), torch.inference_mode(), precision(device, job.plan.precision):
        logits = job.task.read(module(**to(given.collate(rows), device)))
        return float(job.task.loss(logits, job.train, rows).sum) / job.train.count(rows)


def smoothed(losses: Sequence[float]) -> list[float]:
    """Exponential moving averages, without the pull to zero at the start."""
    found, average = [], 0.0
    for number, loss in enumerate(losses, 1):
        average = MEMORY * average + (1 - MEMORY) * loss
        found.append(average / (1 - MEMORY**number))
    return found


def rises_at(losses: Sequence[float], before: Sequence[float], ignorant: float) -> int | None:
    """The first step from which on the loss stays well above that before training, on average; None without one.

    Well above is half the loss of knowing nothing: on few rows the solved head may leave a loss of nearly zero.

    Args:
        losses: of each step; where they end before the last step they ended in what is no number, which counts as a rise.
        before: of the same rows with the weights from before the test, so that the noise of small steps cancels.
        ignorant: the loss of always giving the commonest answer.
    """
    if len(losses) < len(before):
        return len(losses)
    above = smoothed(np.subtract(losses, before).tolist())
    high = [excess > 0.5 * ignorant for excess in above]
    tail = high[::-1].index(False) if False in high else len(high)
    return len(high) - tail if tail >= TAIL else None


def scaled(plan: Plan, found: RangeTest | None) -> Plan:
    """`plan` with its rates as the test says, where there was one and it says anything."""
    if found is None or found.factor == 1:
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
    told = f"All rates are {found.factor:.2g} of that, as by the range test the loss goes up at {found.too_high:.2g}."
    return dataclasses.replace(plan, phases=phases, reasons=(*plan.reasons, told))
