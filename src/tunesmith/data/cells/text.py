"""Text: one column, two for pairs, or three for triplets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data import duplicates
from tunesmith.data.cells import Indices, Place, Unusable
from tunesmith.data.rejected import excerpt

TEXTS = ("input", "pair", "negative")
"""The canonical columns of one text, of two, and of three."""


class Text:
    """Cells that hold text."""

    noun = "text"
    least = 1
    most = 2
    names: Sequence[str] = (
        "text", "sentence", "message", "review", "content", "question", "query", "utterance", "comment", "tweet", "body",
        "document", "title", "input",
    )  # fmt: skip
    preferred: Sequence[str] = ("text",)
    pairs: Sequence[tuple[str, ...]] = (
        ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("text1", "text2"), ("text_a", "text_b"),
        ("premise", "hypothesis"), ("question1", "question2"), ("query", "document"), ("question", "sentence"),
    )  # fmt: skip
    optional = 0
    listed = False
    workers = 1
    readers: Mapping[str, str] = {}
    together = 100_000

    def fields(self, columns: int) -> list[tuple[str, pa.DataType]]:
        return [(name, pa.string()) for name in TEXTS[:columns]]

    def read(self, cells: Sequence[Any], row: str, place: Place) -> tuple[Any, ...] | Unusable:
        for column, text in enumerate(cells):
            if reason := unusable(text, place.settings.max_characters):
                return Unusable(column, reason, excerpt(text))
        return tuple(cells)

    def clusters(self, tables: list[pa.Table], threshold: float) -> tuple[Indices, Indices]:
        return duplicates.clusters(tables, threshold)

    def shared(self, rows: pa.Table) -> Indices | None:
        return None

    def described(self, tables: dict[str, pa.Table]) -> tuple[dict[str, Any], list[str]]:
        return {"characters": {name: _lengths(rows) for name, rows in tables.items()}}, []

    def expanded(self, inputs: Sequence[str]) -> list[str]:
        return list(inputs)

    def named(self, row: str, shown: str) -> str:
        return row


class OneText(Text):
    """Cells that hold text, one column of them."""

    most = 1
    pairs: Sequence[tuple[str, ...]] = ()


TEXT, ONE_TEXT = Text(), OneText()


def unusable(text: Any, most: int) -> str | None:
    """Why `text` cannot be an input, of at most `most` characters; None where it can."""
    if text is None:
        return "no text"
    if not isinstance(text, str):
        return "not text"
    if not text or text.isspace():
        return "empty text"
    if "\x00" in text:
        return "NUL character"
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        return "broken encoding"
    if len(text) > most:
        return f"text of more than {most:,} characters"
    return None


def _lengths(rows: pa.Table) -> dict[str, float]:
    lengths = sum(pc.utf8_length(rows.column(name)).to_numpy() for name in TEXTS if name in rows.column_names)
    names: Sequence[str] = ("min", "median", "p95", "max")
    return {name: float(value) for name, value in zip(names, np.quantile(lengths, [0, 0.5, 0.95, 1]), strict=True)}
