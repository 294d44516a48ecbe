"""Rows of one text, or of several that are compared: each text is a piece of its row, and passed by itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.batches import spread
from tunesmith.data.tokens import Tokens

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SeveralTexts(Tokens):
    """Texts, those of one row next to each other."""

    apart: int
    """How many texts a row has."""
    same: Indices
    """(pieces,) a number for each different text."""

    @cached_property
    def belonging(self) -> Indices:
        """(rows or fewer,) ascending, a number for each two texts that some row says belong together: see `paired`."""
        rows = self.same.reshape(-1, self.apart)
        return np.unique(self.paired(rows[:, 0], rows[:, 1]))

    def paired(self, asking: Indices, found: Indices) -> Indices:
        """One number for the texts `asking` and `found`, of any shapes that go together."""
        return np.asarray(asking * (int(self.same.max(initial=0)) + 1) + found)

    def few(self, rows: Indices) -> SeveralTexts:
        """Some of the rows, ascending."""
        chosen = spread(rows, self.apart)
        starts = self.offsets[chosen]
        lengths = self.offsets[chosen + 1] - starts
        ends = np.cumsum(lengths)
        source = np.arange(int(ends[-1])) + np.repeat(starts - (ends - lengths), lengths)
        return SeveralTexts(
            ids=self.ids[source],
            kinds=None,
            offsets=np.concatenate([[0], ends]).astype(np.int64),
            owner=np.repeat(np.arange(len(rows), dtype=np.int64), self.apart),
            targets=None if self.targets is None else self.targets[rows],
            lost=self.lost[rows],
            apart=self.apart,
            same=self.same[chosen],
        )


def side_by_side(columns: Sequence[Tokens], texts: Sequence[Sequence[str]], targets: Any) -> SeveralTexts:
    """The texts of each row next to each other.

    Args:
        columns: the first text of every row, then the second, …
        texts: what `columns` were made of.
        targets: (rows,), or None.
    """
    rows, apart = columns[0].rows, len(columns)
    pieces = [[one.ids[start:end] for start, end in itertools.pairwise(one.offsets.tolist())] for one in columns]
    flat = [piece for row in zip(*pieces, strict=True) for piece in row]
    return SeveralTexts(
        ids=np.concatenate(flat) if flat else np.zeros(0, dtype=np.int32),
        kinds=None,
        offsets=np.concatenate([[0], np.cumsum([len(piece) for piece in flat], dtype=np.int64)]).astype(np.int64),
        owner=np.repeat(np.arange(rows, dtype=np.int64), apart),
        targets=targets,
        lost=np.sum([one.lost for one in columns], axis=0, dtype=np.int64),
        apart=apart,
        same=numbered(texts).ravel(),
    )


def numbered(texts: Sequence[Sequence[str]]) -> Indices:
    """(rows, texts of each) a number for each different text, of columns as `side_by_side` takes them."""
    whole = [text for row in zip(*texts, strict=True) for text in row]
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in whole], dtype=np.int64).reshape(-1, len(texts))
