"""Texts that are compared: one column with labels beside it, two columns of pairs, or three of triplets."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.cells.text import TEXT, Text


class ComparedTexts(Text):
    """Up to three columns: a text, one that belongs to it, and one that does not."""

    most = 3
    pairs: Sequence[tuple[str, ...]] = (
        ("anchor", "positive", "negative"), ("query", "positive", "negative"), ("question", "positive", "negative"),
        *TEXT.pairs, ("sentence_a", "sentence_b"), ("text_1", "text_2"), ("anchor", "positive"), ("query", "positive"),
        ("question", "answer"), ("query", "answer"), ("query", "passage"), ("question", "passage"),
        ("sentence", "paraphrase"), ("text", "paraphrase"), ("title", "body"),
    )  # fmt: skip


COMPARED = ComparedTexts()
