"""What the result is held against: always the commonest answer, a frozen probe, the same network trained otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesmith.contracts import Array, Model, Task
from tunesmith.models import probes
from tunesmith.models.forward import logits
from tunesmith.train.course import Job
from tunesmith.train.events import Trained
from tunesmith.train.follow import follow
from tunesmith.train.loop import train


def probe(task: Task, pretrained: Model, head: Path, test: pa.Table, precision: str) -> Array:
    """Logits (rows, outputs) of the frozen backbone with the head that `probes.write` kept in `head`."""
    probed = probes.with_head(pretrained, probes.read(head))
    return logits(task, probed, task.encode(test, probed), precision)


def from_scratch(job: Job, listen: Callable[[Any], None]) -> Model:
    """The same network, trained from fresh weights.

    Args:
        job: whose model has fresh weights throughout.
    """
    guards = job.plan.guards.without_origin()
    job = dataclasses.replace(job, plan=dataclasses.replace(job.plan, guards=guards))
    return beside(job, "scratch", listen).model


def beside(job: Job, name: str, listen: Callable[[Any], None]) -> Trained:
    """Carry out `job`, every process taking part; log and checkpoints go to the folder `name` beside its checkpoints."""
    folder, run = job.checkpoints / name, job.checkpoints.parent
    folder.mkdir(parents=True, exist_ok=True)
    job = dataclasses.replace(job, checkpoints=folder)
    return follow(train(job), folder / "log.jsonl", 10, run, listen)
