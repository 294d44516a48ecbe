"""Folders of images beside folders of masks, paired by name: ROOT/images and ROOT/masks, perhaps a pair of them a split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.data import picture
from tunesmith.data.readers import SPLITS, Record, Source, pair_in
from tunesmith.errors import DataError
from tunesmith.run import path_of

COLUMNS = ["image", "mask"]


def read(where: str, encoding: str) -> dict[str, Source]:
    """Paths of images and of their masks, from `where` on; `encoding` is for text files.

    A pair of folders lies in `where`, in a folder for each split there, or in it with a folder for each split inside each.

    Raises:
        DataError: there are splits without one for training.
    """
    root = path_of(where)
    pairs: dict[str, tuple[Path, Path]] = {}
    if (outer := pair_in(root)) is not None:
        inner = {SPLITS[one.name.lower()]: one.name for one in outer[0].iterdir() if one.name.lower() in SPLITS}
        pairs = {split: (outer[0] / name, outer[1] / name) for split, name in inner.items()} or {"train": outer}
    else:
        for folder in sorted(root.iterdir()):
            split = SPLITS.get(folder.name.lower())
            found = pair_in(folder) if split else None
            if split and found:
                pairs[split] = found
    if "train" not in pairs:
        raise DataError(f"The folder {where} has masks for {', '.join(pairs)} but none for train.", "Add them.")
    names = {split: f"{where} ({split})" if len(pairs) > 1 else where for split in pairs}
    return {split: Source(names[split], COLUMNS, _records(root, *pair), root) for split, pair in pairs.items()}


def _records(root: Path, images: Path, masks: Path) -> Iterator[Record]:
    """An image without a mask has none in its cell; a mask without an image belongs to nothing."""
    by_name: dict[str, Path] = {}
    for file in _files(masks):
        other = by_name.setdefault(_name(file, masks), file)
        if other != file:
            raise DataError(f"Two masks go by one name: {other} and {file}.", "Leave one of them in the folder.")
    for number, file in enumerate(_files(images), 1):
        mask = by_name.get(_name(file, images))
        yield number, [str(file.relative_to(root)), str(mask.relative_to(root)) if mask else None]


def _files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in picture.SUFFIXES and file.is_file() and not file.name.startswith(".")
    ]


def _name(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder).with_suffix(""))
