"""COCO's JSON: images and, apart from them, annotations that name the image and the category by number.

An image becomes one row with its boxes as the file has them; where the images lie is found out by the first that exists.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.data.readers import IMAGES, Record, Source, folders_in, relative
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.errors import DataError
from tunesmith.run import path_of

COLUMNS = ["id", "image", "objects"]
PREFIX = "instances_"
"""What COCO's own files are called before the name of the split, which the folder of images goes by."""


def holds_images(value: Any) -> bool:
    """Whether the content of a JSON file is COCO's."""
    return isinstance(value, dict) and all(isinstance(value.get(name), list) for name in ("images", "annotations"))


def source(value: Mapping[str, Any], where: str, start: Path) -> Source:
    """The rows of a file's content.

    Args:
        where: the file.
        start: the folder where relative paths in cells start.

    Raises:
        DataError: there is no image, or two have one id.
    """
    images = value["images"]
    if not images:
        raise DataError(f"{where} lists no images.", 'Expected: "images": [{"id": …, "file_name": …}, …].')
    names = _names(images, where)
    by_image: dict[str | None, list[Any]] = defaultdict(list)
    for annotation in value["annotations"]:
        by_image[str(annotation.get("image_id")) if isinstance(annotation, dict) else None].append(annotation)
    strays = [annotation for one, found in by_image.items() if one not in names for annotation in found]
    categories = _categories(value.get("categories"))
    base = Path(relative(_base(path_of(where), list(filter(None, names.values()))), Path(os.path.abspath(start))))

    def records() -> Iterator[Record | Rejected]:
        for number, image in enumerate(images, 1):
            one = str(image.get("id")) if isinstance(image, dict) else ""
            if not names.get(one):
                yield Rejected("", number, "image without an id or a file_name", excerpt(image))
                continue
            objects = _objects(by_image.get(one, []), categories)
            if isinstance(objects, dict):
                size = [image.get("width"), image.get("height")]
                objects |= {"size": size} if all(isinstance(side, int) and side > 0 for side in size) else {}
                yield number, [one, str(base / names[one]), objects]
            else:
                yield Rejected("", number, objects, excerpt(names[one]))
        if strays:
            are = "annotation of an image that is" if len(strays) == 1 else "annotations of images that are"
            yield Rejected("", 0, f"{len(strays):,} {are} not listed", excerpt(strays[0]))

    return Source(where, COLUMNS, records(), start)


def _names(images: Sequence[Any], where: str) -> dict[str, str]:
    """The file of each image by its id; empty where it has none."""
    names: dict[str, str] = {}
    for image in images:
        if not isinstance(image, dict) or image.get("id") is None:
            continue
        one, name = str(image["id"]), image.get("file_name")
        name = name.strip().replace("\\", "/") if isinstance(name, str) else ""  # as it is written on Windows
        if one in names:
            both = " and ".join(shown or "one without a file_name" for shown in (names[one], name))
            raise DataError(f"{where} gives the id {one} to two images: {both}.", "Give each image an id of its own.")
        names[one] = name
    return names


def _categories(listed: Any) -> dict[str, str]:
    """Names by id; empty where the file lists none, so that numbers stand for themselves."""
    found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return {str(one.get("id")): str(one.get("name") or "").strip() or str(one.get("id")) for one in found}


def _objects(annotations: Sequence[Mapping[str, Any]], categories: Mapping[str, str]) -> dict[str, list[Any]] | str:
    """The boxes of one image as lists side by side, or what is wrong with the class of one of them.

    An annotation of a class without a box has one of no numbers, which is set aside later and told; one with neither, such as
    a sentence about the whole image, is about no thing in it.
    """
    annotations = [one for one in annotations if one.get("bbox") is not None or one.get("category_id") is not None]
    for one in annotations:
        category = one.get("category_id")
        if category is None or (categories and str(category) not in categories):
            return f"annotation of the category {category!r}, which is not listed"
    return {
        "bbox": [
            box if isinstance(box := one.get("bbox"), list) and len(box) == 4 else [None] * 4 for one in annotations
        ],
        "category": [categories.get(str(one["category_id"]), one["category_id"]) for one in annotations],
        "iscrowd": [one.get("iscrowd") for one in annotations],
    }


def _base(file: Path, names: Sequence[str]) -> Path:
    """The folder that the images' names start from: the first in which one of them is a file."""
    folder = Path(os.path.abspath(file)).parent
    bases = [base for place in (folder, folder.parent) for base in _beside(place, file.stem)]
    return next((base for name in names for base in bases if (base / name).is_file()), folder)


def _beside(place: Path, stem: str) -> list[Path]:
    """`place`, its folders of images, and the folders in all of them that are called like the file."""
    around = [place, *folders_in(place, IMAGES)]
    called = dict.fromkeys((stem, stem.removeprefix(PREFIX)))
    return [*around, *(base / name for base in around for name in called if (base / name).is_dir())]
