"""Names of rows: a column where it names each row once, otherwise split and line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.columns import Columns
from tunesmith.errors import DataError


def with_unique(
    tables: dict[str, pa.Table], columns: Columns, sources: Mapping[str, str], *, chosen: bool
) -> tuple[dict[str, pa.Table], Columns]:
    """The tables as they are when ids are unique; rows named by line when a column that was only guessed repeats.

    Args:
        sources: what messages call the source of each split.
        chosen: whether the user named the column of ids.

    Raises:
        DataError: the column that data.id names holds an id twice.
    """
    for split, table in tables.items():
        found = _first_repeat(table)
        if found is None:
            continue
        where = f"{found[0]!r} stands in line {found[1]} and in line {found[2]}"
        if chosen:
            raise DataError(
                f"{sources[split]}: data.id names the column {columns.id!r}, but {where}.",
                "Ids must be unique; mend them, or leave data.id away to have rows named by line.",
            )
        guess = f"{sources[split]}: the column {columns.id!r} does not name rows, for {where}; lines name them."
        ignored = (*columns.ignored, *([columns.id] if columns.id else []))
        renamed = {name: _named_by_line(one, name) for name, one in tables.items()}
        return renamed, replace(columns, id=None, ignored=ignored, guesses=(*columns.guesses, guess))
    return tables, columns


def _first_repeat(table: pa.Table) -> tuple[str, int, int] | None:
    """An id that stands there twice, and both its lines."""
    ids = table.column("id")
    if pc.count_distinct(ids).as_py() == table.num_rows:
        return None
    seen: dict[str, int] = {}
    for one, line in zip(ids.to_pylist(), table.column("line").to_pylist(), strict=True):
        if one in seen:
            return one, seen[one], line
        seen[one] = line
    return None


def _named_by_line(table: pa.Table, split: str) -> pa.Table:
    lines = pc.cast(table.column("line"), pa.string())
    return table.set_column(0, "id", pc.binary_join_element_wise(split, lines, ":"))
