"""The loop: a generator of events over the plan's phases. It reads the table and knows no method by name."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

from tunesmith.models import probes
from tunesmith.train import checkpoint, memory, processes
from tunesmith.train.checkpoint import Progress
from tunesmith.train.course import Course, Job
from tunesmith.train.events import Event, HeadSolved, Trained
from tunesmith.train.weights import Tensors, load_into

PROBE_HEAD = "probe.safetensors"
"""In the checkpoints folder: the best linear head on frozen features, a baseline for what follows."""


def train(job: Job) -> Iterator[Event]:
    """Carry out the plan, from the newest sound checkpoint if there is one; the last event is Trained.

    Raises:
        TrainingError: the loss is not finite, or one row alone does not fit into memory.
        RunError: a checkpoint cannot be written.
    """
    started = time.perf_counter()
    found = checkpoint.newest(job.checkpoints)
    progress = found.progress if found else Progress()
    clock = started - progress.seconds
    best: Tensors = found.best if found else {}
    if found:
        if (
            progress.phase and not job.plan.standard_head
        ):  # the head's place was found before the checkpoint was written
            job = dataclasses.replace(job, model=probes.with_head(job.model, probes.read(job.checkpoints / PROBE_HEAD)))
        load_into(job.model.module, found.weights)
    for phase in job.plan.phases[progress.phase :]:
        if phase.head == "solve":
            begun = time.perf_counter()
            with job.served(progress.phase, job.sample()) as served:
                if served.filled:
                    yield served.filled
                given = served.by_source
                solved = job.task.solve_head(job.model, given["train"], given["validation"], job.plan, phase, job.seed)
            job = dataclasses.replace(job, model=solved.model)
            if processes.state().is_main_process:
                probes.write(solved.probe, job.checkpoints / PROBE_HEAD)
            yield HeadSolved(solved.tried, time.perf_counter() - begun)
        else:
            course = Course(job, phase, progress, found, best, clock)
            yield from course.events()
            found, best = None, course.best
        progress.next_phase()
    if best:
        load_into(job.model.module, best)
    job.model.module.eval()
    yield Trained(
        model=job.model,
        steps=progress.steps_before,
        epochs=len(progress.curve),
        best_epoch=progress.best_epoch,
        best_loss=progress.best_loss,
        stopped_early=progress.stopped_early,
        rows_seen=round(progress.rows_seen),
        curve=tuple(progress.curve),
        seconds=time.perf_counter() - clock,
        peak_memory_bytes=memory.peak_bytes(),
        cache={"bytes": job.store.bytes, "hits": job.store.hits} if job.store.hits else None,
    )
