"""Pairs: two sequences a row, of which the first was preferred, and how likely both were before training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tunesmith.data.asked import NOTHING
from tunesmith.data.dialogue import Dialogue

Indices = npt.NDArray[np.int64]
CHOSEN, REJECTED = 0, 1


@dataclass(frozen=True)
class Pairs:
    """Rows with a chosen and a rejected answer to one prompt; each row is one example of two sequences."""

    both: Dialogue
    """(2 · rows) pieces: of row i piece 2 i is prompt and chosen answer, piece 2 i + 1 prompt and rejected answer."""
    reference: npt.NDArray[np.float64]
    """(rows, 2) the log-probability of each answer before training; 0 while nobody has computed it."""

    @property
    def rows(self) -> int:
        return len(self.reference)

    def __len__(self) -> int:
        return len(self.reference)

    @property
    def owner(self) -> Indices:
        return np.arange(self.rows)

    @property
    def targets(self) -> None:
        """Nothing is told of a row as a whole."""
        return

    @cached_property
    def lengths(self) -> Indices:
        """(rows,) tokens of both sequences, the shorter padded to the longer."""
        longer: Indices = self.both.lengths.reshape(-1, 2).max(axis=1)
        return 2 * longer

    @cached_property
    def tokens(self) -> npt.NDArray[np.float64]:
        """(rows, 2) tokens of each answer."""
        return self.both.asked.reshape(-1, 2)

    @cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """(rows,) whether anything of both answers is left once they are cut, and the two differ there."""
        return (self.tokens > 0).all(axis=1) & np.array([self._differ(row) for row in range(self.rows)], dtype=bool)

    def _differ(self, row: int) -> bool:
        start, middle, end = self.both.offsets[2 * row : 2 * row + 3]
        told = [self.both.wanted[start:middle], self.both.wanted[middle:end]]
        return not np.array_equal(*(one[one != NOTHING] for one in told))

    @property
    def left_out(self) -> int:
        """Pairs of which nothing can be learned."""
        return int((~self.usable).sum())

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        return np.ones(self.rows, dtype=np.float32)

    @property
    def key(self) -> str:
        return self.both.key

    def count(self, indices: Indices) -> float:
        return float(self.usable[indices].sum())

    def pieces(self, indices: Indices) -> Indices:
        """(2 · len(indices),) the sequences of the rows `indices`, those of a row side by side."""
        return (2 * indices[:, None] + np.arange(2)).ravel()

    def side(self, which: int) -> Dialogue:
        """The sequences with the chosen answers, or with the rejected ones, by themselves."""
        pieces = np.arange(which, 2 * self.rows, 2)
        lengths = self.both.lengths[pieces]
        _, source = self.both.places(pieces) if len(pieces) else (None, np.zeros(0, dtype=np.int64))
        return replace(
            self.both,
            ids=self.both.ids[source],
            wanted=self.both.wanted[source],
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            owner=np.arange(self.rows),
            lost=self.both.lost[pieces],
            scale=self.both.scale[pieces],
            begins=self.both.begins[pieces],
            cut=self.both.cut[pieces],
        )

    def referred(self, reference: npt.NDArray[np.float64]) -> Pairs:
        """The same with (rows, 2) the log-probabilities from before training."""
        return replace(self, reference=reference)
