"""Prompts: what a language model is to go on from, in one column, or in two of which the second may be empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.data.cells import Place, Unusable
from tunesmith.data.cells.text import Text, unusable
from tunesmith.data.rejected import excerpt


class Prompts(Text):
    """An instruction and, often, what it is about."""

    noun = "prompt"
    optional = 1
    names: Sequence[str] = (
        "prompt", "instruction", "question", "query", "source", "input", "text", "document", "article",
    )  # fmt: skip
    preferred: Sequence[str] = ("prompt", "instruction", "source", "question", "input", "text", "document", "article")
    pairs: Sequence[tuple[str, ...]] = (
        ("instruction", "input"), ("instruction", "context"), ("prompt", "input"), ("prompt", "context"),
        ("question", "context"),
    )  # fmt: skip

    def read(self, cells: Sequence[Any], row: str, place: Place) -> tuple[Any, ...] | Unusable:
        first, *more = cells
        if reason := unusable(first, place.settings.max_characters):
            return Unusable(0, reason, excerpt(first))
        second = ["" if text is None or (isinstance(text, str) and not text.strip()) else text for text in more]
        for text in second:
            if text and (reason := unusable(text, place.settings.max_characters)):
                return Unusable(1, reason, excerpt(text))
        return first, *second


PROMPTS = Prompts()
