"""Questions, each with the passage that is to answer it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tunesmith.data.cells import Indices
from tunesmith.data.cells.text import Text

PASSAGES = 20
"""Of so many, splits get some each; of fewer, questions on one passage may lie in several splits."""


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

    def clusters(self, tables: list[pa.Table], threshold: float) -> tuple[Indices, Indices]:
        """Rows are alike where both questions and passages are: of a long passage, the question is but a small part."""
        both = [
            super(Questions, self).clusters(
                [rows.select([name]).rename_columns(["input"]) for rows in tables], threshold
            )
            for name in ("input", "pair")
        ]
        return tuple(np.unique(parts, axis=1, return_inverse=True)[1] for parts in zip(*both, strict=True))  # type: ignore[return-value]

    def shared(self, rows: pa.Table) -> Indices | None:
        """The passage, where there are enough of them."""
        passages = np.unique(rows.column("pair").to_numpy(), return_inverse=True)[1]
        return passages if passages.max(initial=0) + 1 >= PASSAGES else None


QUESTIONS = Questions()
