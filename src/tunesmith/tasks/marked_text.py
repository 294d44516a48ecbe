"""A text with what was to be found in it and what was, in parts, as the report shows it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tunesmith.metrics.entities import Row

SHOWN = 60
"""Words of a text, from a little before the first mistake."""
BEFORE = 15
NEARBY = 200
"""Characters around an answer."""


def marked(text: str, words: Sequence[int], truth: Row, found: Row, labels: Sequence[str]) -> list[dict[str, str]]:
    """Parts of `text`, one after the other: `text`, `kind`, and what it is called by `truth` and by `found`.

    A part is "right", "missed" (nothing was found there), "added" (nothing was to be found), "wrong" (of another type, or of
    other ends), or "plain".

    Args:
        words: start and end of each, in characters.
        truth, found: first word, word after the last, and label of each.
    """
    true, told = _by_word(truth, len(words) // 2), _by_word(found, len(words) // 2)
    unlike = [place for place, pair in enumerate(zip(true, told, strict=True)) if pair[0] != pair[1]]
    start = max(0, (unlike[0] if unlike else 0) - BEFORE)
    end = min(len(true), start + SHOWN)
    parts: list[dict[str, str]] = []
    before = None
    for place in range(start, end):
        one, other = true[place], told[place]
        last = words[2 * place + 2] if place + 1 < len(true) else len(text)
        piece = text[words[2 * place] : last]
        if (one, other) == before and parts:
            parts[-1]["text"] += piece
        else:
            names = {key: labels[what[2]] if what else "" for key, what in (("truth", one), ("found", other))}
            parts.append({"text": piece, "kind": _kind(one, other)} | names)
        before = one, other
    if start and parts:
        parts.insert(0, {"text": "… ", "kind": "plain", "truth": "", "found": ""})
    if end < len(true):
        parts.append({"text": "…", "kind": "plain", "truth": "", "found": ""})
    return parts


def _by_word(objects: Row, words: int) -> list[tuple[int, int, int] | None]:
    held: list[tuple[int, int, int] | None] = [None] * words
    for one in objects:
        held[one[0] : one[1]] = [one] * (one[1] - one[0])
    return held


def _kind(one: tuple[int, int, int] | None, other: tuple[int, int, int] | None) -> str:
    if one == other:
        return "right" if one else "plain"
    return "missed" if other is None else "added" if one is None else "wrong"


def around(text: str, truth: tuple[int, int] | None, found: tuple[int, int] | None) -> list[dict[str, str]]:
    """Parts of `text` around what was to be found and what was: start and end of each in characters; None for none."""
    spans = [span for span in (truth, found) if span is not None] or [(0, 0)]
    start, end = max(0, min(one for one, _ in spans) - NEARBY), min(len(text), max(two for _, two in spans) + NEARBY)
    cuts = sorted({start, end, *(side for span in spans for side in span if start <= side <= end)})
    parts = [{"text": "… ", "kind": "plain", "truth": "", "found": ""}] if start else []
    for left, right in itertools.pairwise(cuts):
        true, told = (span is not None and span[0] <= left < span[1] for span in (truth, found))
        kind = "plain" if not true and not told else "right" if true and told else "missed" if true else "added"
        parts.append({"text": text[left:right], "kind": kind, "truth": "", "found": ""})
    if end < len(text):
        parts.append({"text": " …", "kind": "plain", "truth": "", "found": ""})
    return parts
