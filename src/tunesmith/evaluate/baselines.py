"""What the result is held against: always the commonest answer, a frozen probe, the same network trained otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from tunesmith.contracts import Array, Head, Model, Task
from tunesmith.models import probes
from tunesmith.models.forward import answers, logits
from tunesmith.train.course import Job
from tunesmith.train.events import Trained
from tunesmith.train.follow import follow
from tunesmith.train.loop import train


def probe(task: Task, pretrained: Model, head: Head, rows: Mapping[str, pa.Table], precision: str) -> Array:
    """Logits (test rows, outputs) of the frozen backbone with `head`.

    Args:
        rows: of validation and test.
    """
    probed = probes.with_head(pretrained, head)
    return levelled(task, probed, task.encode(rows["test"], probed), rows["validation"], precision)


def levelled(task: Task, model: Model, test: Any, validation: pa.Table, precision: str) -> Array:
    """What `model` answers (test rows, outputs) to the examples `test`, by what is fitted for it on validation."""

    def fitting() -> tuple[Any, Array]:
        examples = task.encode(validation, model)
        return examples, logits(task, model, examples, precision)

    return task.levelled(answers(task, model, test, precision), fitting)


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
