"""What is trained beside the model, to hold it against: the same network from fresh weights, or without its adaptation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import prepare
from tunesmith.contracts import Model
from tunesmith.evaluate import baselines
from tunesmith.evaluate.retention import Reference
from tunesmith.methods.scratch import Scratch
from tunesmith.models.forward import device_of
from tunesmith.plans import Frontier, Plan
from tunesmith.prepare import Prepared, fresh_copy
from tunesmith.refit import Refitted, refit
from tunesmith.train.cache import Store
from tunesmith.train.course import Job
from tunesmith.train.events import Trained

Listener = Callable[[Any], None]
WITHOUT_ADAPT = "without_adapt"


@dataclass(frozen=True)
class WithoutAdapt:
    """What was trained from the weights as they came."""

    ready: Prepared
    trained: Trained
    refitted: Refitted | None
    checkpoints: Path


@dataclass(frozen=True)
class Beside:
    """What was trained beside the model, for comparison, where that was asked for."""

    scratch: Model | None = None
    """The same network from fresh weights."""
    without_adapt: WithoutAdapt | None = None


def train_from_scratch(ready: Prepared, job: Job, listen: Listener) -> Model:
    """The same network from fresh weights, trained by every process as the method `scratch` trains it."""
    listen("Training the same network from scratch, for comparison.")
    device = device_of(job.model.module)
    method = Scratch(Scratch.Settings())
    fresh = fresh_copy(ready, device, method.loading)
    plan = method.plan(fresh.stages, prepare.facts_of(ready, fresh))
    return baselines.from_scratch(dataclasses.replace(job, model=fresh, plan=plan), listen)


def train_without_adapt(
    ready: Prepared, plan: Plan, checkpoints: Path, references: Sequence[Reference], listen: Listener
) -> WithoutAdapt:
    """The same plan from the weights as they came, carried out by every process with the same seeds."""
    listen("Training the same without the adaptation, for comparison.")
    source = ready.settings.model
    model = fresh_copy(ready, ready.device, ready.loading, source)
    train, validation = ready.train, ready.validation
    if ready.task.relative:
        train, validation = (ready.task.anchored(one, model, plan.precision) for one in (train, validation))
    model = prepare.with_adapters(model, plan, ready.settings.seed)
    model.module.to(ready.device)
    other = dataclasses.replace(
        ready,
        source=source,
        model=model,
        train=train,
        validation=validation,
        store=Store(ready.store.folder.with_name(WITHOUT_ADAPT)),  # what other weights put out is of no use here
        frontier=Frontier((plan,)),
    )
    rehearsed = tuple(one.rehearsal() for one in references)
    trained = baselines.beside(prepare.job(other, model, plan, checkpoints, rehearsed), WITHOUT_ADAPT, listen)
    own = checkpoints / WITHOUT_ADAPT
    return WithoutAdapt(other, trained, refit(other, trained, own, references, listen), own)
