"""Questions, each with the passage that is to answer it."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.cells.text import Text


class Questions(Text):
    """Two columns: the question, and the passage."""

    noun = "question"
    least = 2
    names: Sequence[str] = ("question", "query", "context", "passage", "document", "text")
    preferred: Sequence[str] = ()
    pairs: Sequence[tuple[str, ...]] = (
        ("question", "context"), ("question", "passage"), ("question", "paragraph"), ("question", "document"),
        ("question", "text"), ("query", "context"), ("query", "passage"), ("query", "document"), ("query", "text"),
    )  # fmt: skip


QUESTIONS = Questions()
