"""Text in words: a list of tokens, which are the words, or a text, which is taken apart here.

The rule for texts knows no language: letters in a row are a word, digits in a row are one, and any other sign is one by
itself, as is each letter of a script that has no blanks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.data.cells import Place, Unusable
from tunesmith.data.cells.text import Text, unusable
from tunesmith.data.readers import TAGGED
from tunesmith.data.rejected import excerpt
from tunesmith.data.written import parts_in

UNPARTED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
)
"""Scripts without blanks, as ranges of a regular expression."""
JOINERS = "\u00ad\u200c\u200d\u2060"
"""Signs without a width that join what stands around them: words of Persian and Hindi hold some."""
TONES = "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"
"""Skin tones, and the letters that flags of regions are spelled with: they belong to the emoji before them."""
FLAG_LETTERS = "\U0001f1e6-\U0001f1ff"


class Words(Text):
    """Cells that hold a text in words."""

    most = 1
    optional = 0
    listed = True
    names: Sequence[str] = ("tokens", "words", *Text.names)
    preferred: Sequence[str] = ("tokens", "words", "text")
    pairs: Sequence[tuple[str, ...]] = ()
    readers: Mapping[str, str] = TAGGED

    def fields(self, columns: int) -> list[tuple[str, pa.DataType]]:
        return [
            ("input", pa.string()),  # tokens with a blank between
            ("words", pa.list_(pa.int64())),  # start and end, in characters of it, of one after the other
        ]

    def read(self, cells: Sequence[Any], row: str, place: Place) -> tuple[Any, ...] | Unusable:
        found = _read(cells[0], place.settings.max_characters)
        if isinstance(found, str):
            return Unusable(0, found, excerpt(cells[0]))
        return found if found[1] else Unusable(0, "text without a word", excerpt(cells[0]))


WORDS = Words()


def words_of(text: str) -> list[int]:
    """Start and end (exclusive, in characters) of each word of a text, one after the other."""
    return [end for word in _words().finditer(text) for end in word.span()]


def _read(cell: Any, most: int) -> tuple[str, list[int]] | str:
    """The text of a cell, of at most `most` characters, and `words_of` it; or why there is none."""
    tokens = _tokens(cell)
    if tokens is None:
        return unusable(cell, most) or (cell, words_of(cell))
    if tokens and all(isinstance(token, dict) for token in tokens):
        found = _laid_out(tokens, most)
    else:
        found = _wrong(tokens) or (" ".join(tokens), _places(tokens))
    return found if isinstance(found, str) else unusable(found[0], most) or found


def _tokens(cell: Any) -> list[Any] | None:
    """The parts of a list; None where the cell is none."""
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, list | tuple):
        return list(cell)
    found = parts_in(cell) if isinstance(cell, str) else None
    return found if isinstance(found, list) and all(isinstance(part, str) for part in found) else None


def _wrong(tokens: Sequence[Any]) -> str | None:
    """What is wrong with tokens; None where they can be words."""
    if any(isinstance(token, dict) for token in tokens):
        return "tokens of which some are mappings and others are not"
    if not all(isinstance(token, str) for token in tokens):
        return "token that is not text"
    return "empty token" if any(not token or token.isspace() for token in tokens) else None


def _laid_out(tokens: Sequence[Mapping[str, Any]], most: int) -> tuple[str, list[int]] | str:
    """Text and words of tokens that say where they stand, as Prodigy writes them; blanks are between, and may be tokens."""
    parts: list[str] = []
    words: list[int] = []
    reached = 0
    for token in tokens:
        text, start, end = (token.get(name) for name in ("text", "start", "end"))
        if not isinstance(text, str) or not isinstance(start, int) or not isinstance(end, int):
            return (
                "tokens that are mappings without a text, a start and an end (data.input may name the column of the text "
                "itself)"
            )
        if start < reached or end - start != len(text):
            return "tokens whose starts and ends do not go with their text"
        if end > most:
            return f"text of more than {most:,} characters"
        parts += [" " * (start - reached), text]
        words += [start, end] if text.strip() else []
        reached = end
    return "".join(parts), words


def _places(tokens: Sequence[str]) -> list[int]:
    """`words_of` for tokens with a blank between."""
    lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
    ends = np.cumsum(lengths + 1) - 1
    places: list[int] = np.stack([ends - lengths, ends], axis=1).ravel().tolist()
    return places


@cache
def _words() -> re.Pattern[str]:
    mark = f"[{_class_of('M')}{TONES}]"
    letter = rf"[^\W\d_{UNPARTED}]"
    sign = rf"(?:[^\w\s{_class_of('Cc', 'Cf')}]|_)"
    return re.compile(
        rf"\d(?:\d|{mark})*"
        rf"|[{UNPARTED}]{mark}*"
        rf"|{letter}+(?:(?:{mark}|[{JOINERS}])+{letter}+)*{mark}*"
        rf"|[{FLAG_LETTERS}]{{2}}"
        rf"|{sign}{mark}*(?:\u200d{sign}{mark}*)*"
    )


def _class_of(*categories: str) -> str:
    """The signs whose Unicode category starts with one of `categories`, as ranges of a regular expression."""
    points = [point for point in _planes() if unicodedata.category(chr(point)).startswith(categories)]
    starts = [point for point, before in zip(points, [-2, *points], strict=False) if point != before + 1]
    ends = [point for point, after in zip(points, [*points[1:], -2], strict=True) if point != after - 1]
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(starts, ends, strict=True))


def _planes() -> Iterable[int]:
    """The code points among which marks and signs of control are."""
    return (point for plane in (range(0x20000), range(0xE0000, 0xE0200)) for point in plane)
