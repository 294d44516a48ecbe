"""Parquet and any other Arrow table, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
    return {"train": Source(where, file.schema_arrow.names, rows_of(file.iter_batches(BATCH)))}


def rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Record]:
    """The rows of `batches`, numbered from 1."""
    number = 0
    for batch in batches:
        columns = [column.to_pylist() for column in batch.columns]
        for values in zip(*columns, strict=True):
            number += 1
            yield number, list(values)
