"""A folder of images as `datasets` reads it: a table named metadata beside the images, in the folder or in one a split.

Its cells name files from the table's folder on; here they do from the whole folder on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tunesmith.data.readers import Record, Source, one_a_split, open_source, split_folders
from tunesmith.data.rejected import Rejected
from tunesmith.errors import DataError
from tunesmith.run import path_of

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE = "file_name"


def lists_images(root: Path) -> bool:
    """Whether a folder is one of those."""
    return bool(_tables(root))


def read(where: str, encoding: str) -> dict[str, Source]:
    """The table of each split.

    Raises:
        DataError: two folders stand for one split, there are splits without one for training, or a table names no files.
    """
    root = path_of(where)
    tables = one_a_split(where, "tables", _tables(root))
    found: dict[str, Source] = {}
    for split, table in tables.items():
        source = open_source(str(table), encoding)["train"]
        if FILE not in source.columns:
            raise DataError(f"{table} has no column {FILE}.", f"Its columns are {', '.join(source.columns)}.")
        name = f"{where} ({split})" if len(tables) > 1 else where
        start = table.parent.relative_to(root)
        records = _from_root(source.records, source.columns.index(FILE), start)
        found[split] = replace(source, name=name, records=records, folder=root)
    return found


def _tables(root: Path) -> list[tuple[str, Path]]:
    """The one beside the images; else those of the folders that are splits."""
    own = [("train", root / name) for name in NAMES if (root / name).is_file()]
    inside = [(split, folder / name) for split, folder in split_folders(root) for name in NAMES]
    return own or [(split, table) for split, table in inside if table.is_file()]


def _from_root(records: Iterator[Record | Rejected], place: int, start: Path) -> Iterator[Record | Rejected]:
    for record in records:
        if isinstance(record, Rejected) or not isinstance(record[1][place], str):
            yield record
            continue
        number, cells = record
        yield number, [*cells[:place], str(start / cells[place]), *cells[place + 1 :]]
