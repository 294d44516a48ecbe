"""Tokenised text of which some words are hidden, anew in each view; the words are what a masked language model tells.

Of the words of each piece the share `SHARE` is chosen, and each is hidden whole or not at all: in 80 % of cases by the mask,
in 10 % by random tokens, and in 10 % it stays as it is (Devlin et al. 2019, section 3.1, and whole words as in its later
code).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tunesmith import seeds
from tunesmith.data.asked import NOTHING, Asked

SHARE = 0.15
MASKED, RANDOM = 0.8, 0.1
"""Of the chosen words, the shares that the mask and random tokens stand for."""
NO_WORD = -1
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hiding:
    """How words are hidden."""

    mask: int
    """The token that stands for hidden ones."""
    vocabulary: npt.NDArray[np.int32]
    """Tokens that random ones are drawn from."""
    seed: int


@dataclass(frozen=True)
class Masked(Asked):
    """Pieces of text with some words hidden: `ids` are what the network is given, `wanted` the hidden tokens."""

    words: npt.NDArray[np.int32]
    """(tokens,) which word of its piece each token belongs to, ascending; `NO_WORD` for tokens that are never asked for."""
    how: Hiding

    @property
    def whole(self) -> npt.NDArray[np.int32]:
        """(tokens,) the text as it is."""
        return np.where(self.wanted == NOTHING, self.ids, self.wanted)

    @property
    def left_out(self) -> int:
        """Rows of which no word can be asked for."""
        return int((self.by_row == 0).sum())

    def count(self, indices: Indices) -> float:
        """Hidden tokens; one at least, so that a step of rows that have none is a step of no length."""
        return max(1.0, super().count(indices))

    def own_masks(self) -> npt.NDArray[np.bool_]:
        """(tokens,) masks that stand in the text itself, so that nobody knows what they hide."""
        return np.asarray((self.ids == self.how.mask) & (self.wanted == NOTHING))

    def asking_all(self) -> Masked:
        """The same, asked for what its own masks hide too, of which the token is not known."""
        return replace(self, wanted=np.where(self.own_masks(), self.how.mask, self.wanted))

    def drawn(self, indices: Indices) -> tuple[Masked, Indices]:
        """Pieces with their hidden words, and which of them the examples `indices` are."""
        return self, indices

    def hidden(self, view: int, seed: int) -> Masked:
        """The same text with the words of another view hidden."""
        ids, wanted = hide(self.whole, self.words, self.offsets, replace(self.how, seed=seed), view)
        return replace(self, ids=ids, wanted=wanted)


@dataclass(frozen=True)
class Views:
    """The same text in several views, each with other words hidden: example v · pieces + i is view v of piece i."""

    first: Masked
    views: int
    seed: int
    _newest: dict[int, Masked] = field(default_factory=dict, compare=False)
    """The view that was asked for last, so that it is made once an epoch."""

    @property
    def rows(self) -> int:
        return self.first.rows

    @property
    def targets(self) -> None:
        return None

    @cached_property
    def owner(self) -> Indices:
        """(examples,) the row of each; ascending within each view."""
        return np.tile(self.first.owner, self.views)

    @cached_property
    def lengths(self) -> Indices:
        """(examples,) tokens of each."""
        return np.tile(self.first.lengths, self.views)

    @property
    def read_lengths(self) -> Indices:
        """(examples,) the same: the first blocks see all of it."""
        return self.lengths

    @cached_property
    def weights(self) -> npt.NDArray[np.float32]:
        """(examples,) the share of its row that each is in its view."""
        return np.tile(self.first.weights, self.views)

    @cached_property
    def key(self) -> str:
        text = f"{self.first.key}/{self.views}/{self.seed}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return self.views * len(self.first)

    def drawn(self, indices: Indices) -> tuple[Masked, Indices]:
        """Pieces with the words of one view hidden, and which of them the examples `indices`, all of that view, are."""
        view, piece = np.divmod(indices, len(self.first))
        one = int(view[0])
        assert (view == one).all()  # an epoch passes one view
        if one not in self._newest:
            self._newest.clear()
            self._newest[one] = self.first if one == 0 else self.first.hidden(one, self.seed)
        return self._newest[one], piece

    def count(self, indices: Indices) -> float:
        found, pieces = self.drawn(indices)
        return found.count(pieces)


def hide(
    ids: npt.NDArray[np.int32], words: npt.NDArray[np.int32], offsets: Indices, how: Hiding, view: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """What the network is given, and what it is asked for, each (tokens,), in `view`; drawn for each piece by itself.

    Of a piece with words one at least is hidden; beyond that as many as their share is, rounded up or down by chance.

    Args:
        ids: (tokens,) the text.
        words: (tokens,) as in `Masked`.
        offsets: (pieces + 1,) where pieces begin.
    """
    lengths = np.diff(offsets)
    counts = np.zeros(len(lengths), dtype=np.int64)  # words of each piece
    filled = np.flatnonzero(lengths)
    counts[filled] = np.maximum.reduceat(words, offsets[:-1][filled]) + 1 if len(filled) else 0
    # By piece: one number for rounding, two for each word, one for each token.
    numbers = [
        seeds.generator(how.seed, "hidden words", view, piece).random(1 + 2 * int(count) + int(length))
        for piece, (count, length) in enumerate(zip(counts, lengths, strict=True))
    ]
    drawn = np.concatenate(numbers) if numbers else np.zeros(0)
    starts = np.cumsum(1 + 2 * counts + lengths) - (1 + 2 * counts + lengths)
    wanted_words = np.minimum(counts, np.maximum(1, np.floor(SHARE * counts + drawn[starts]).astype(np.int64)))
    piece_of_word = np.repeat(np.arange(len(counts)), counts)
    first_word = np.cumsum(counts) - counts
    within = np.arange(len(piece_of_word)) - first_word[piece_of_word]
    order = np.lexsort((drawn[starts[piece_of_word] + 1 + within], piece_of_word))
    chosen = np.zeros(len(piece_of_word), dtype=bool)
    chosen[order] = within < wanted_words[piece_of_word]  # the first ones of each piece, in an order of chance
    fate = drawn[starts[piece_of_word] + 1 + counts[piece_of_word] + within]
    piece_of_token = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(ids)) - offsets[:-1][piece_of_token]
    asked = words != NO_WORD
    word = first_word[piece_of_token[asked]] + words[asked]
    asked[asked] = chosen[word]
    word = word[chosen[word]]
    given, wanted = ids.copy(), np.full(len(ids), NOTHING, dtype=np.int32)
    wanted[asked] = ids[asked]
    own = piece_of_token[asked]
    random = drawn[starts[own] + 1 + 2 * counts[own] + place[asked]]
    replaced = how.vocabulary[(random * len(how.vocabulary)).astype(np.int64)]
    kept = np.where(fate[word] < MASKED + RANDOM, replaced, ids[asked])
    given[asked] = np.where(fate[word] < MASKED, how.mask, kept)
    return given, wanted
