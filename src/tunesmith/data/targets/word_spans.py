"""Spans of characters fitted to the words of their text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from tunesmith.data.targets.tag_cells import Span
from tunesmith.data.targets.tag_schemes import Entity


class Fitted(NamedTuple):
    """What became of the spans of a text."""

    entities: list[Entity]
    """In their order; no two share a word."""
    moved: int
    """How many of them start or end where the span did not."""
    set_aside: list[str]
    """Why the others were left out, one each."""


def fitted(spans: Sequence[Span], text: str, words: Sequence[int]) -> Fitted:
    """Spans as words in a row; one that cuts a word gets the whole of it.

    Of those that overlap, the one of more words stays, then the one that begins earlier, then the one that is listed first.

    Args:
        words: start and end of each word of `text`, one after the other.
    """
    starts, ends = words[::2], words[1::2]
    set_aside: list[str] = []
    placed: list[tuple[Entity, bool]] = []
    for start, end, name in spans:
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        if start < 0 or end > len(text):
            set_aside.append("outside the text")
        elif end <= start:
            set_aside.append("empty")
        elif last <= first:
            set_aside.append("only blanks")
        else:
            placed.append((Entity(first, last, name), (start, end) != (starts[first], ends[last - 1])))
    taken: dict[int, Entity] = {}  # by word
    kept: list[tuple[Entity, bool]] = []
    for entity, moved in sorted(placed, key=lambda one: (one[0].first - one[0].last, one[0].first)):
        others = {taken[word] for word in range(entity.first, entity.last) if word in taken}
        if others:
            set_aside.append("stands there twice" if others == {entity} else "overlaps another")
            continue
        taken |= dict.fromkeys(range(entity.first, entity.last), entity)
        kept.append((entity, moved))
    return Fitted(sorted(entity for entity, _ in kept), sum(moved for _, moved in kept), set_aside)
