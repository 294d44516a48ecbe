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
        "references", "highlights", "label", "completions", "outputs", "responses", "answers", "tgt", "ref", "tldr",
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
        if self.lists is not None:
            return Settled(self.problem, (), {"lists": self.lists})
        cells = [cell for cell in raw.column.slice(0, SHOWN).to_pylist() if cell is not None]
        listed = sum(bool(_listed(cell)) for cell in cells)
        others = sum(bool(cell.strip()) and _listed(cell) is None for cell in cells)
        if not listed or listed < others:
            return Settled(self.problem, (), {"lists": False})
        which = (
            "Every target is a list of texts: they are"
            if not others
            else f"Of the first {len(cells):,} targets {listed:,} are lists of texts: what stands in one is"
        )
        guess = (
            f"{which} several ways to write it, and {self.learned} (task.several=false takes the list for the text)."
        )
        return Settled(self.problem, (), {"lists": True}, (guess,))

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """`written`: by split, characters of what is to be written, and how many texts a row has at most; warnings of lists
        that are taken for the text, which nobody asked for."""
        found, warnings = {}, []
        for split, rows in tables.items():
            texts = pc.struct_field(rows.column("target"), "texts")
            flat = pc.list_flatten(texts)
            lengths = pc.utf8_length(flat).to_numpy()
            low, middle, high = np.quantile(lengths, [0, 0.5, 1]).tolist() if len(lengths) else (0.0, 0.0, 0.0)
            most = int(pc.max(pc.list_value_length(texts)).as_py() or 0)
            found[split] = {"characters": {"min": low, "median": middle, "max": high}, "texts_a_row": most}
            bracketed = flat.filter(pc.starts_with(pc.utf8_ltrim_whitespace(flat), "["))
            taken = sum(bool(_listed(text)) for text in bracketed.to_pylist())
            if taken and self.lists is None:
                stand = "targets are lists" if taken > 1 else "target is a list"
                warnings.append(
                    f"{taken:,} {stand} of texts in {split}, but most of train are not: each, brackets and all, is one text "
                    "(task.several=true takes a list for several ways to write it)."
                )
        return {"written": found}, warnings

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
    """The texts of a list, blank ones too; None where the cell is none, or holds anything else."""
    found = parts_in(cell)
    if not isinstance(found, list) or not all(one is None or isinstance(one, str) for one in found):
        return None
    return [one for one in found if one is not None]


def _texts(cell: str | None, lists: bool) -> list[Any]:
    """What stands in a cell; of a list what is neither blank nor nothing."""
    found = parts_in(cell) if lists and cell is not None else None
    if not isinstance(found, list):
        return [cell]
    return [one for one in found if one is not None and not (isinstance(one, str) and not one.strip())]
