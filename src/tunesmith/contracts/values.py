"""Small values that cross between floors: indices, batches, losses, heads, and what examples are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

Indices = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
Batch = Mapping[str, torch.Tensor]
Collate = Callable[[Indices], Batch]
"""Indices of examples to what the network is given."""


class Loss(NamedTuple):
    """A loss as a sum and a count; divided once, at the end, over all micro-batches and processes."""

    sum: torch.Tensor
    """Scalar, fp32, with its graph."""
    count: float  # type: ignore[assignment]  # hides tuple.count, which nobody asks of a loss
    """How many rows (or parts of rows) the sum runs over."""
    beside: Sequence[torch.Tensor] = ()
    """Sums over the same, of what the objective's `besides` names; scalars, fp32."""


@dataclass(frozen=True)
class Head:
    """A linear head: pooling, weight (outputs, width), bias (outputs,)."""

    pooling: str
    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    strength: float | None = None
    """Of the penalty that it was solved for with, where it was."""


@dataclass(frozen=True)
class Solved:
    """The head to go on with, the head of the best probe, and what was tried on the way."""

    start: Head
    probe: Head
    tried: Mapping[str, float]
    """Pooling to its score on validation; empty where that would take a pass of its own."""


@dataclass(frozen=True)
class Features:
    """Of the pre-trained network: what heads are solved for on, and what was solved for; filled by who needs it first."""

    by_split: dict[str, dict[str, Array]] = field(default_factory=dict)
    """By split and pooling: (pieces, width)."""
    solved: dict[tuple[str, tuple[float, ...]], Any] = field(default_factory=dict)
    """By pooling and strengths."""


class Examples(Protocol):
    """Rows as the network takes them, not yet padded; a long row may lie in several pieces, each an example of its own."""

    @property
    def lengths(self) -> Indices:
        """(examples,) what each one costs, in tokens."""
        ...

    @property
    def read_lengths(self) -> Indices:
        """(examples,) how many of these the first blocks see: fewer where a decoder reads what was written so far."""
        ...

    @property
    def rows(self) -> int: ...

    @property
    def owner(self) -> Indices:
        """(examples,) the row that each belongs to, ascending."""
        ...

    @property
    def targets(self) -> Array | None:
        """(rows,) class index or score, or (rows, labels) of 0 and 1; None where nothing is known."""
        ...

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """(examples,) the share of its row that each is, so that every row counts once in the loss."""
        ...

    @property
    def key(self) -> str:
        """A checksum over what the network is given of them."""
        ...

    def __len__(self) -> int: ...

    def count(self, indices: Indices) -> float:
        """What `indices` add to a loss's count; known before the forward pass, so that processes can agree on it."""
        ...


class Batched(NamedTuple):
    """Examples and how batches of them are made."""

    examples: Any
    collate: Collate
    expect: Callable[[Sequence[Indices]], None] | None = None
    """Told which batches will be asked for next, so that they can be made before; None where none is."""
