"""Folders named after classes, each with its files: ROOT/CLASS/…, or ROOT/train/CLASS/…, ROOT/test/CLASS/… and so on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.data.readers import SPLITS, Record, Source
from tunesmith.errors import DataError
from tunesmith.run import path_of

COLUMNS = ["file", "label"]
LITTER = ("thumbs.db", "desktop.ini")
"""Files that systems leave in folders of images."""


def read(where: str, encoding: str) -> dict[str, Source]:
    """Paths from `where` on, and labels; `encoding` is for text files.

    Raises:
        DataError: two folders stand for one split, there are splits without one for training, or it cannot be told whether
            folders are splits or classes.
    """
    root = path_of(where)
    folders = _folders(root)
    splits: dict[str, Path] = {}
    for folder in folders:
        split = SPLITS.get(folder.name.lower())
        if split in splits:
            raise DataError(
                f"The folder {where} has two folders for the {split} split: {splits[split].name} and {folder.name}.",
                "Name the folders by data.train, data.validation and data.test.",
            )
        if split:
            splits[split] = folder
    others = [folder.name for folder in folders if folder.name.lower() not in SPLITS]
    if not splits or (others and not any(map(_folders, splits.values()))):  # a class may be called train, or test
        splits = {"train": root}
    elif others and list(splits) == ["train"]:
        raise DataError(
            f"The folder {where} has a folder {splits['train'].name} with folders in it, and beside it others: "
            f"{', '.join(others[:5])}.",
            f"Are these classes, give {splits['train'].name} another name; are they splits, name them by data.validation and "
            "data.test; or take them out.",
        )
    elif "train" not in splits:
        raise DataError(f"The folder {where} has a folder {', '.join(splits)} but none named train.", "Add it.")
    for folder in splits.values():
        if not _folders(folder):
            raise DataError(
                f"The folder {folder} has no folders of classes.",
                "Expected: one folder a class, with its files, or a table such as train.csv.",
            )
    names = {split: f"{where} ({split})" if len(splits) > 1 else where for split in splits}
    return {
        split: Source(names[split], COLUMNS, _records(root, folder), root, "single-label")
        for split, folder in splits.items()
    }


def _records(root: Path, folder: Path) -> Iterator[Record]:
    number = 0
    for label in _folders(folder):
        for file in sorted(label.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(label).parts)
            if file.is_file() and not hidden and file.name.lower() not in LITTER:
                number += 1
                yield number, [str(file.relative_to(root)), label.name]


def _folders(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
