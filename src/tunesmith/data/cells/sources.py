"""Sources: what another text is to be made of, such as an article, a sentence of another language, or facts."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.cells.text import Text


class Sources(Text):
    """One column of text."""

    noun = "source"
    most = 1
    names: Sequence[str] = (
        "source", "src", "document", "article", "text", "input", "inputs", "dialogue", "passage", "meaning_representation",
        "mr", "body", "content", "abstract", "prompt", "question",
    )  # fmt: skip
    preferred: Sequence[str] = ("source", "src", "document", "article", "text", "input")
    pairs: Sequence[tuple[str, ...]] = ()


SOURCES = Sources()
