"""What guards keep of the network as it was before training: weights, their importance, features of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from tunesmith.contracts import Array, Collate, Examples, Indices, Model, Task
from tunesmith.errors import SettingsError
from tunesmith.models.activations import VIEWS, features, pooled, watched
from tunesmith.models.forward import device_of, evaluated, precision, to
from tunesmith.plans import Plan
from tunesmith.train import fisher, kept_answers
from tunesmith.train.guards import origin_of
from tunesmith.train.kept_answers import KeptAnswers
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
    kept: Kept | None
    """None where its rows are learned as such, by the head that the network has for them."""
    collate: Collate
    rows: Indices
    """Those that are replayed: of rows that are learned, the ones that have anything to learn."""


@dataclass(frozen=True)
class Anchors:
    """Empty where the plan has no guard that looks back."""

    origin: Tensors = field(default_factory=dict)
    """The backbone's weights, by full name."""
    importance: Tensors = field(default_factory=dict)
    """Of each of them, by full name; 1 is usual."""
    train: Kept | KeptAnswers | None = None
    """Of the training rows."""
    replayed: tuple[Replayed, ...] = ()

    @property
    def reads_features(self) -> bool:
        """Whether anything is held by its features."""
        return isinstance(self.train, Kept) or any(one.kept is not None for one in self.replayed)

    @property
    def learns(self) -> bool:
        """Whether replayed rows are learned as such; all are, or none."""
        return any(one.kept is None for one in self.replayed)


def anchors(
    task: Task, model: Model, plan: Plan, train: Examples, seen: Examples, references: Sequence[Rehearsal], seed: int
) -> Anchors:
    """What the guards of `plan` need of `model`, whose weights are those from before training.

    Args:
        seen: the training rows in all their views, as training passes them.

    Raises:
        SettingsError: a reference cannot be replayed.
    """
    guards = plan.guards
    return Anchors(
        origin=origin_of(model.module, model.stages) if guards.l2_sp or guards.ewc else {},
        importance=_importance(task, model, train, references, seed) if guards.ewc else {},
        train=_held(task, model, plan, train, seen) if guards.distil else None,
        replayed=tuple(_replayed(task, model, one, plan, _kept) for one in references) if guards.replay else (),
    )


def _held(task: Task, model: Model, plan: Plan, train: Examples, seen: Examples) -> Kept | KeptAnswers:
    if by_answers(task, seen):
        return kept_answers.computed(task, model, seen, plan.precision)
    return _kept(model, train, partial(task.inputs, train, model=model), plan.precision)


def by_answers(task: Task, seen: Examples) -> bool:
    """Whether it is the tokens told that are held near those of the pre-trained network, and not features."""
    return task.asked(seen, np.arange(1)) is not None


def stand_in(
    task: Task, model: Model, plan: Plan, train: Examples, seen: Examples, references: Sequence[Rehearsal]
) -> Anchors:
    """Anchors of the same shapes that cost nothing to make: for a trial, whose steps take as long with any numbers."""
    guards = plan.guards
    kept: Kept | KeptAnswers | None = None
    if guards.distil and by_answers(task, seen):
        kept = kept_answers.stand_in(task, model, seen)
    elif guards.distil:
        kept = _blank(model, train, partial(task.inputs, train, model=model), plan.precision)
    held = {name: tensor.detach() for name, tensor in model.module.named_parameters()}
    pulls = guards.l2_sp or guards.ewc
    return Anchors(
        origin=held if pulls else {},
        importance={name: torch.ones_like(one[:1]).expand_as(one) for name, one in held.items()} if pulls else {},
        train=kept,
        replayed=tuple(_replayed(task, model, one, plan, _blank) for one in references) if guards.replay else (),
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


def _replayed(task: Task, model: Model, one: Rehearsal, plan: Plan, keep: Callable[..., Kept]) -> Replayed:
    """`keep`: what makes of the rows what is held, where they are not learned as such."""
    collate = partial(one.task.inputs, one.examples, model=one.model)
    if not task.keeps_head:
        kept = keep(model, one.examples, collate, plan.precision)
        return Replayed(one, kept, collate, np.arange(len(one.examples)))
    if type(one.model.module) is not type(model.module):
        raise SettingsError(
            f"train.replay learns the rows of evaluate.retention {one.name!r} with the network that is trained, a "
            f"{type(model.module).__name__}; {one.task.name} is measured with a {type(one.model.module).__name__}.",
            f"Leave train.replay away, or give the reference a task of the same network, such as {task.name}.",
        )
    told = [number for number in range(len(one.examples)) if one.examples.count(np.array([number]))]
    if not told:
        raise SettingsError(
            f"Of none of the rows of evaluate.retention {one.name!r} there is anything to learn.",
            "Leave train.replay away, or give longer texts.",
        )
    return Replayed(one, None, collate, np.array(told))


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
