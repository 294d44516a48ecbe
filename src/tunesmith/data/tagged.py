"""Tokenised text whose words are to be told apart: of each piece, which words it answers for, and where they begin."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tunesmith.data.tokens import Tokens

Indices = npt.NDArray[np.int64]
UNKNOWN = -1
"""In place of a class index: a tag that no training text has."""


@dataclass(frozen=True)
class Tagged(Tokens):
    """Pieces of text. A word is answered for by one piece, at its first token. One that lies in the token of the word before
    it goes with that one, and one that has no token has no answer."""

    firsts: Indices
    """(answers,) the place in its piece of the first token of each word, piece by piece."""
    words: Indices
    """(answers,) which word of its row that is."""
    bounds: Indices
    """(pieces + 1,) where the answers of each piece lie among all."""
    word_offsets: Indices
    """(rows + 1,) where the words of each row lie among all."""
    follows: npt.NDArray[np.bool_]
    """(words of all rows,) whether each lies in the same token as the word before it."""
    tags: Indices | None
    """(words of all rows,) class index of each, or UNKNOWN; None where nothing is known."""
    taught: Indices | None
    """(words of all rows,) what is to be answered for each; None where nothing is known."""
    plain: bool = False
    """Whether the network's logits are wanted as they are, of every token."""
    unknown: Indices | None = None
    """(rows,) how many entities, or words with a tag, are of types that no training text has; None where nothing is known."""
    unknown_types: Mapping[str, int] = field(default_factory=dict)
    """How often which of these types occurs in all rows."""

    @cached_property
    def key(self) -> str:
        """As of all tokens, with what is asked of them."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.ids, self.offsets, self.firsts, self.words, self.bounds, self.word_offsets, self.taught):
            digest.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @cached_property
    def answers(self) -> Indices:
        """(pieces,) how many words each piece answers for."""
        return np.diff(self.bounds)

    @cached_property
    def words_of_rows(self) -> Indices:
        """(rows,) how many words each row has."""
        return np.diff(self.word_offsets)

    def count(self, indices: Indices) -> float:
        """Words that are answered for."""
        return float(self.answers[indices].sum())

    def asked(self, indices: Indices) -> tuple[Indices, Indices, Indices, Indices]:
        """Of the pieces `indices`, for each word that they answer for: the piece's place among them, the word's among the
        answers of its piece, the place of its first token, and the word among those of all rows."""
        counts = self.answers[indices]
        piece = np.repeat(np.arange(len(indices)), counts)
        within = np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)
        source = self.bounds[indices][piece] + within
        word = self.word_offsets[self.owner[indices]][piece] + self.words[source]
        return piece, within, self.firsts[source], word

    def by_word(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(words of all rows, …) from values of the pieces' answers, (pieces, most, …); 0 where there is none."""
        piece, within, _, word = self.asked(np.arange(len(self)))
        found = np.zeros((int(self.word_offsets[-1]), *values.shape[2:]), dtype=np.float32)
        found[word] = values[piece, within]
        return found
