"""Pairs: two sequences a row, of which the first was preferred, and how likely both were before training."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Rows with a chosen and a rejected answer to one prompt; each that can be learned is one example of two sequences."""

    both: Dialogue
    """(2 · pairs) pieces: piece 2 i is prompt and chosen answer of pair i, piece 2 i + 1 prompt and rejected answer; its rows
    are the (2 · rows) sequences of all rows."""
    owner: Indices
    """(pairs,) the row of each, ascending; a row of which nothing can be learned has none."""
    reference: npt.NDArray[np.float64]
    """(pairs, 2) the log-probability of each answer before training; 0 while nobody has computed it."""
    refused: Sequence[str] = ()
    """Why, of each row of which the chat template refuses a side; such rows have no pair."""

    @property
    def rows(self) -> int:
        return self.both.rows // 2

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def targets(self) -> None:
        """Nothing is told of a row as a whole."""
        return

    @property
    def read_lengths(self) -> Indices:
        """(pairs,) the same."""
        return self.lengths

    @cached_property
    def lengths(self) -> Indices:
        """(pairs,) tokens of both sequences, the shorter padded to the longer."""
        longer: Indices = self.both.lengths.reshape(-1, 2).max(axis=1, initial=0)
        return 2 * longer

    @cached_property
    def tokens(self) -> npt.NDArray[np.float64]:
        """(pairs, 2) tokens of each answer."""
        return self.both.asked.reshape(-1, 2)

    @property
    def whole(self) -> npt.NDArray[np.float64]:
        """(pairs, 2) the same of the answers before they were cut."""
        cut = self.both.cut[self.both.owner, 1].reshape(-1, 2)
        return np.asarray(self.tokens + cut, dtype=np.float64)

    @property
    def left_out(self) -> int:
        """Rows of which nothing can be learned, without those that were refused."""
        return self.rows - len(self) - len(self.refused)

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        return np.ones(len(self), dtype=np.float32)

    @property
    def key(self) -> str:
        return self.both.key

    def count(self, indices: Indices) -> float:
        return float(len(indices))

    def pieces(self, indices: Indices) -> Indices:
        """(2 · len(indices),) the sequences of the pairs `indices`, those of a pair side by side."""
        return (2 * indices[:, None] + np.arange(2)).ravel()

    def prompt(self, pair: int) -> npt.NDArray[np.int32]:
        """The tokens that stand before the chosen answer; before its last turn where it has several."""
        start = int(self.both.offsets[2 * pair])
        return self.both.ids[start : start + max(1, int(self.both.begins[2 * pair]))]

    def side(self, which: int) -> Dialogue:
        """The sequences with the chosen answers, or those with the rejected ones, by themselves."""
        found = taken(self.both, np.arange(which, 2 * len(self), 2))
        lost, cut = self.both.lost[which::2], self.both.cut[which::2]
        return replace(found, owner=self.owner, lost=lost, cut=cut, references=None)

    def referred(self, reference: npt.NDArray[np.float64]) -> Pairs:
        """The same with (pairs, 2) the log-probabilities from before training."""
        return replace(self, reference=reference)


def pairs(both: Dialogue) -> Pairs:
    """Pairs of the rows 2 i and 2 i + 1 of `both`, the chosen answer first.

    Those of which nothing can be learned are left out: where nothing of one answer is left within the limit, or where both
    are the same once they are cut.
    """
    asking = np.flatnonzero(both.asked > 0)
    first, second = (asking[both.owner[asking] % 2 == side] for side in (CHOSEN, REJECTED))
    owner, one, other = np.intersect1d(both.owner[first] // 2, both.owner[second] // 2, return_indices=True)
    sequences = np.stack([first[one], second[other]], axis=1)
    kept = np.array([_differ(both, *pair) for pair in sequences.tolist()], dtype=bool)
    found = taken(both, sequences[kept].ravel())
    return Pairs(found, owner[kept], np.zeros((int(kept.sum()), 2)))


def taken(rows: Dialogue, pieces: Indices) -> Dialogue:
    """Some pieces of `rows`, in this order."""
    lengths = rows.lengths[pieces]
    _, _, source = rows.laid(pieces)
    return replace(
        rows,
        ids=rows.ids[source],
        wanted=rows.wanted[source],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        owner=rows.owner[pieces],
        scale=rows.scale[pieces],
        begins=rows.begins[pieces],
    )


def _differ(both: Dialogue, first: int, second: int) -> bool:
    """Whether the network is asked for other tokens in one piece than in the other."""
    told = [both.wanted[both.offsets[piece] : both.offsets[piece + 1]] for piece in (first, second)]
    return not np.array_equal(*(one[one != NOTHING] for one in told))
