"""Texts: what is to be written, in one column; where cells are lists, several texts of which each would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.cells import Place
from tunesmith.data.cells.text import unusable
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.data.written import parts_in

KIND = pa.struct(
    [
        ("texts", pa.list_(pa.string())),  # one or more, of which the first is learned
        ("classes", pa.list_(pa.int64())),  # there are none
    ]
)
SHOWN = 1_000
"""Cells that are looked at to see whether they are lists."""


class Texts:
    """Targets that are texts."""

    names: Sequence[str] = (
        "completion", "output", "response", "answer", "target", "targets", "summary", "summaries", "translation", "reference",
        "references", "highlights", "label", "completions", "outputs", "responses", "answers",
    )  # fmt: skip
    preferred: Sequence[str] = (
        "completion", "output", "response", "target", "targets", "references", "summary", "answer",
    )  # fmt: skip
    apart = False
    several = False

    def __init__(self, problem: str, lists: bool | None = None, learned: str = "the first is learned") -> None:
        """`lists`: whether a cell is a list of texts; None to tell by the training cells. `learned`: which, in words."""
        self.problem, self.lists, self.learned = problem, lists, learned

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        cells = [cell for cell in raw.column.slice(0, SHOWN).to_pylist() if cell is not None]
        lists = self.lists
        guesses: tuple[str, ...] = ()
        if lists is None:
            lists = bool(cells) and all(_listed(cell) is not None for cell in cells)
            if lists:
                guesses = (
                    f"Every target is a list of texts: they are several ways to write it, and {self.learned} "
                    "(task.several=false takes the list for the text).",
                )
        return Settled(self.problem, (), {"lists": lists}, guesses)

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """`written`: by split, characters of what is to be written, and how many texts a row has at most."""
        found = {}
        for split, rows in tables.items():
            texts = pc.struct_field(rows.column("target"), "texts")
            lengths = pc.utf8_length(pc.list_flatten(texts)).to_numpy()
            low, middle, high = np.quantile(lengths, [0, 0.5, 1]).tolist() if len(lengths) else (0.0, 0.0, 0.0)
            most = int(pc.max(pc.list_value_length(texts)).as_py() or 0)
            found[split] = {"characters": {"min": low, "median": middle, "max": high}, "texts_a_row": most}
        return {"written": found}, []

    def reading(self, place: Place, settled: Settled) -> Reading:
        lists = bool(settled.coding.get("lists", False))

        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            for cell in rows.column("raw").to_pylist():
                texts = _texts(cell, lists)
                wrong = next((why for text in texts if (why := unusable(text, place.settings.max_characters))), None)
                if not texts or wrong:
                    yield Reason(f"{wrong or 'no text'} to be written")
                else:
                    yield {"texts": texts, "classes": []}

        return Reading(KIND, values)


def _listed(cell: str) -> list[str] | None:
    """The texts of a list; None where the cell is none."""
    found = parts_in(cell)
    return found if isinstance(found, list) and found and all(isinstance(one, str) for one in found) else None


def _texts(cell: str | None, lists: bool) -> list[Any]:
    """What stands in a cell; of a list those that are not blank."""
    if not lists or cell is None:
        return [cell]
    found = _listed(cell)
    return [cell] if found is None else [text for text in found if text.strip()]
