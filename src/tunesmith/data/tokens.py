"""Tokenised text without padding: all tokens in one array, rows by offset. Knows no tokenizer.

A row may lie in several pieces (a long text read in windows); `owner` says which row a piece belongs to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Tokens:
    """Pieces of text, ready to be padded into batches."""

    ids: npt.NDArray[np.int32]
    """(tokens,) of all pieces, one after the other."""
    kinds: npt.NDArray[np.uint8] | None
    """(tokens,) token type ids, for models that tell the two texts of a pair apart."""
    offsets: npt.NDArray[np.int64]
    """(pieces + 1,)."""
    owner: npt.NDArray[np.int64]
    """(pieces,) the row that each piece belongs to, ascending."""
    targets: npt.NDArray[Any] | None
    """(rows,) class index or score, or (rows, labels) of 0 and 1; None where nothing is known."""
    lost: npt.NDArray[np.int64]
    """(rows,) tokens that did not fit and were cut."""

    @property
    def rows(self) -> int:
        return len(self.lost)

    def __len__(self) -> int:
        return len(self.owner)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(pieces,) tokens of each piece."""
        return np.diff(self.offsets)

    @property
    def read_lengths(self) -> npt.NDArray[np.int64]:
        """(pieces,) tokens that the first blocks see: all of them."""
        return self.lengths

    @cached_property
    def weights(self) -> npt.NDArray[np.float32]:
        """(pieces,) one over the number of pieces of the row, so that each row counts once in the loss."""
        return (1.0 / np.bincount(self.owner, minlength=self.rows)[self.owner]).astype(np.float32)

    @cached_property
    def key(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.ids, self.offsets, self.kinds):
            digest.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def count(self, indices: npt.NDArray[np.int64]) -> float:
        return float(self.weights[indices].sum(dtype=np.float64))

    def laid(
        self, indices: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Of each token of the pieces `indices`, one piece after the other, each (tokens,): which of them it is in, its place
        there, and where it stands in `ids`."""
        lengths = self.lengths[indices]
        piece = np.repeat(np.arange(len(indices)), lengths)
        inside = np.arange(len(piece)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return piece, inside, np.repeat(self.offsets[indices], lengths) + inside

    def places(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        """Which places of (len(indices), longest) hold a token, and where in `ids` each of these tokens stands."""
        lengths = self.lengths[indices]
        place = np.arange(int(lengths.max()))
        inside = place < lengths[:, None]
        return inside, (self.offsets[indices][:, None] + place)[inside]

    def padded(
        self, indices: npt.NDArray[np.int64], pad_id: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids, attention mask and kinds of the pieces `indices`, each (len(indices), longest), padded on the right."""
        inside, source = self.places(indices)
        ids = np.full(inside.shape, pad_id, dtype=np.int64)
        ids[inside] = self.ids[source]
        kinds = np.zeros(inside.shape, dtype=np.int64)
        if self.kinds is not None:
            kinds[inside] = self.kinds[source]
        return ids, inside.astype(np.int64), kinds
