"""A short timed trial: what the plan will take, measured on this machine with these rows, before anything is decided.

A few real steps of each phase are taken and undone: weights, optimiser and chance are afterwards what they were. Time goes
by padded tokens, of which the batches of an epoch are known beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from tunesmith.contracts import Batch, Batched, Collate, Indices
from tunesmith.data import batches
from tunesmith.errors import TrainingError
from tunesmith.models.activations import VIEWS
from tunesmith.models.dropout import set_dropout
from tunesmith.models.forward import INFERENCE_TOKENS, device_of, evaluated, precision, to
from tunesmith.models.freezing import apply_phase
from tunesmith.models.heads import outputs_of, width_of
from tunesmith.models.replay import Way, captured, entered, find_way
from tunesmith.plans import Phase, cut_of
from tunesmith.train import contrast, fisher, memory, optimiser, processes
from tunesmith.train.anchors import by_answers, stand_in
from tunesmith.train.cache import blocks_before, can_enter
from tunesmith.train.course import Job
from tunesmith.train.kept_answers import BYTES_A_PLACE
from tunesmith.train.passes import insist_on_dropout
from tunesmith.train.step import Stepper
from tunesmith.train.weights import copy_of, load_into, of

TIMED_STEPS = (2, 8)
"""At least and at most, of each phase; the more there are in the seconds of a trial, the surer the figure."""
MOST_PARTS = 4
"""Forward passes of a timed step: a step of long rows has dozens, each of which takes as long."""
SECONDS = 2.0
"""For the timed steps of each phase."""
FISHER_ROWS = 8
PASSES = 3
"""Batches of the timed forward pass."""
LEAST_PARTS = 32
"""Into which all rows are parted for it, so that of few rows no more than an eighth is passed."""
SOLVER_PASSES = 400
"""Over all features: kinds of pooling, strengths of the penalty, and steps of each solution."""
SOLVER_BYTES = 32
"""A number of the features: three kinds of pooling are kept, and the solver works on copies of one, two of them in fp64."""
FLOPS_A_SECOND, BYTES_A_SECOND = 6e10, 5e9
"""fp32 products, and reading, of two cores; solving is a small part of the whole, so that this need not be exact."""
KEPT_BYTES = {"bf16": 2, "fp32": 4}
LEAST_OF_A_STEP = 0.8
"""Of three passes that train nothing (there, back for the activations, back for the weights), what a step takes at least;
0.95 was measured for all weights of MiniLM."""


@dataclass(frozen=True)
class Predicted:
    """What training will take, if no phase stops early."""

    seconds: float
    """In all."""
    peak_memory_bytes: int
    solving: float
    """Seconds before the first step: of the phases that solve for the head, and of what guards keep."""
    stepping: float
    """Seconds of all training steps."""
    validating: float
    """Seconds of measuring on validation, once an epoch."""
    forward: float
    """Seconds a padded token of a pass that trains nothing."""
    timed: bool = True
    """Whether steps were timed; where not, this is the least that training could take, and nothing is known of memory."""
    kept_bytes: Mapping[str, int] = field(default_factory=dict)
    """Of activations, by the stage that they enter at; part of the peak."""


def predict(job: Job, forward: float | None = None, seconds: float = SECONDS) -> Predicted:
    """Time and memory of `job`, from a trial of a second or some.

    Args:
        forward: seconds a padded token of a pass that trains nothing, where that was measured before.
        seconds: for the timed steps of each phase, which are two at least.
    """
    kept = copy_of(of(job.model.module))
    chance = torch.get_rng_state()
    try:
        forward = forward or _forward(job)
        solving, stepping, validating = 0.0, 0.0, 0.0
        cached: dict[str, int] = {}
        for place, phase in enumerate(job.plan.phases):
            if phase.head == "solve":
                solving += _solving(job, forward)
                continue
            cut = cut_of(phase) if job.plan.cache else None
            uses = sum(one.epochs for one in job.plan.phases[place:])
            step, share, width = _stepping(job, phase, cut if uses > 1 else None, seconds)
            if cut is not None:  # what later phases enter at is kept beside it
                cached[cut] = round(width * KEPT_BYTES[job.plan.precision] * (_tokens(job) + _varying(job)))
            stepping += phase.epochs * step * _padded(job, phase)
            if phase.compares:  # the head is solved for after each epoch
                validating += phase.epochs * _solving(job, forward)
            # Once an epoch, and once before the first where the head was solved for.
            times = phase.epochs + (validating == 0.0 and job.plan.phases[0].head == "solve")
            validating += times * share * forward * float(job.validation.lengths.sum())
        validating += job.plan.epochs * _writing(job)
        solving += _anchoring(job, forward)
        if cached:
            solving += forward * _varying(job)
    except TrainingError as error:
        raise TrainingError(
            f"{error.what} That was in the trial before training, so nothing is lost.", error.mend
        ) from error
    finally:
        load_into(job.model.module, kept)
        torch.set_rng_state(chance)
    weights = sum(tensor.nbytes for tensor in kept.values())
    peak = memory.peak_bytes() + _beside(job, weights) + sum(cached.values())
    seconds = solving + stepping + validating
    if job.plan.refit != "no":  # another network, with its best weights, beside the one that is trained already
        seconds, peak = 2 * seconds, peak + 2 * weights
    return Predicted(seconds, peak, solving, stepping, validating, forward, kept_bytes=cached)


def sharing(options: Sequence[Predicted]) -> list[Predicted]:
    """The same where all are tried one after the other: what one of them keeps stays for the others."""
    whole: dict[str, int] = {}
    for one in options:
        whole |= one.kept_bytes
    return [
        replace(one, peak_memory_bytes=one.peak_memory_bytes + sum(whole.values()) - sum(one.kept_bytes.values()))
        if one.timed
        else one
        for one in options
    ]


def at_least(job: Job, known: Predicted) -> Predicted:
    """The least that `job` could take, from what another plan for the same network and rows showed; no step is taken."""
    blocks = len(job.model.blocks)
    stepping = validating = 0.0
    for phase in (one for one in job.plan.phases if one.head != "solve"):
        cut = cut_of(phase)
        behind = blocks if cut is not None else 0  # of a cut that is no block: final, or head
        trains = int(cut.removeprefix("block ")) if cut is not None and cut.startswith("block ") else behind
        passed, back = 1 - (trains if job.plan.cache else 0) / blocks, 1 - trains / blocks
        whole = all(row.part == "all" for row in phase.rows if row.learning_rate is not None)
        passes = LEAST_OF_A_STEP * (passed + (2 if whole else 1) * back)
        stepping += phase.epochs * passes * known.forward * _padded(job, phase)
        validating += phase.epochs * passed * known.forward * float(job.validation.lengths.sum())
    seconds = known.solving + stepping + validating
    return Predicted(seconds, 0, known.solving, stepping, validating, known.forward, timed=False)


def _writing(job: Job) -> float:
    """Seconds of letting the network write what a choice is made by, once; of most tasks nothing is."""
    begun = time.perf_counter()
    job.task.sampled(job.model, job.validation, np.zeros((job.validation.rows, 1)), job.plan.precision)
    return time.perf_counter() - begun


def _tokens(job: Job) -> int:
    return int(job.train.lengths.sum() + job.validation.lengths.sum())


def _padded(job: Job, phase: Phase) -> int:
    """Padded tokens of an epoch of `phase`."""
    return sum(_size(job, indices) for indices in job.steps(0, phase))


def _varying(job: Job) -> int:
    """Tokens of the views of training rows beside the rows themselves."""
    return int((job.plan.views - 1) * job.train.lengths.sum())


def _size(job: Job, indices: Indices) -> int:
    lengths = job.seen.lengths
    return sum(len(part) * int(lengths[part].max()) for part in job.parts(indices))


def _forward(job: Job) -> float:
    """Seconds a padded token of a pass that trains nothing."""
    lengths = job.train.lengths
    parts = batches.in_length_order(lengths, min(INFERENCE_TOKENS, int(lengths.sum()) // LEAST_PARTS))
    places = np.linspace(0, len(parts) - 1, min(PASSES, len(parts)) + 2)[1:-1]
    chosen = [parts[int(place)] for place in places]
    device, spent, tokens = device_of(job.model.module), 0.0, 0
    with evaluated(job.model.module), torch.inference_mode(), precision(device, job.plan.precision):
        # Only the very first pays for what is set up once: in a real pass each batch has a shape of its own too.
        for number, indices in enumerate([parts[-1], *chosen]):
            begun = time.perf_counter()
            logits = job.model.module(**to(job.task.inputs(job.train, indices, job.model), device)).logits
            logits.cpu()  # an accelerator answers before it is done; what is copied from it is done
            if number:
                spent += time.perf_counter() - begun
                tokens += len(indices) * int(lengths[indices].max())
    return spent / max(1, tokens)


def _beside(job: Job, weights: int) -> int:
    """Bytes of what training keeps that the trial does not, of a network of so many bytes."""
    guards, phases = job.plan.guards, job.plan.phases
    solving = SOLVER_BYTES * job.task.solved_on(job.train) * width_of(job.model) if phases[0].head == "solve" else 0
    if phases[-1].head != "train":
        return solving
    copies = 1  # the best weights
    copies += (
        2 if guards.ema or guards.swa else 0
    )  # the average, and the weights that it stands in for while it is measured
    copies += 1 if guards.l2_sp or guards.ewc else 0
    copies += 1 if guards.ewc else 0  # the importance of each
    answers, rows = 0.0, 0
    if guards.distil and by_answers(job.task, job.seen):
        answers = BYTES_A_PLACE * job.seen.count(np.arange(len(job.seen)))
    elif guards.distil:
        rows = len(job.train)
    if guards.replay and not job.task.keeps_head:
        rows += sum(len(one.examples) for one in job.references)
    return solving + copies * weights + int(answers) + rows * len(VIEWS) * width_of(job.model) * KEPT_BYTES["fp32"]


def _solving(job: Job, forward: float) -> float:
    if job.store.features:  # of this network: the range test solved for a head already
        forward = 0.0
    numbers = float(job.task.solved_on(job.train)) * width_of(job.model)
    # There and back: two products for each output, and each number read twice.
    a_number = max(4 * outputs_of(job.model) / FLOPS_A_SECOND, 2 * 4 / BYTES_A_SECOND)
    return forward * _tokens(job) + SOLVER_PASSES * numbers * a_number


def _anchoring(job: Job, forward: float) -> float:
    """Seconds for what guards keep of the network before the first step."""
    guards, seconds = job.plan.guards, 0.0
    if guards.distil:
        passed = job.seen if by_answers(job.task, job.seen) else job.train
        seconds += forward * float(passed.lengths.sum())
    if guards.replay and not job.task.keeps_head:
        seconds += forward * sum(float(one.examples.lengths.sum()) for one in job.references)
    if guards.ewc:
        known = [(one.task, one.model, one.examples) for one in job.references] or [(job.task, job.model, job.train)]
        for task, model, examples in known:
            begun = time.perf_counter()
            fisher.importance(task, model, examples, job.seed, FISHER_ROWS)
            share = min(fisher.MOST_ROWS, len(examples)) / min(FISHER_ROWS, len(examples))
            seconds += share * (time.perf_counter() - begun)
    return seconds


def _stepping(job: Job, phase: Phase, cut: str | None, seconds: float) -> tuple[float, float, float]:
    """Seconds a padded token of a training step; when entering at `cut`, the share of the blocks that is still passed, and
    how many numbers a token are kept."""
    module = job.model.module
    module.train()
    apply_phase(module, job.model.stages, phase)
    if job.plan.dropout is not None:
        set_dropout(module, job.plan.dropout)
    insist_on_dropout(job.plan, phase, job.model)
    # The first view is the rows as they are; what varies them costs time only where it is not kept.
    steps = sorted(job.steps(0 if cut is not None else 1, phase), key=lambda indices: _size(job, indices))
    order = [_some(job, phase, indices) for indices in steps]
    least, most = TIMED_STEPS
    chosen = [order[int(place)] for place in np.linspace(0, len(order) - 1, most + 2)[1:-1]]
    chosen = [*chosen[::2], *reversed(chosen[1::2])]  # any first few of them are short and long ones
    sample, width = job.sample(), 0.0
    with ExitStack() as stack:
        stack.enter_context(job.unread_skipped(sample))
        collate: Collate = partial(job.task.inputs, job.seen, model=job.model)
        way = find_way(job.model, to(sample, device_of(module))) if cut is not None else None
        count = blocks_before(cut, way) if cut is not None and way is not None else 0
        if way is not None and not can_enter(job.model, way, count, sample, job.plan.precision):
            count = 0
        if way is not None and count:
            collate, width = _entering(job, stack, way, count, collate, [*chosen, order[-1]])
        adamw = optimiser.build(module, job.model.stages, phase)
        optimiser.set_rates(adamw, 0.0)  # the steps cost what they cost, and change nothing
        held = stand_in(job.task, job.model, job.plan, job.train, job.seen, job.references)
        given = Batched(job.seen, collate)
        objective = stack.enter_context(contrast.objective(job.task, job.model, phase))
        stepper = Stepper(objective, job.model, given, adamw, job.plan, job.seed, most, held)
        for indices in (order[-1], chosen[-1]):  # the largest shows the memory; both pay for what is set up once
            stepper.step(indices, 0)
        begun, spent, done = time.perf_counter(), 0.0, 0
        while done < least or (done < most and spent < seconds):
            stepper.step(chosen[done], done + 1)
            spent, done = time.perf_counter() - begun, done + 1
    share = 1 - count / len(way.blocks) if way is not None else 1.0
    return spent / sum(_size(job, indices) for indices in chosen[:done]), share, width


def _some(job: Job, phase: Phase, indices: Indices) -> Indices:
    """Those rows of a step that show its time and memory by the token: all where they belong together, or where others come
    with each step."""
    if phase.compares or job.together > 1 or job.plan.guards.replay:
        return indices
    parts = job.parts(indices)
    most = MOST_PARTS * processes.state().num_processes  # each takes its share of a step
    places = np.linspace(0, len(parts) - 1, min(most, len(parts)))  # the longest among them
    return np.concatenate([parts[int(place)] for place in places])


def _entering(
    job: Job, stack: ExitStack, way: Way, count: int, collate: Collate, chosen: Sequence[Indices]
) -> tuple[Collate, float]:
    """Batches of the steps `chosen` with what enters the block after `count` others, computed here and not in the steps; and
    how many numbers a padded token that is."""
    device = device_of(job.model.module)
    kept: dict[bytes, torch.Tensor] = {}
    tokens = 0
    with torch.no_grad(), precision(device, job.plan.precision), captured(job.model, way, [count]) as passing:
        for indices in chosen:
            own = processes.share(indices)
            for part in job.parts(own):
                if part.tobytes() not in kept:  # of few steps some are taken twice
                    kept[part.tobytes()] = passing(to(collate(part), device))[count]
                    tokens += len(part) * int(job.train.lengths[part].max())
    hand = stack.enter_context(entered(job.model, way, count))

    def handing(indices: Indices) -> Batch:
        if (found := kept.get(indices.tobytes())) is not None:  # absent where memory ran out and the parts were halved
            hand(found)
        return collate(indices)

    return handing, sum(found.numel() for found in kept.values()) / max(1, tokens)
