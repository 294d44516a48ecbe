"""Words to tokens: a text in windows, and for each of its words the window that answers for it and the token that does.

A word is answered for at its first token, as Devlin et al. 2019, section 5.3, have it, in the window that shows the most of
what stands on both sides of it. Where one token holds several words, the first of them answers for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data.tagged import Indices, Tagged
from tunesmith.data.tokens import Tokens
from tunesmith.models.tokenize import Reading, tokenize

NONE = -1
FAR = np.iinfo(np.int64).max


class _Window(NamedTuple):
    """What one piece of a text says of its words."""

    words: Indices
    """Those that have a token in it, and"""
    firsts: Indices
    """the place of the first token of each."""
    start: int
    """Place of its first token that is text, and"""
    end: int
    """the place after the last."""


class _Answers:
    """Gathers who answers for the words of each row, as pieces are heard, one after the other."""

    def __init__(self, spans: Sequence[Indices]) -> None:
        """`spans`: (words, 2) of each row, where its words lie in its text."""
        self.spans = spans
        self.row, self.windows = 0, list[_Window]()
        self.words: list[Indices] = []
        self.firsts: list[Indices] = []
        self.follows = [np.zeros(len(one), dtype=bool) for one in spans]

    def hear(self, row: int, piece: Any) -> None:
        if row != self.row:
            self.settle()
            self.row = row
        self.windows.append(_window(piece, self.spans[row]))

    def settle(self) -> None:
        """All windows of a row are heard."""
        words = len(self.spans[self.row])
        best, place, window_of = (np.full(words, NONE, dtype=np.int64) for _ in range(3))
        last = len(self.windows) - 1
        for number, window in enumerate(self.windows):
            before = np.full(len(window.words), FAR) if number == 0 else window.firsts - window.start
            after = np.full(len(window.words), FAR) if number == last else window.end - 1 - window.firsts
            room = np.minimum(before, after)
            better = room > best[window.words]
            chosen = window.words[better]
            best[chosen], place[chosen], window_of[chosen] = room[better], window.firsts[better], number
        follows = self.follows[self.row]
        follows[1:] = (window_of[1:] != NONE) & (window_of[1:] == window_of[:-1]) & (place[1:] == place[:-1])
        for number in range(len(self.windows)):
            own = np.flatnonzero((window_of == number) & ~follows)
            self.words.append(own)
            self.firsts.append(place[own])
        self.windows = []


def tagged(tokenizer: Any, rows: pa.Table, tags: Indices | None, limit: int) -> Tagged:
    """The column `input` of `rows` in windows of at most `limit` tokens, with who answers for each of its `words`.

    Args:
        tokenizer: a fast transformers tokenizer.
        tags: (words of all rows,) class indices, handed on.

    Raises:
        ModelError: the tokenizer has no fast core, or the limit leaves no room for text.
    """
    spans = [np.array(words, dtype=np.int64).reshape(-1, 2) for words in rows.column("words").to_pylist()]
    answers = _Answers(spans)
    tokens = tokenize(tokenizer, rows, None, Reading(limit, windows=True), answers.hear)
    if spans:
        answers.settle()
    counts = [len(words) for words in answers.words]
    ends = _ends([len(one) for one in spans])
    follows = np.concatenate(answers.follows) if spans else np.zeros(0, dtype=bool)
    asked = _joined(answers.firsts), _joined(answers.words), _ends(counts), ends, follows
    return _tagged(tokens, *asked, tags, tags)


def every_token(tokenizer: Any, rows: pa.Table, limit: int) -> Tagged:
    """The texts of `rows`, cut at `limit` tokens, each of which is asked for by itself: what a public loader gives."""
    tokens = tokenize(tokenizer, rows, None, Reading(limit))
    places = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], tokens.lengths)
    none = np.zeros(len(places), dtype=bool)
    return _tagged(tokens, places, places, tokens.offsets, tokens.offsets, none, None, None, True)


def _tagged(tokens: Tokens, *asked: Any) -> Tagged:
    return Tagged(tokens.ids, None, tokens.offsets, tokens.owner, None, tokens.lost, *asked)


def _window(piece: Any, spans: Indices) -> _Window:
    """Which tokens of a piece begin which of the words that lie at `spans`, (words, 2), of its text."""
    ends = np.array(piece.offsets, dtype=np.int64).reshape(-1, 2)
    usable = np.flatnonzero((np.array(piece.special_tokens_mask) == 0) & (ends[:, 1] > ends[:, 0]))
    if not len(usable):
        none = np.zeros(0, dtype=np.int64)
        return _Window(none, none, 0, 0)
    # A token goes with the first word that ends after it begins; some tokenizers count the blank before it in.
    low = np.searchsorted(spans[:, 1], ends[usable, 0], side="right")
    high = np.searchsorted(spans[:, 0], ends[usable, 1], side="left")
    start, end = int(low.min()), int(high.max(initial=0))
    first = np.full(max(0, end - start), NONE, dtype=np.int64)
    backwards = np.arange(len(usable))[::-1]
    for over in range(int((high - low).max(initial=0)) - 1, -1, -1):  # one token may hold several words
        held = backwards[(low + over < high)[backwards]]
        first[low[held] + over - start] = usable[held]
    shown = np.flatnonzero(first != NONE)
    return _Window(start + shown, first[shown], int(usable[0]), int(usable[-1]) + 1)


def _joined(parts: Sequence[Indices]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _ends(counts: Sequence[int]) -> Indices:
    """Where runs of so many lie, one after the other."""
    return np.concatenate([[0], np.cumsum(np.array(counts, dtype=np.int64))]).astype(np.int64)
