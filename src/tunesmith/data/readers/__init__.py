"""From a source to rows as mappings with their line, or to rejected lines. One file a kind of source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from tunesmith.data.rejected import Rejected
from tunesmith.errors import DataError
from tunesmith.registry import look_up
from tunesmith.run import path_of

TABLE = {
    ".csv": "tunesmith.data.readers.delimited:read_csv",
    ".tsv": "tunesmith.data.readers.delimited:read_tsv",
    ".json": "tunesmith.data.readers.json_file:read",
    ".jsonl": "tunesmith.data.readers.json_lines:read",
    ".ndjson": "tunesmith.data.readers.json_lines:read",
    ".parquet": "tunesmith.data.readers.parquet:read",
    ".conll": "tunesmith.data.readers.conll_file:read",
    ".bio": "tunesmith.data.readers.conll_file:read",
    ".iob": "tunesmith.data.readers.conll_file:read",
    ".iob2": "tunesmith.data.readers.conll_file:read",
    ".iobes": "tunesmith.data.readers.conll_file:read",
    ".bioes": "tunesmith.data.readers.conll_file:read",
    ".conllu": "tunesmith.data.readers.conllu_file:read",
    ".txt": "tunesmith.data.readers.plain_text:read",
    "folder": "tunesmith.data.readers.split_files:read",
    "classes": "tunesmith.data.readers.class_folders:read",
    "listed": "tunesmith.data.readers.listed_images:read",
    "masks": "tunesmith.data.readers.image_masks:read",
    "boxes": "tunesmith.data.readers.box_folders:read",
    "dataset": "tunesmith.data.readers.dataset_folder:read",
    "hub": "tunesmith.data.readers.hub:read",
}

TAGGED = {
    ".txt": "tunesmith.data.readers.tagged_text:read_text",
    ".tsv": "tunesmith.data.readers.tagged_text:read_table",
    "folder": "tunesmith.data.readers.split_files:read_tagged",
}
"""What is read otherwise where inputs are texts in words: names of files that may hold CoNLL's form all the same."""

PLAIN = ".txt"
TABLES = tuple(kind for kind in TABLE if kind.startswith(".") and kind != PLAIN)
"""Files of rows and columns. A .txt beside others is often a list or a note, and lines of it are no rows."""

SPLITS = {
    "train": "train", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test",
}  # fmt: skip
"""Names that splits go by, and ours for them."""

IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("segmentationclass", "masks", "mask", "labels", "label", "annotations", "annotation", "gt")
"""Names, in small letters, that folders of images go by, and those of the masks beside them."""

Problem = Literal["single-label", "multi-label", "regression"]
"""Kinds of target."""
Record = tuple[int, list[Any]]
"""Line, and the values in the order of the columns."""


@dataclass(frozen=True)
class Source:
    """A table that is read once, from front to back."""

    name: str
    """As messages name it."""
    columns: list[str]
    records: Iterator[Record | Rejected]
    """The split of a Rejected is filled in by who knows it."""
    folder: Path = Path()
    """Where relative paths in its cells start."""
    problem: Problem | None = None
    """The kind of target, where the form of the source says so."""
    guesses: tuple[str, ...] = ()
    """What was guessed of its form, in sentences."""


def open_source(where: str, encoding: str, others: Mapping[str, str] = {}) -> dict[str, Source]:
    """The tables of `where` by split; a single file is "train".

    Args:
        others: entries that go over those of TABLE.

    Raises:
        DataError: no such file, an unknown kind, or nothing in it.
    """
    path = path_of(where)
    if path.is_dir():
        with reading(where):
            kind = _kind_of_folder(path)
    elif path.exists():
        kind = path.suffix.lower()
        if kind not in TABLE:
            known = ", ".join(suffix for suffix in TABLE if suffix.startswith("."))
            raise DataError(f"{where} is of a kind that cannot be read ({kind or 'no suffix'}).", f"Known: {known}.")
        if path.stat().st_size == 0:
            raise DataError(f"{where} is empty.", "Give a file with a header and rows.")
    elif path.suffix.lower() in TABLE or where.startswith((".", "/", "~")) or where.count("/") != 1:
        raise DataError(f"There is no data file {where}.", "Check the path; it is taken from the folder you are in.")
    else:
        kind = "hub"
    with reading(where):
        found: dict[str, Source] = look_up("kind of source", kind, {**TABLE, **others})(where, encoding)
    folder = path if path.is_dir() else path.parent
    return {split: replace(source, records=_guarded(source), folder=folder) for split, source in found.items()}


def _kind_of_folder(path: Path) -> str:
    """Which of TABLE's kinds a folder is: written by `datasets`, images and boxes or masks, a list beside images, folders of
    classes, or a file a split."""
    from tunesmith.data.readers import box_folders, listed_images  # they read this file first

    if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        return "dataset"
    tables = any(file.stem.lower() in SPLITS and file.suffix.lower() in TABLES for file in path.iterdir())
    if not tables and box_folders.holds_boxes(path):
        return "boxes"
    if any(pair_in(one) for one in (path, *path.iterdir()) if one is path or one.name.lower() in SPLITS):
        return "masks"
    if not tables and listed_images.lists_images(path):
        return "listed"
    folders = any(file.is_dir() and not file.name.startswith(".") for file in path.iterdir())
    return "classes" if folders and not tables else "folder"


def pair_in(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images and of masks in `folder`, where it holds both."""
    if not folder.is_dir():
        return None
    images, masks = (folders_in(folder, names) for names in (IMAGES, MASKS))
    return (images[0], masks[0]) if images and masks else None


def split_folders(root: Path) -> list[tuple[str, Path]]:
    """The folders in `root` that are called like a split, each with the split."""
    folders = [one for one in sorted(root.iterdir()) if one.name.lower() in SPLITS and one.is_dir()]
    return [(SPLITS[folder.name.lower()], folder) for folder in folders]


def one_a_split(where: str, what: str, found: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """By split; empty where nothing is found.

    Args:
        what: is found, as messages name it.

    Raises:
        DataError: two are of one split, or none is for training.
    """
    splits: dict[str, Path] = {}
    for split, path in found:
        if split in splits:
            raise DataError(
                f"{where} has two of the {split} split: {splits[split]} and {path}.",
                "Name what is meant by data.train, data.validation and data.test.",
            )
        splits[split] = path
    if splits and "train" not in splits:
        raise DataError(f"The folder {where} has {what} for {', '.join(splits)} but none for train.", "Add them.")
    return splits


def folders_in(folder: Path, names: Sequence[str]) -> list[Path]:
    """The folders in `folder` that go by one of `names`, which are in small letters, in their order."""
    inside = {one.name.lower(): one for one in sorted(folder.iterdir()) if one.is_dir()}
    return [inside[name] for name in names if name in inside]


def relative(file: Path, start: Path) -> str:
    """`file` as a cell of a source that lies in `start` names it."""
    if file.is_relative_to(start):
        return str(file.relative_to(start))
    return os.path.relpath(os.path.realpath(file), os.path.realpath(start))  # what .. means depends on links


def _guarded(source: Source) -> Iterator[Record | Rejected]:
    """The records; a file that breaks off, or vanishes, on the way is one clear sentence too."""
    with reading(source.name):
        yield from source.records


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what the operating system, or Arrow, says of an unreadable `where` into one DataError."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        told = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise DataError(f"{where} cannot be read: {told}.") from error
