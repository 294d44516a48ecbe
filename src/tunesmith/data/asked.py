"""Tokenised text with the tokens that a language model is to tell, and where."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tunesmith.data.tokens import Tokens

NOTHING = -1


@dataclass(frozen=True)
class Asked(Tokens):
    """Pieces of text; at some of their places the network is asked for a token."""

    wanted: npt.NDArray[np.int32]
    """(tokens,) what is asked for at each place; `NOTHING` where nothing is."""
    scale: npt.NDArray[np.float32]
    """(pieces,) for how many tokens of its text each one that is asked for stands."""

    @cached_property
    def asked(self) -> npt.NDArray[np.float64]:
        """(pieces,) for how many tokens of the text each piece stands."""
        inside = np.concatenate([[0], np.cumsum(self.wanted != NOTHING)])
        return np.diff(inside[self.offsets]) * self.scale.astype(np.float64)

    @cached_property
    def by_row(self) -> npt.NDArray[np.float64]:
        """(rows,) the same of each row."""
        found = np.zeros(self.rows)
        np.add.at(found, self.owner, self.asked)
        return found

    @cached_property
    def key(self) -> str:
        """As of all tokens, with what is asked for."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.ids, self.offsets, self.wanted, self.scale):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def count(self, indices: npt.NDArray[np.int64]) -> float:
        return float(self.asked[indices].sum())

    def wanted_of(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(asked,) which of `indices` each token that is asked for belongs to, and the token; piece by piece, in order."""
        piece, _, source = self.laid(indices)
        wanted = self.wanted[source]
        asking = wanted != NOTHING
        return piece[asking], wanted[asking].astype(np.int64)

    def asked_at(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(asked,) the places of the same tokens, counted through the rows that `padded` makes of `indices`."""
        return np.flatnonzero(self._wanted_at(indices) != NOTHING)

    def _wanted_at(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(len(indices), longest): `wanted` of the pieces `indices`, as `padded` lays them out."""
        inside, source = self.places(indices)
        found = np.full(inside.shape, NOTHING, dtype=np.int64)
        found[inside] = self.wanted[source]
        return found
