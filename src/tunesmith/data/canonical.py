"""From a source to a memory-mapped Arrow table with fixed columns; rows that cannot be used are set aside on the way."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.data.cells import Cells, Place, Unusable
from tunesmith.data.cells.text import TEXT
from tunesmith.data.columns import Columns
from tunesmith.data.parallel import ordered
from tunesmith.data.readers import Record, Source
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.run import writing
from tunesmith.settings import DataSettings

BATCH = 20_000
PARTED = (Mapping, list, tuple, np.ndarray)
"""Cells of several parts."""


@dataclass(frozen=True)
class Canonical:
    """Rows with the columns id, line, those of the cells (input first), raw (for targets), group (for groups)."""

    rows: pa.Table
    rejected: list[Rejected]


def schema_of(columns: Columns, cells: Cells) -> pa.Schema:
    """The fixed columns that `columns` lead to."""
    names = [("id", pa.string()), ("line", pa.int64()), *cells.fields(len(columns.inputs))]
    names += [("raw", pa.string())] if columns.targets else []
    names += [("group", pa.string())] if columns.group else []
    return pa.schema(names)


def canonical(
    source: Source, columns: Columns, split: str, settings: DataSettings, path: Path, cells: Cells = TEXT
) -> Canonical:
    """Read `source` once; its usable rows go to the Arrow file `path`, which is mapped, not loaded."""
    rejected: list[Rejected] = []
    place = Place(source.folder, path.with_suffix(".files"), settings)
    reader = _Row(source, columns, split, cells, place)

    def read(record: Record | Rejected) -> tuple[Any, ...] | Rejected:
        return replace(record, split=split) if isinstance(record, Rejected) else reader.read(*record)

    def usable() -> Iterator[tuple[Any, ...]]:
        for found in ordered(read, source.records, cells.workers):
            if isinstance(found, Rejected):
                rejected.append(found)
            else:
                yield found

    return Canonical(store(usable(), schema_of(columns, cells), path), rejected)


def store(rows: Iterator[tuple[Any, ...]], schema: pa.Schema, path: Path) -> pa.Table:
    """Write `rows` to `path` in batches, and map the file; what goes wrong while they are read is not our writing."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = pa.OSFile(str(path), "wb")
    with sink, pa.ipc.new_file(sink, schema) as writer:
        while block := list(itertools.islice(rows, BATCH)):
            batch = _batch(block, schema)
            with writing(path):
                writer.write_batch(batch)
    return mapped(path)


def mapped(path: Path) -> pa.Table:
    """The Arrow file `path` as a table whose columns stay on disk until they are read."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch(
        [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True)], schema
    )


class _Row:
    """Turns one record into one canonical row, or says why it cannot be used."""

    def __init__(self, source: Source, columns: Columns, split: str, cells: Cells, place: Place) -> None:
        names = [name.strip() for name in source.columns]
        self.inputs = [(name, names.index(name)) for name in columns.inputs]
        self.targets = [(name, names.index(name)) for name in columns.targets]
        self.id = names.index(columns.id) if columns.id in names else None
        self.group = names.index(columns.group) if columns.group else None
        self.split, self.cells, self.place = split, cells, place

    def read(self, line: int, values: Sequence[Any]) -> tuple[Any, ...] | Rejected:
        found = self.cells.read([values[at] for _, at in self.inputs], f"{self.split}:{line}", self.place)
        if isinstance(found, Unusable):
            return Rejected(self.split, line, f"{found.reason} in {self.inputs[found.column][0]!r}", found.shown)
        row: list[Any] = [self._named(self.id, line, values), line, *found]
        if self.targets:
            raw = self._raw(values)
            if raw is not None and raw != written_whole(raw):
                return Rejected(self.split, line, f"broken encoding in {self.targets[0][0]!r}", excerpt(raw))
            row.append(raw)
        if self.group is not None:
            row.append(self._named(self.group, line, values))
        return tuple(row)

    def _named(self, position: int | None, line: int, values: Sequence[Any]) -> str:
        """What the cell says; a row without one is named by its line, and so belongs to no other row."""
        cell = None if position is None else values[position]
        return f"{self.split}:{line}" if cell is None or not str(cell).strip() else written_whole(str(cell))

    def _raw(self, values: Sequence[Any]) -> str | None:
        """The target as text: a scalar as it is, a list or a mapping as JSON, several columns of 0 and 1 as the names that
        have 1."""
        if len(self.targets) > 1:
            cells = [(name, str(values[position]).strip().lower()) for name, position in self.targets]
            if any(cell not in ("0", "1", "true", "false", "0.0", "1.0") for _, cell in cells):
                return None
            return json.dumps([name for name, cell in cells if cell in ("1", "true", "1.0")])
        value = values[self.targets[0][1]]
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, float) and math.isnan(value):  # what pandas has in place of nothing
            return None
        return json.dumps(value, default=_plain) if isinstance(value, PARTED) else str(value)


def written_whole(text: str) -> str:
    """`text` with a question mark for each half of a sign, which JSON can hold and no file can."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any) -> Any:
    """What JSON holds in place of a value that is not its own, as tables have them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return dict(value) if isinstance(value, Mapping) else str(value)
