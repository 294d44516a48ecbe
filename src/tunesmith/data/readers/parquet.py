"""Parquet and any other Arrow table, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet

from tunesmith.data.readers import Record, Source
from tunesmith.errors import DataError
from tunesmith.run import path_of

BATCH = 10_000


def read(where: str, encoding: str) -> dict[str, Source]:
    """`encoding` is for text files; Parquet has its own."""
    try:
        file = pyarrow.parquet.ParquetFile(path_of(where))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{where} is not a Parquet file: {error}.") from None
    schema = file.schema_arrow
    rows = named(rows_of(file.iter_batches(BATCH)), _names_in(schema))
    return {"train": Source(where, schema.names, rows)}


def rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Record]:
    """The rows of `batches`, numbered from 1."""
    number = 0
    for batch in batches:
        columns = [column.to_pylist() for column in batch.columns]
        for values in zip(*columns, strict=True):
            number += 1
            yield number, list(values)


def named(rows: Iterator[Record], names: Mapping[int, Sequence[str]]) -> Iterator[Record]:
    """`rows` with names in place of class indices, alone or in lists; test splits on the Hub often hide them behind -1.

    Args:
        names: by position of a column, its class names.
    """
    for line, values in rows:
        for position, labels in names.items():
            cell = values[position]
            values[position] = [_name(one, labels) for one in cell] if isinstance(cell, list) else _name(cell, labels)
        yield line, values


def _name(index: int | None, labels: Sequence[str]) -> str | None:
    return labels[index] if index is not None and 0 <= index < len(labels) else None


def _names_in(schema: pa.Schema) -> dict[int, list[str]]:
    """The class names that `datasets` leaves in the metadata of a table, by position of the column."""
    held = (schema.metadata or {}).get(b"huggingface")
    if held is None:
        return {}
    features = json.loads(held).get("info", {}).get("features", {})
    found = {}
    for position, name in enumerate(schema.names):
        feature = features.get(name, {})
        inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            found[position] = inner["names"]
    return found
