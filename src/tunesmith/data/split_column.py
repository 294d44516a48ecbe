"""Splits that a column of the table names: each row goes where its cell says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tunesmith.data.readers import SPLITS, Record, Source, open_source
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.errors import DataError, did_you_mean


def by_column(where: str, encoding: str, column: str, others: Mapping[str, str]) -> dict[str, Source]:
    """The table `where`, which is read once a split, cut by its `column`; rows that name no split are rejected.

    Args:
        others: as `open_source` has them.

    Raises:
        DataError: no such column, no row for training, or a source that brings splits of another kind.
    """

    def opened() -> tuple[Source, int]:
        found = open_source(where, encoding, others)
        source = found["train"]
        names = [name.strip() for name in source.columns]
        if len(found) > 1:
            raise DataError(f"{where} brings its splits already.", "Leave data.split_column away.")
        if column.strip() not in names:
            raise DataError(
                f"{source.name} has no column {column!r}{did_you_mean(column, names)}", f"Columns: {', '.join(names)}."
            )
        return source, names.index(column.strip())

    first, at = opened()
    present = {_split_of(one[1][at]) for one in first.records if not isinstance(one, Rejected)}
    if "train" not in present:
        raise DataError(
            f"The column {column!r} of {where} names no row as train.",
            f"Known: {', '.join(SPLITS)}; data.split_column names the column.",
        )
    return {split: _only(*opened(), split, column) for split in ("train", "validation", "test") if split in present}


def _only(source: Source, at: int, split: str, column: str) -> Source:
    """The rows of one split; what belongs to none is told with the training rows."""

    def records() -> Iterator[Record | Rejected]:
        for one in source.records:
            if isinstance(one, Rejected):
                if split == "train":
                    yield one
                continue
            named = _split_of(one[1][at])
            if named == split:
                yield one
            elif named is None and split == "train":
                yield Rejected("", one[0], f"no split in {column!r}", excerpt(one[1][at]))

    return replace(source, records=records())


def _split_of(cell: object) -> str | None:
    return SPLITS.get(str(cell).strip().lower())
