"""The loop: a generator of events over the plan's phases. It reads the table and knows no method by name."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterator

from tunesmith.contracts import Features
from tunesmith.metrics import direction
from tunesmith.models import probes
from tunesmith.models.checksum import checksum
from tunesmith.models.forward import device_of
from tunesmith.models.stages import is_adapter
from tunesmith.train import checkpoint, memory, processes, weights
from tunesmith.train.anchors import Anchors, anchors
from tunesmith.train.checkpoint import Progress
from tunesmith.train.course import Course, Job, State
from tunesmith.train.events import Event, HeadSolved, Trained
from tunesmith.train.weights import copy_of, load_into, of

PROBE_HEAD = "probe.safetensors"
"""In the checkpoints folder: the best linear head on frozen features, a baseline for what follows."""
START = "start.safetensors"
"""In the checkpoints folder, where guards need it: the whole network when gradient steps begin, its head solved for."""


def train(job: Job) -> Iterator[Event]:
    """Carry out the plan, from the newest sound checkpoint if there is one; the last event is Trained.

    Raises:
        TrainingError: the loss is not finite, or one row alone does not fit into memory.
        RunError: a checkpoint cannot be written.
    """
    started = time.perf_counter()
    found = checkpoint.newest(job.checkpoints)
    progress = found.progress if found else Progress(direction.sign(job.task.primary_metric))
    clock = started - progress.seconds
    solves = any(phase.head == "solve" for phase in job.plan.phases)
    if found and progress.phase and solves and not job.plan.standard_head:
        # The head's place was found before it was written.
        job = dataclasses.replace(job, model=probes.with_head(job.model, probes.read(job.checkpoints / PROBE_HEAD)))
    state = State(progress, found.best if found else {}, {}, Anchors())
    if found:
        if job.plan.guards.needs_start:
            weights.read(job.model.module, job.checkpoints / START)
        state.anchors = _anchors(job)
        device = device_of(job.model.module)
        state.averaged = {name: tensor.to(device) for name, tensor in found.averaged.items()}
        load_into(job.model.module, found.weights)
    for phase in job.plan.phases[progress.phase :]:
        if progress.ended:
            break
        if found and (progress.epoch == phase.epochs > 0 or progress.stopped_early):
            found = None  # the checkpoint was the phase's last one
        elif phase.head == "solve":
            job = yield from _solved(job, progress.phase)
        else:
            if not found and not state.progress.curve:  # nothing has trained yet
                if job.plan.guards.needs_start and processes.state().is_main_process:
                    weights.write(job.model.module, job.checkpoints / START)
                state.anchors = _anchors(job)
                state.averaged = copy_of(of(job.model.module)) if job.plan.guards.ema else {}
            yield from Course(job, phase, state, found, clock).events()
            found = None
        progress.next_phase()
    if state.best:
        load_into(job.model.module, state.best)
    job.model.module.eval()
    yield Trained(
        plan=job.plan,
        model=job.model,
        steps=progress.steps_before + progress.step,  # the latter where the last phase was ended
        epochs=len(progress.curve),
        best_epoch=progress.best_epoch,
        best_loss=progress.best_loss,
        stopped_early=progress.stopped_early,
        stopped=progress.ended,
        rows_seen=round(progress.rows_seen),
        curve=tuple(progress.curve),
        seconds=time.perf_counter() - clock,
        peak_memory_bytes=memory.peak_bytes(),
        cache=progress.cache,
    )


def _solved(job: Job, number: int) -> Generator[Event, None, Job]:
    """Carry out a "solve" phase; returns the job with the network that has the head."""
    begun = time.perf_counter()
    with job.served(number, job.sample()) as served:
        if served.filled:
            yield served.filled
        given, phase = served.by_source, job.plan.phases[number]
        kept = job.store.features.setdefault(_features_key(job), Features())
        train = given["train"]._replace(examples=job.train)  # of several views the first, the rows as they are
        solved = job.task.solve_head(job.model, train, given["validation"], job.plan, phase, job.seed, kept)
    solved = processes.agree(solved)  # rounding may differ between processes, and a near-tie with it
    job = dataclasses.replace(job, model=probes.with_head(job.model, solved.start))
    if processes.state().is_main_process:
        probes.write(solved.probe, job.checkpoints / PROBE_HEAD)
    yield HeadSolved(solved.tried, time.perf_counter() - begun, job.model.head != "none")
    return job


def _features_key(job: Job) -> str:
    """What the features depend on: weights, rows, precision. Adapters change nothing before they are trained."""
    frozen = checksum(job.model, lambda name: not is_adapter(name))
    return f"{frozen}/{job.train.key}/{job.validation.key}/{job.plan.precision}"


def _anchors(job: Job) -> Anchors:
    """What guards keep of the network, whose weights are those from before the first gradient step."""
    return anchors(job.task, job.model, job.plan, job.train, job.seen, job.references, job.seed)
