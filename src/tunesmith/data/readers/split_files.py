"""A folder with one file a split: train.csv, validation.csv, test.csv, or the same of another kind."""

from __future__ import annotations

from pathlib import Path

from tunesmith.data.readers import SPLITS, TABLE, TABLES, TAGGED, Source, open_source
from tunesmith.errors import DataError
from tunesmith.run import path_of


def read(where: str, encoding: str) -> dict[str, Source]:
    """The file of each split that is there.

    Raises:
        DataError: none is named for the training split, or two are named for one split.
    """
    return {split: open_source(str(path), encoding)["train"] for split, path in _files(where).items()}


def read_tagged(where: str, encoding: str) -> dict[str, Source]:
    """`read` where inputs are texts in words."""
    return {split: open_source(str(path), encoding, TAGGED)["train"] for split, path in _files(where).items()}


def _files(where: str) -> dict[str, Path]:
    folder = path_of(where)
    files: dict[str, Path] = {}
    named = [path for path in sorted(folder.iterdir()) if path.stem.lower() in SPLITS and path.is_file()]
    tables = [path for path in named if path.suffix.lower() in TABLES]
    for path in tables or [path for path in named if path.suffix.lower() in TABLE]:
        split = SPLITS[path.stem.lower()]
        if split in files:
            raise DataError(
                f"The folder {where} has two files for the {split} split: {files[split].name} and {path.name}.",
                "Name the files by data.train, data.validation and data.test.",
            )
        files[split] = path
    if "train" not in files:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise DataError(
            f"The folder {where} has no training file such as train.csv, and was not written by datasets' "
            f"save_to_disk; it holds {found}.",
            "Give a file, a folder with train, validation and test files, or one written by save_to_disk.",
        )
    return files
