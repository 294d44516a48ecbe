"""A folder of images as `datasets` reads it: a table named metadata beside the images, in the folder or in one a split.

Its cells name files from the table's folder on; here they do from the whole folder on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tunesmith.data.readers import SPLITS, Record, Source, open_source
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
    found: dict[str, Source] = {}
    tables = _tables(root)
    for table in tables:
        split = "train" if table.parent == root else SPLITS[table.parent.name.lower()]
        if split in found:
            raise DataError(
                f"The folder {where} has two tables for the {split} split, one of them {table}.",
                "Name the files by data.train, data.validation and data.test.",
            )
        source = open_source(str(table), encoding)["train"]
        if FILE not in source.columns:
            raise DataError(f"{table} has no column {FILE}.", f"Its columns are {', '.join(source.columns)}.")
        name = f"{where} ({split})" if len(tables) > 1 else where
        start = table.parent.relative_to(root)
        records = _from_root(source.records, source.columns.index(FILE), start)
        found[split] = replace(source, name=name, records=records, folder=root)
    if "train" not in found:
        raise DataError(f"The folder {where} has a table for {', '.join(found)} but none for train.", "Add it.")
    return found


def _tables(root: Path) -> list[Path]:
    """The one beside the images; else those of the folders that are splits."""
    folders = [one for one in sorted(root.iterdir()) if one.is_dir() and one.name.lower() in SPLITS]
    own = [root / name for name in NAMES if (root / name).is_file()]
    return own or [folder / name for folder in folders for name in NAMES if (folder / name).is_file()]


def _from_root(records: Iterator[Record | Rejected], place: int, start: Path) -> Iterator[Record | Rejected]:
    for record in records:
        if isinstance(record, Rejected) or not isinstance(record[1][place], str):
            yield record
            continue
        number, cells = record
        yield number, [*cells[:place], str(start / cells[place]), *cells[place + 1 :]]
