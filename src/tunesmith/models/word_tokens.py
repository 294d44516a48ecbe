"""Words to tokens: a text in windows, and for each of its words the window that answers for it and the token that does.

A word is answered for at its first token, as Devlin et al. 2019, section 5.3, have it, in the window that shows the most of
what stands on both sides of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data.tagged import Indices, Tagged
from tunesmith.data.tokens import Tokens
from tunesmith.models.tokenize import Reading, tokenize

NONE = -1
FAR = np.iinfo(np.int64).max


@dataclass(frozen=True)
class _Window:
    """What one piece of a text says of its words."""

    row: int
    first: Indices
    """(words,) the place of each word's first token in it, or NONE."""
    start: int
    """Place of its first token that is text, and"""
    end: int
    """the place after the last."""


def tagged(tokenizer: Any, rows: pa.Table, tags: Indices | None, limit: int) -> Tagged:
    """The column `input` of `rows` in windows of at most `limit` tokens, with who answers for each of its `words`.

    Args:
        tokenizer: a fast transformers tokenizer.
        tags: (words of all rows,) class indices, handed on.

    Raises:
        ModelError: the tokenizer has no fast core, or the limit leaves no room for text.
    """
    spans = [np.array(words, dtype=np.int64).reshape(-1, 2) for words in rows.column("words").to_pylist()]
    windows: list[_Window] = []
    tokens = tokenize(
        tokenizer,
        rows,
        None,
        Reading(limit, windows=True),
        lambda row, piece: windows.append(_window(row, piece, spans[row])),
    )
    by_piece: list[Indices] = [np.zeros(0, dtype=np.int64) for _ in windows]
    for start, end in _runs(tokens.owner):
        answering = _answering(windows[start:end])
        for piece in range(start, end):
            by_piece[piece] = np.flatnonzero(answering == piece - start)
    counts = [len(words) for words in by_piece]
    chosen = [window.first[words] for window, words in zip(windows, by_piece, strict=True)]
    return _tagged(tokens, _joined(chosen), _joined(by_piece), _ends(counts), _ends([len(one) for one in spans]), tags)


def every_token(tokenizer: Any, rows: pa.Table, limit: int) -> Tagged:
    """The texts of `rows`, cut at `limit` tokens, each of which is asked for by itself: what a public loader gives."""
    tokens = tokenize(tokenizer, rows, None, Reading(limit))
    places = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], tokens.lengths)
    return _tagged(tokens, places, places, tokens.offsets, tokens.offsets, None)


def _tagged(tokens: Tokens, *asked: Any) -> Tagged:
    return Tagged(tokens.ids, None, tokens.offsets, tokens.owner, None, tokens.lost, *asked)


def _window(row: int, piece: Any, spans: Indices) -> _Window:
    """Which tokens of a piece begin which of the words that lie at `spans`, (words, 2), of its text."""
    ends = np.array(piece.offsets, dtype=np.int64).reshape(-1, 2)
    usable = np.flatnonzero((np.array(piece.special_tokens_mask) == 0) & (ends[:, 1] > ends[:, 0]))
    first = np.full(len(spans), NONE, dtype=np.int64)
    if len(usable):
        # A token goes with the first word that ends after it begins; some tokenizers count the blank before it in.
        low = np.searchsorted(spans[:, 1], ends[usable, 0], side="right")
        high = np.searchsorted(spans[:, 0], ends[usable, 1], side="left")
        backwards = np.arange(len(usable))[::-1]
        for over in range(int((high - low).max(initial=0)) - 1, -1, -1):  # one token may hold several words
            held = backwards[(low + over < high)[backwards]]
            first[low[held] + over] = usable[held]
    start, end = (int(usable[0]), int(usable[-1]) + 1) if len(usable) else (0, 0)
    return _Window(row, first, start, end)


def _answering(windows: list[_Window]) -> Indices:
    """(words,) which of the windows of one text answers for each word; NONE for those that have no token."""
    last = len(windows) - 1
    room = np.full((len(windows), len(windows[0].first)), NONE, dtype=np.int64)
    for number, window in enumerate(windows):
        before = FAR if number == 0 else window.first - window.start
        after = FAR if number == last else window.end - 1 - window.first
        room[number] = np.where(window.first == NONE, NONE, np.minimum(before, after))
    return np.where(room.max(axis=0, initial=NONE) == NONE, NONE, room.argmax(axis=0) if room.size else NONE)


def _runs(owner: Indices) -> list[tuple[int, int]]:
    """Where the pieces of each row lie."""
    ends = [*(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(owner)] if len(owner) else []
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _joined(parts: list[Indices]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _ends(counts: Sequence[int]) -> Indices:
    """Where runs of so many lie, one after the other."""
    return np.concatenate([[0], np.cumsum(np.array(counts, dtype=np.int64))]).astype(np.int64)
