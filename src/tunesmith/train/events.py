"""What training tells its caller. Printing, logging and stopping are the caller's `for`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.contracts import Model
from tunesmith.plans import Plan


@dataclass(frozen=True)
class ChosenBy:
    """Weights and methods will be chosen by this metric on validation."""

    metric: str


@dataclass(frozen=True)
class HeadSolved:
    """A "solve" phase is over: what was tried, by name, with its validation score."""

    tried: Mapping[str, float]
    seconds: float
    head: bool
    """Whether there was a head to solve for; otherwise the network was measured as it is."""


@dataclass(frozen=True)
class CacheFilled:
    """What frozen stages put out is kept: from here on the network is entered at `stage`."""

    stage: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class StepDone:
    """One optimiser step is over."""

    step: int
    """Optimiser steps done, over all phases."""
    steps: int
    """Optimiser steps of the whole plan."""
    epoch: int
    loss: float
    """Mean over the rows of this step."""
    learning_rates: Mapping[str, float]
    rows: float
    """A row that lies in several pieces counts by the share of them that was seen."""
    beside: Mapping[str, float] = field(default_factory=dict)
    """What the task tells of a step beside its loss; means over its rows."""


@dataclass(frozen=True)
class MicroBatchHalved:
    """The accelerator ran out of memory; the step was done again in smaller parts, with the same effective batch."""

    tokens: int


@dataclass(frozen=True)
class StartMeasured:
    """Validation before the first step, of a network whose head was solved for."""

    validation_loss: float
    metric: float


@dataclass(frozen=True)
class EpochDone:
    """All rows were seen once more, and validation was measured."""

    epoch: int
    train_loss: float
    validation_loss: float
    metric: float
    best: bool


@dataclass(frozen=True)
class Saved:
    """A checkpoint was written."""

    folder: Path


@dataclass(frozen=True)
class Trying:
    """One of several plans is begun."""

    label: str


@dataclass(frozen=True)
class LeftOut:
    """An entry of the frontier that was not tried."""

    label: str
    method: str
    parameters_trainable: int
    predicted_seconds: float
    left_out: str
    """Why."""


@dataclass(frozen=True)
class Tried:
    """An entry of the frontier: a plan that was tried, and what came of it."""

    label: str
    method: str
    parameters_trainable: int
    predicted_seconds: float
    metric: Mapping[str, float]
    """The primary metric on validation: value, low, high."""
    seconds: float
    epochs: int
    peak_memory_bytes: int
    stopped: str | None = None
    """Why it was stopped before its end."""
    curve: tuple[Mapping[str, Any], ...] = ()
    retention: float | None = None
    """The share of the reference score that is kept, where one is measured."""
    preferred: bool = False
    """Whether it is kept unless another is better beyond its interval."""


@dataclass(frozen=True)
class RangeTest:
    """What was tried, and what follows for the plan."""

    rates: Sequence[float]
    """The highest rate of any stage at each step, by what steps of as many rows as the plan's would bear."""
    losses: Sequence[float]
    """Moving averages; shorter than `rates` where the loss was no number any more."""
    too_high: float | None
    """The one at which the loss went up; None where it never did."""
    factor: float
    """By which the plan's rates are multiplied."""
    seconds: float
    """What the test took, with solving for the head, which the run need not do again."""


@dataclass(frozen=True)
class Trained:
    """The end: the model with its best weights, and the figures of the way there."""

    plan: Plan
    model: Model
    steps: int
    epochs: int
    best_epoch: int | None
    """0: the weights from before the first step, whose head was solved for; None where no epoch was trained."""
    best_loss: float | None
    """On validation, of the weights that are kept; None where no epoch was trained."""
    stopped_early: bool
    rows_seen: int
    curve: tuple[Mapping[str, Any], ...]
    """Per epoch: epoch, train_loss, validation_loss, metric."""
    seconds: float
    """Of training with its validations, over all sessions of a resumed run."""
    peak_memory_bytes: int
    cache: Mapping[str, Any] | None
    """stage, bytes, hits of the activation cache; None where it was not used."""
    stopped: str | None = None
    """Why nothing more was tried, where that was not for want of improvement."""
    frontier: tuple[Tried | LeftOut, ...] = ()
    """All that was tried, where there was a choice."""
    range_test: RangeTest | None = None
    """Of the learning rate, where it was made just before training."""


Event = (
    HeadSolved | CacheFilled | StartMeasured | StepDone | MicroBatchHalved | EpochDone | Saved | Trying | Tried | LeftOut
    | Trained
)  # fmt: skip
