"""Tokenised questions with their passages: where in a passage each token stands, and where the answer does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tunesmith.data.tokens import Tokens

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Passages(Tokens):
    """Pieces of a question and a part of its passage."""

    spans: npt.NDArray[np.int32]
    """(tokens, 2) start and end in the passage, in characters, of each token that is of it; -1 of all others."""
    answer: Indices | None
    """(pieces, 2) places of the answer's first and last token; those of the piece's first token where it does not stand in
    this piece. None where nothing is known."""
    passages: Sequence[str]
    """(rows,) the passages."""
    answers: Sequence[Sequence[str]] | None
    """(rows,) all answers of each question, none where there is none; None where nothing is known."""
    plain: bool = False
    """Whether the network's logits are wanted as they are."""

    @cached_property
    def key(self) -> str:
        """As of all tokens, with where the answers stand."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.ids, self.offsets, self.kinds, self.spans, self.answer):
            digest.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @cached_property
    def answerable(self) -> npt.NDArray[np.bool_]:
        """(rows,)."""
        assert self.answers is not None
        return np.array([bool(one) for one in self.answers])

    @property
    def answer_lengths(self) -> Indices:
        """(rows,) tokens of the first answer; 0 where there is none, or where no piece shows all of it."""
        assert self.answer is not None
        first, last = self.answer.T
        found = np.zeros(self.rows, dtype=np.int64)
        np.maximum.at(found, self.owner, np.where(last > 0, last - first + 1, 0))
        return found

    def spans_at(self, indices: Indices) -> npt.NDArray[np.int64]:
        """(len(indices), longest, 2): `spans` of the pieces `indices`, as `padded` lays them out; -1 at padding."""
        inside, source = self.places(indices)
        found = np.full((*inside.shape, 2), -1, dtype=np.int64)
        found[inside] = self.spans[source]
        return found
