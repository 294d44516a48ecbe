"""Text for masked language models: in windows, with the words of each that can be hidden, and some of them hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data.masked import NO_WORD, Hiding, Masked, hide
from tunesmith.data.tokens import Tokens
from tunesmith.models.tokenize import Reading, tokenize

BLANK = "▁"
"""What SentencePiece writes for the blank before a word."""
LONGEST_WORD = 10
"""Tokens; what is longer, an address or a sentence of a script without blanks, counts as several words."""
Words = npt.NDArray[np.int32]
Indices = npt.NDArray[np.int64]


def hidden_words(tokenizer: Any, rows: pa.Table, limit: int, seed: int) -> Masked:
    """The texts in windows of at most `limit` tokens, with whole words hidden in each; see `data/masked.py`.

    Words are those that the tokenizer parts a text into before it makes tokens (`word_ids`); where it parts none, as some
    SentencePiece tokenizers do, a word begins at each token with a blank before it. A word is hidden in the first window that
    shows all of it, and in others never. Where a window has masks of its own, these are what is asked, and no word is hidden.
    A window without either is left out.
    """
    found: list[Words] = []
    read = _numbers if _parts_words(tokenizer) else _Blanks(tokenizer)

    def hear(row: int, piece: Any) -> None:
        # A text that gives no token has one that stands for it, which is no word.
        found.append(np.array(read(row, piece) or [NO_WORD], dtype=np.int32))

    tokens = tokenize(tokenizer, rows, None, Reading(limit, windows=True), hear)
    words = np.concatenate(found).astype(np.int64) if found else np.zeros(0, dtype=np.int64)
    words[np.isin(tokens.ids, tokenizer.all_special_ids)] = NO_WORD
    own = tokens.ids == tokenizer.mask_token_id
    piece = np.repeat(np.arange(len(tokens)), tokens.lengths)
    numbered = _numbered(words, tokens)
    numbered[np.isin(piece, piece[own])] = NO_WORD
    tokens, numbered = _kept(tokens, numbered, own)
    usable = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids).astype(np.int32)
    how = Hiding(tokenizer.mask_token_id, usable, seed)
    ids, wanted = hide(tokens.ids, numbered, tokens.offsets, how, 0)
    scale = np.ones(len(tokens), dtype=np.float32)
    return Masked(ids, None, tokens.offsets, tokens.owner, None, tokens.lost, wanted, scale, numbered, how)


def _parts_words(tokenizer: Any) -> bool:
    """Whether the tokenizer parts a text into words before it makes tokens."""
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    return len(set(core.encode("a a", add_special_tokens=False).word_ids)) > 1


def _numbers(_: int, piece: Any) -> list[int]:
    """The number of each token's word in its text, as the tokenizer parts it."""
    return [NO_WORD if word is None else word for word in piece.word_ids]


class _Blanks:
    """The same where the tokenizer parts no words: they begin at tokens with a blank before them, and are called by the place
    of their first character, so that each has one number in all windows of its text."""

    def __init__(self, tokenizer: Any) -> None:
        self._begins = {number for token, number in tokenizer.get_vocab().items() if token.startswith(BLANK)}
        self._row = -1
        self._known: dict[int, int] = {}
        """The word of each place in the text at which a token begins."""
        self._last = 0

    def __call__(self, row: int, piece: Any) -> list[int]:
        if row != self._row:
            self._row, self._known, self._last = row, {}, 0
        found = []
        for token, part, (start, _) in zip(piece.ids, piece.word_ids, piece.offsets, strict=True):
            if part is None:
                found.append(NO_WORD)
                continue
            if start not in self._known:
                self._known[start] = start if token in self._begins else self._last
            self._last = self._known[start]
            found.append(self._last)
        return found


def _numbered(words: Indices, tokens: Tokens) -> Words:
    """(tokens,) the words that each piece may hide, numbered from 0 there, long ones in parts.

    Args:
        words: (tokens,) numbers of words in their text.
    """
    piece = np.repeat(np.arange(len(tokens)), tokens.lengths)
    found = np.full(len(words), NO_WORD, dtype=np.int32)
    place = np.flatnonzero(words != NO_WORD)
    if not len(place):
        return found
    piece, word = piece[place], words[place]
    run, size = _runs(piece, word)  # a run is what one piece shows of one word
    begins = np.cumsum(size) - size
    of_text = tokens.owner[piece[begins]] * (int(word.max()) + 1) + word[begins]
    _, same = np.unique(of_text, return_inverse=True)
    longest = np.zeros(int(same.max()) + 1, dtype=np.int64)
    np.maximum.at(longest, same, size)
    whole = np.flatnonzero(size == longest[same])
    taken = np.zeros(len(size), dtype=bool)
    taken[whole[np.unique(same[whole], return_index=True)[1]]] = True
    part = (np.arange(len(place)) - begins[run]) // LONGEST_WORD
    kept = taken[run]
    number, _ = _runs(run[kept], part[kept])
    first_of_piece = np.r_[True, np.diff(piece[kept]) != 0]
    found[place[kept]] = number - np.maximum.accumulate(np.where(first_of_piece, number, 0))
    return found


def _runs(*keys: Indices) -> tuple[Indices, Indices]:
    """Which run of equal neighbours each entry lies in, and how long each run is."""
    new = np.zeros(len(keys[0]), dtype=bool)
    new[0] = True
    for key in keys:
        new[1:] |= np.diff(key) != 0
    run = np.cumsum(new) - 1
    return run, np.bincount(run)


def _kept(tokens: Tokens, words: Words, own: npt.NDArray[np.bool_]) -> tuple[Tokens, Words]:
    """The pieces in which there is something to tell."""
    piece = np.repeat(np.arange(len(tokens)), tokens.lengths)
    kept = np.bincount(piece, weights=(words != NO_WORD) | own, minlength=len(tokens)) > 0
    inside = kept[piece]
    offsets = np.concatenate([[0], np.cumsum(tokens.lengths[kept])]).astype(np.int64)
    return Tokens(tokens.ids[inside], None, offsets, tokens.owner[kept], None, tokens.lost), words[inside]
