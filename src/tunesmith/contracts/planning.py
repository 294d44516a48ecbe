"""What a method is asked, and what it may know of the job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel

from tunesmith.contracts.network import HeadKind, Loading, Stage
from tunesmith.plans import BatchShape, Frontier, Plan
from tunesmith.settings import TrainSettings


@dataclass(frozen=True)
class Variation:
    """How training rows are varied at random from epoch to epoch."""

    views: int | None
    """Fixed variants of each row; None for a new one each epoch."""
    told: str
    """What is varied, as a sentence."""


@dataclass(frozen=True)
class Packing:
    """How training rows can be packed into sequences, in which none sees another."""

    tokens: int
    """Of a sequence."""
    wanted: bool
    """Whether the user asks for it; otherwise it is done where it saves work."""
    padding: Callable[[BatchShape], float]
    """The share of what an epoch passes forward in such batches that is padding, where rows are not packed."""


@dataclass(frozen=True)
class Facts:
    """What a method may know of the job when it makes its plan."""

    rows: int
    """Of the training split."""
    pieces: int
    """What batches of one epoch are made of: as many as rows, or more where long rows are read in windows."""
    choices: int
    """Among how many an answer is chosen: classes, or places."""
    hidden: int
    native_bf16: bool
    linear_blocks: bool
    """Whether the blocks have linear layers, which adapters go into."""
    head: HeadKind
    head_hidden: int
    """The head's own width, by which its rate goes where it cannot be solved for."""
    relative_gradients: Callable[[Plan], Mapping[str, float]]
    """Carries out a plan on a copy of the network; then the gradient's length over that of the weights, by stage."""
    settings: TrainSettings
    variation: Variation | None = None
    """None where each epoch passes the rows as they are."""
    weighed: tuple[str, ...] = ()
    """How much rows count, as sentences."""
    told: tuple[str, ...] = ()
    """What the task decided of itself, as sentences."""
    packing: Packing | None = None
    """None where rows cannot be packed."""
    rows_a_class: float | None = None
    """Where each row has one class, how many rows a class has on average; None elsewhere."""
    pace: float = 1.0
    """Times the usual learning rate that the loss of the task bears."""
    kept_apart: str | None = None
    """Why rows of validation cannot train too, even when nothing is left to choose by them; None where they can."""
    normalised: bool = True
    """Whether the blocks normalise what they put out."""
    holds: Literal["features", "answers", "nothing"] = "features"
    """What of training rows can be held near the pre-trained network: one vector a row, the tokens told, or nothing."""
    replays: Literal["features", "loss", "nothing"] = "features"
    """What reference rows can teach that training goes back to: one vector a row, their own loss, or nothing."""


class Method(Protocol):
    """How the weights change. One file a method in `methods`."""

    name: str
    Settings: type[BaseModel]
    loading: Loading
    """How the network is to be loaded."""

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan | Frontier:
        """What to do; or several ways, of which training keeps the best by validation."""
        ...
