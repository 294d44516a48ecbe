"""Texts of two sides: the tokens of what is read, and those of what is to be written of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data.asked import Asked
from tunesmith.data.tokens import Tokens

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SourceTarget:
    """Rows of two sides. Where a row has several targets, example v · rows + i is row i with one of them."""

    source: Tokens
    """What is read: a piece a row."""
    target: Asked
    """What is to be written: a piece an example, with the tokens that are learned."""
    texts: pa.ChunkedArray
    """(rows,) the sources as they were."""
    references: Sequence[Sequence[str]] | None
    """(rows,) what could be written; None where nobody says."""
    cut: Indices
    """(rows, 2) tokens that were cut from the source, and from the first target."""
    plain: bool = False
    """Whether the logits at the last place of each target are what is kept."""

    targets = None
    """No class and no score."""

    @property
    def rows(self) -> int:
        return len(self.source)

    def __len__(self) -> int:
        return len(self.target)

    @cached_property
    def owner(self) -> Indices:
        """(examples,) the row of each."""
        return np.arange(len(self), dtype=np.int64) % max(1, self.rows)

    @cached_property
    def lengths(self) -> Indices:
        """(examples,) tokens of both sides."""
        both: Indices = self.read_lengths + self.target.lengths
        return both

    @cached_property
    def read_lengths(self) -> Indices:
        """(examples,) tokens of the source."""
        found: Indices = self.source.lengths[self.owner]
        return found

    @cached_property
    def weights(self) -> npt.NDArray[np.float32]:
        """(examples,) ones; of several targets an epoch passes one."""
        return np.ones(len(self), dtype=np.float32)

    @cached_property
    def key(self) -> str:
        """A checksum over both sides."""
        text = f"{self.source.key}/{self.target.key}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def lost(self) -> Indices:
        """(rows,) tokens that were cut."""
        both: Indices = self.cut.sum(axis=1)
        return both

    @property
    def by_row(self) -> npt.NDArray[np.float64]:
        """(examples,) tokens that are learned."""
        return self.target.by_row

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """(examples,) ones: every token is learned for itself."""
        return self.target.scale

    def count(self, indices: Indices) -> float:
        return self.target.count(indices)

    def wanted_of(self, indices: Indices) -> tuple[Indices, Indices]:
        """See Asked."""
        return self.target.wanted_of(indices)
