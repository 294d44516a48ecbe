"""What guards keep of the network as it was before training: weights, their importance, features of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from tunesmith.contracts import Array, Collate, Examples, Model, Task
from tunesmith.models.activations import VIEWS, features, pooled, watched
from tunesmith.models.forward import device_of, evaluated, precision, to
from tunesmith.plans import Plan
from tunesmith.train import fisher
from tunesmith.train.guards import origin_of
from tunesmith.train.rehearsal import Rehearsal
from tunesmith.train.weights import Tensors


@dataclass(frozen=True)
class Kept:
    """Features of some examples as the pre-trained network gave them, by view (see `activations.VIEWS`)."""

    values: dict[str, torch.Tensor]
    """(examples, width)."""
    spread: dict[str, float]
    """Mean squared distance of an example's features from their mean: the unit of `distances`."""

    def distances(self, now: dict[str, torch.Tensor], examples: Array) -> torch.Tensor:
        """(len(examples),): squared distance of the features `now` from those kept, in units of `spread`; mean over views.

        A variant of a row (see `Plan.views`) is held near the row itself.
        """
        found = [
            (now[view] - kept[torch.from_numpy(examples % len(kept))].to(now[view].device)).square().sum(dim=1)
            / self.spread[view]
            for view, kept in self.values.items()
        ]
        return torch.stack(found).mean(dim=0)


@dataclass(frozen=True)
class Replayed:
    """A reference that training goes back to."""

    rehearsal: Rehearsal
    kept: Kept
    collate: Collate


@dataclass(frozen=True)
class Anchors:
    """Empty where the plan has no guard that looks back."""

    origin: Tensors = field(default_factory=dict)
    """The backbone's weights, by full name."""
    importance: Tensors = field(default_factory=dict)
    """Of each of them, by full name; 1 is usual."""
    train: Kept | None = None
    """Of the training rows."""
    replayed: tuple[Replayed, ...] = ()


def anchors(
    task: Task, model: Model, plan: Plan, train: Examples, references: Sequence[Rehearsal], seed: int
) -> Anchors:
    """What the guards of `plan` need of `model`, whose weights are those from before training."""
    guards = plan.guards
    return Anchors(
        origin=origin_of(model.module, model.stages) if guards.l2_sp or guards.ewc else {},
        importance=_importance(task, model, train, references, seed) if guards.ewc else {},
        train=_kept(model, train, partial(task.inputs, train, model=model), plan.precision) if guards.distil else None,
        replayed=tuple(_replayed(model, one, plan.precision) for one in references) if guards.replay else (),
    )


def stand_in(task: Task, model: Model, plan: Plan, train: Examples, references: Sequence[Rehearsal]) -> Anchors:
    """Anchors of the same shapes that cost nothing to make: for a trial, whose steps take as long with any numbers."""
    guards = plan.guards
    held = {name: tensor.detach() for name, tensor in model.module.named_parameters()}
    pulls = guards.l2_sp or guards.ewc
    return Anchors(
        origin=held if pulls else {},
        importance={name: torch.ones_like(one[:1]).expand_as(one) for name, one in held.items()} if pulls else {},
        train=_blank(model, train, partial(task.inputs, train, model=model), plan.precision) if guards.distil else None,
        replayed=tuple(
            Replayed(one, _blank(model, one.examples, collate, plan.precision), collate)
            for one in (references if guards.replay else ())
            for collate in [partial(one.task.inputs, one.examples, model=one.model)]
        ),
    )


def _importance(task: Task, model: Model, train: Examples, references: Sequence[Rehearsal], seed: int) -> Tensors:
    """For the references; without any, for the task itself with the head that training starts from."""
    if references:
        found = [fisher.importance(one.task, one.model, one.examples, seed) for one in references]
    else:
        found = [fisher.importance(task, model, train, seed)]
    known = fisher.normalised(found)
    names = dict(model.module.get_submodule(model.backbone).named_parameters())
    return {f"{model.start}{name}": known[name] for name in names if name in known}


def _replayed(model: Model, one: Rehearsal, precision_name: str) -> Replayed:
    collate = partial(one.task.inputs, one.examples, model=one.model)
    return Replayed(one, _kept(model, one.examples, collate, precision_name), collate)


def _kept(model: Model, examples: Examples, collate: Collate, precision_name: str) -> Kept:
    found = features(model, VIEWS, examples.lengths, collate, precision_name)
    spread = {view: float(values.astype(np.float64).var(axis=0).sum()) for view, values in found.items()}
    return Kept(
        {view: torch.from_numpy(values) for view, values in found.items()},
        {view: value or 1.0 for view, value in spread.items()},
    )


def _blank(model: Model, examples: Examples, collate: Collate, precision_name: str) -> Kept:
    device = device_of(model.module)
    batch = to(collate(np.arange(1)), device)
    with evaluated(model.module), torch.no_grad(), precision(device, precision_name), watched(model, VIEWS) as found:
        model.module(**batch)
        widths = {view: pooled(found[view], batch).shape[1] for view in VIEWS}
    blank = {view: torch.zeros(1, width).expand(len(examples), width) for view, width in widths.items()}
    return Kept(blank, dict.fromkeys(VIEWS, 1.0))
