"""A folder that the `datasets` library wrote with save_to_disk: one data set, or one a split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from tunesmith.data.readers import SPLITS, Source
from tunesmith.data.readers.parquet import BATCH, named, rows_of
from tunesmith.errors import DataError
from tunesmith.run import path_of


def read(where: str, encoding: str) -> dict[str, Source]:
    """`encoding` is for text files; Arrow has its own."""
    import datasets  # slow to import, and only needed here

    return sources(datasets.load_from_disk(str(path_of(where))), where)


def sources(found: Any, where: str) -> dict[str, Source]:
    """The splits of a Dataset or a DatasetDict; class indices become class names."""
    import datasets

    if not isinstance(found, dict):
        return {"train": _source(found, where)}
    splits = {SPLITS[name]: table for name, table in found.items() if name in SPLITS}
    if "train" not in splits:
        raise DataError(f"{where} has no split named train; it has {', '.join(found)}.")
    assert issubclass(datasets.DatasetDict, dict)
    return {
        name: _source(splits[name], f"{where} ({name})") for name in ("train", "validation", "test") if name in splits
    }


def _source(table: Any, name: str) -> Source:
    import datasets

    names: dict[int, list[str]] = {}
    for position, feature in enumerate(table.features.values()):
        inner = feature.feature if isinstance(feature, datasets.List | datasets.LargeList) else feature
        if isinstance(inner, datasets.ClassLabel):
            names[position] = inner.names

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(table), BATCH):
            yield from table.with_format("arrow")[start : start + BATCH].combine_chunks().to_batches()

    return Source(name, list(table.features), named(rows_of(batches()), names))
