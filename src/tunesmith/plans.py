"""The plan: one total table that says what trains, how fast, and why. Frozen, printable, JSON; knows no torch.

A stage without a learning rate is frozen. Every stage stands in every phase; a plan that breaks a rule cannot be made.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from tunesmith.errors import SettingsError

HEAD = "head"
"""The name of the stage that is added for the task; all others belong to the backbone."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate's factor as a pure function of the step, so that a resumed run cannot restart it.

    Linear warm-up over the first `warmup` share of the steps, then a straight line down to zero.
    """

    warmup: float = 0.1

    def factor(self, step: int, steps: int) -> float:
        """Factor in (0, 1] for optimiser step `step` (from 0) of `steps`."""
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / (math.floor(rising) + 1)
        return (steps - step) / max(1.0, steps - rising)


@dataclass(frozen=True)
class Row:
    """One stage in one phase. `learning_rate` None means frozen."""

    stage: str
    learning_rate: float | None
    weight_decay: float = 0.0
    adapter: str | None = None

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not (0 < self.learning_rate < math.inf):
            raise SettingsError(
                f"The plan gives stage {self.stage!r} the learning rate {self.learning_rate}.",
                "A rate is positive; a stage that should stay as it is has none.",
            )


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one table.

    `head` = "solve": nothing trains by gradient; the head is the exact solution of a regularised linear problem on
    frozen features. `head` = "train": the rows with a rate train for `epochs`.
    """

    name: str
    head: Literal["solve", "train"]
    rows: tuple[Row, ...]
    epochs: int = 0
    schedule: Schedule = Schedule()

    def __post_init__(self) -> None:
        names = [row.stage for row in self.rows]
        if len(set(names)) != len(names):
            raise SettingsError(f"Phase {self.name!r} of the plan names a stage twice: {', '.join(names)}.")
        trains = any(row.learning_rate is not None for row in self.rows)
        if self.head == "solve" and (trains or self.epochs):
            raise SettingsError(f"Phase {self.name!r} solves for the head, so it has neither epochs nor rates.")
        if self.head == "train" and not (trains and self.epochs > 0):
            raise SettingsError(f"Phase {self.name!r} trains, so it needs at least one rate and one epoch.")


@dataclass(frozen=True)
class BatchShape:
    """`rows` make one optimiser step over all processes; `micro_batch_tokens` bounds one forward pass, padding included."""

    rows: int
    micro_batch_tokens: int


@dataclass(frozen=True)
class Plan:
    """Everything that training needs to know besides model and data."""

    method: str
    phases: tuple[Phase, ...]
    precision: Literal["bf16", "fp32"]
    batch: BatchShape
    clip_norm: float = 1.0
    patience: int = 2
    dropout: float | None = 0.0
    """None keeps what the model's configuration says."""
    standard_head: bool = True
    """The head must be the one that the model's own class has, so that `pipeline` opens the result."""
    predicted: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tables = [tuple(row.stage for row in phase.rows) for phase in self.phases]
        if not tables:
            raise SettingsError("The plan has no phase, so nothing would be trained.")
        if any(table != tables[0] for table in tables):
            raise SettingsError("Every phase of a plan names every stage, in the same order.")

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(row.stage for row in self.phases[0].rows)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)
