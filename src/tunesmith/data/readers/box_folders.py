"""Folders of images with boxes: Pascal VOC's XML beside its images, or COCO's JSON as COCO itself and Roboflow lay it out.

- VOC: a folder of .xml files, or ROOT/Annotations with them; the splits are those of ROOT/ImageSets/Main, if it is there
- COCO: ROOT/annotations/instances_SPLIT….json, with images in ROOT/SPLIT…
- Roboflow: _annotations.coco.json beside the images
- each of VOC's and Roboflow's also in a folder a split
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from tunesmith.data import picture
from tunesmith.data.readers import (
    IMAGES,
    SPLITS,
    Record,
    Source,
    coco_file,
    folders_in,
    json_file,
    one_a_split,
    pair_in,
    relative,
    split_folders,
)
from tunesmith.data.readers import voc_file as voc
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.errors import DataError
from tunesmith.run import path_of

ANNOTATIONS = ("annotations", "annotation")
"""Names, in small letters, that folders of boxes go by."""
ROBOFLOW = "_annotations.coco.json"
COLUMNS = ["id", "image", "objects"]
START = 1_000
"""Bytes within which an XML file shows what it is of."""


def holds_boxes(root: Path) -> bool:
    """Whether a folder is one of those, and no folder of masks is in it."""
    places = [root, *(folder for _, folder in split_folders(root))]
    if not _coco_files(root) and not any(map(_voc_folder, places)):
        return False
    pairs = [pair for place in places if (pair := pair_in(place))]
    return not any(file.suffix.lower() in picture.SUFFIXES for _, masks in pairs for file in masks.rglob("*"))


def read(where: str, encoding: str) -> dict[str, Source]:
    """Images, from `where` on, and their objects.

    Raises:
        DataError: two files or folders stand for one split, or there are splits without one for training.
    """
    root = Path(os.path.abspath(path_of(where)))
    if files := one_a_split(where, "boxes", _coco_files(root)):
        return {split: _coco(file, encoding, root) for split, file in files.items()}
    whole = _voc_folder(root)
    if whole is not None:
        sets = one_a_split(where, "boxes", _sets(whole))
        parts = {split: (whole, _listed(file)) for split, file in sets.items()} or {"train": (whole, _stems(whole))}
    else:
        found = [(split, inner) for split, folder in split_folders(root) if (inner := _voc_folder(folder))]
        parts = {split: (folder, _stems(folder)) for split, folder in one_a_split(where, "boxes", found).items()}
    names = {split: f"{where} ({split})" if len(parts) > 1 else where for split in parts}
    return {split: Source(names[split], COLUMNS, _records(root, *part), root) for split, part in parts.items()}


def _coco_files(root: Path) -> list[tuple[str, Path]]:
    """COCO's files and their splits; one that names no split is for training."""
    places = [root, *folders_in(root, ANNOTATIONS)]
    found = [file for place in places for file in sorted(place.glob(f"{coco_file.PREFIX}*.json"))]
    named = [(file.stem.removeprefix(coco_file.PREFIX).lower(), file) for file in found]
    files = [(next((SPLITS[one] for one in SPLITS if name.startswith(one)), "train"), file) for name, file in named]
    beside = [("train", root), *split_folders(root)]
    return files + [(split, folder / ROBOFLOW) for split, folder in beside if (folder / ROBOFLOW).is_file()]


def _coco(file: Path, encoding: str, root: Path) -> Source:
    value = json_file.value_of(str(file), encoding)
    if not coco_file.holds_images(value):
        raise DataError(f"{file} is not of COCO's form.", 'Expected: {"images": […], "annotations": […], …}.')
    return coco_file.source(value, str(file), root)


def _voc_folder(folder: Path) -> Path | None:
    """Where the XML files of `folder` lie: in itself or in its folder of annotations."""
    places = [folder, *folders_in(folder, ANNOTATIONS)]
    return next((place for place in places if any(map(_annotates, _xml_files(place)))), None)


def _annotates(file: Path) -> bool:
    with open(file, "rb") as handle:
        return b"<annotation" in handle.read(START)


def _xml_files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.iterdir())
        if file.suffix.lower() == ".xml" and not file.name.startswith(".") and file.is_file()
    ]


def _stems(folder: Path) -> list[str]:
    return [file.stem for file in _xml_files(folder)]


def _sets(folder: Path) -> list[tuple[str, Path]]:
    """The files of ImageSets/Main beside a folder of XML files, or in it, and their splits; trainval, which holds both, only
    where train is absent."""
    sets = [inner for place in (folder.parent, folder) for inner in folders_in(place, ("imagesets",))]
    files = [file for inner in sets for main in folders_in(inner, ("main",))[:1] for file in sorted(main.glob("*.txt"))]
    found = [(SPLITS[file.stem.lower()], file) for file in files if file.stem.lower() in SPLITS and _listed(file)]
    whole = [("train", file) for file in files if file.stem.lower() == "trainval" and _listed(file)]
    if not whole or any(split == "train" for split, _ in found):
        return found
    return [*whole, *(one for one in found if one[0] == "test")]


def _listed(file: Path) -> list[str]:
    """The names in one file of ImageSets, without the suffix that some write."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines()]
    suffixes = (".xml", *picture.SUFFIXES)
    return list(dict.fromkeys(Path(line).stem if line.lower().endswith(suffixes) else line for line in lines if line))


def _records(root: Path, folder: Path, names: Sequence[str]) -> Iterator[Record | Rejected]:
    files = {file.stem: file for file in _xml_files(folder)}
    pictures = _pictures(root, folder)
    for number, name in enumerate(names, 1):
        if name not in files:
            yield Rejected("", number, "listed, but without an XML file", excerpt(name))
            continue
        try:
            found = voc.read(files[name])
        except voc.NotAnnotated as wrong:
            yield Rejected("", number, str(wrong), excerpt(files[name].name))
            continue
        # What the XML names may be of before its file was renamed, or copied from another.
        image = pictures.get(name) or pictures.get(PureWindowsPath(found.file_name).name)
        yield number, [name, relative(image, root) if image else found.file_name or name, _cell(found)]


def _cell(found: voc.Annotated) -> dict[str, Any]:
    """The objects of an image as lists side by side."""
    beside = {
        "box": [{side: one[side] for side in voc.SIDES} for one in found.objects],
        "label": [one["label"] for one in found.objects],
        "difficult": [one["difficult"] for one in found.objects],
    }
    return beside | ({"size": list(found.size)} if found.size else {})


def _pictures(root: Path, folder: Path) -> dict[str, Path]:
    """The images in and beside a folder of XML files, by their names with and without suffix."""
    places = [folder, *folders_in(folder, IMAGES), *folders_in(folder.parent, IMAGES)]
    places += [folder.parent] if folder != root else []
    found: dict[str, Path] = {}
    for file in (file for place in places for file in sorted(place.iterdir())):
        if file.suffix.lower() in picture.SUFFIXES and not file.name.startswith("."):
            found.setdefault(file.name, file)
            found.setdefault(file.stem, file)
    return found
