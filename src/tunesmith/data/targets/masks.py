"""Masks: an image for each image, whose pixels say which class lies there, by number or by colour.

Every mask becomes one of class indices, kept in the row itself as a small PNG, so that from here on nobody asks how the
files spelled them. Pixels that are not labelled are `VOID`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from tunesmith.data import picture
from tunesmith.data.parallel import ordered
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.errors import DataError
from tunesmith.run import path_of

VOID = 255
"""Of a mask: not labelled."""
MOST_CLASSES = VOID
KIND = pa.struct([("mask", pa.binary()), ("classes", pa.list_(pa.int64())), ("file", pa.string())])
PROBLEM = "mask"
FILES = ("classes.txt", "labels.txt", "class_dict.csv", "label_colors.txt", "labelmap.txt")
"""Names of files that say what classes are called, beside the data or in the folder above."""
BINARY = ("background", "object")
Colour = tuple[int, int, int]
Values = npt.NDArray[Any]


class Masks:
    """Targets that are masks."""

    names: Sequence[str] = (
        "mask",
        "masks",
        "label",
        "labels",
        "segmentation",
        "annotation",
        "mask_path",
        "seg_map",
        "target",
    )
    preferred: Sequence[str] = ("mask", "label")

    def __init__(self, classes: Sequence[str] | str | None, ignore: Sequence[int]) -> None:
        """`classes`: names by index, or a file of them; looked for beside the data when absent. `ignore`: values that mean
        "not labelled"."""
        self.classes, self.ignore = classes, frozenset(ignore)

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where no mask can be read, or there is one class only."""
        named, where = self._named(raw.place.folder)
        labels, guesses = tuple(named), []
        if where is not None:
            guesses.append(f"The classes are those of {where} (task.classes names others).")
        if not labels:
            values = self._values(raw)
            if _two(values):
                labels = BINARY
                told = f"Masks hold {_listed(values)}: read as background and object"
            else:
                labels = tuple(map(str, sorted(values)))
                told = f"Classes are called by the values that masks hold: {_listed(values)}"
            guesses.append(f"{told} (task.classes names them).")
        if len(labels) < 2:
            only = f"only the class {labels[0]!r}" if labels else "no class"
            raise DataError(f"The masks of {raw.name} hold {only}.", "At least two are needed to tell apart.")
        if len(labels) > MOST_CLASSES:
            raise DataError(
                f"The masks of {raw.name} hold {len(labels):,} classes.", f"Up to {MOST_CLASSES} can be told apart."
            )
        return Settled(PROBLEM, labels, tuple(guesses))

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> dict[str, Any]:
        """`pixels`: by split, the share of the labelled pixels that each class has, and the share that is labelled."""
        found = {}
        for split, rows in tables.items():
            counts = np.zeros(VOID + 1, dtype=np.int64)
            for target in rows.column("target").to_pylist():
                counts += np.bincount(unpacked(target["mask"]).reshape(-1), minlength=VOID + 1)
            known = max(1, int(counts[:VOID].sum()))
            shares = {label: float(counts[index] / known) for index, label in enumerate(labels)}
            found[split] = {"labelled": float(known / max(1, int(counts.sum()))), "classes": shares}
        return {"pixels": found}

    def reading(self, raw: Raw, problem: str, labels: Sequence[str]) -> Reading:
        named, _ = self._named(raw.place.folder)
        table = self._table(raw, labels, [] if named else labels)
        read = partial(self._read, raw.place.folder, table, named, len(labels))

        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            cells = zip(*(rows.column(name).to_pylist() for name in ("raw", "width", "height")), strict=True)
            yield from ordered(lambda cell: read(*cell), cells, min(8, os.cpu_count() or 1))

        return Reading(KIND, values)

    def _named(self, folder: Path) -> tuple[Mapping[str, Colour | None], Path | None]:
        """Names by index, each with its colour where the file of classes gives one; and that file where it was found."""
        if isinstance(self.classes, str):
            return read_classes(path_of(self.classes)), None
        if self.classes is not None:
            return dict.fromkeys(self.classes), None
        beside = [place / name for place in (folder, folder.parent) for name in FILES]
        found = next((file for file in beside if file.is_file()), None)
        return (read_classes(found), found) if found else ({}, None)

    def _values(self, raw: Raw) -> set[int]:
        """Values of all masks of one channel, those that mean nothing left out."""

        def one(cell: str | None) -> set[int]:
            try:
                values = _pixels(raw.place.folder, cell)
            except picture.NotAnImage:
                return set()  # set aside when it is read
            return set(np.unique(values).tolist()) if values.ndim == 2 else set()

        found = set().union(*ordered(one, raw.column.to_pylist(), min(8, os.cpu_count() or 1))) - self.ignore
        return found if _two(found) else found - {VOID}

    def _table(self, raw: Raw, labels: Sequence[str], by_value: Sequence[str]) -> dict[int, int]:
        """Value to class index.

        Args:
            by_value: labels that are called by the values themselves, or are those of masks of two values.
        """
        if by_value and all(label.isdigit() for label in by_value):
            return {int(label): index for index, label in enumerate(by_value)}
        values = self._values(raw) if len(labels) == 2 else set()
        if _two(values) and max(values) > 1:
            return {0: 0, max(values): 1}
        return {index: index for index in range(len(labels))}

    def _read(
        self,
        folder: Path,
        table: Mapping[int, int],
        named: Mapping[str, Colour | None],
        classes: int,
        cell: str | None,
        width: int,
        height: int,
    ) -> Any:
        try:
            values = _pixels(folder, cell)
        except picture.NotAnImage as error:
            return Reason("no mask" if not cell else f"mask: {error}")
        if values.shape[:2] != (height, width):
            found = f"{values.shape[1]} × {values.shape[0]}"
            return Reason(f"mask of {found} pixels for an image of {width} × {height}")
        if values.ndim == 3:
            colours = {colour: index for index, colour in enumerate(named.values()) if colour is not None}
            if not colours:
                return Reason("mask of colours, and no file says which class each stands for (task.classes)")
            index, unknown = _from_colours(values, colours), None
        else:
            index, unknown = _from_values(values, table, self.ignore | ({VOID} - table.keys()))
        if unknown is not None:
            return Reason(
                f"mask with the value {unknown}, which is no class (task.ignore: values that are not labelled)"
            )
        present = [int(one) for one in np.unique(index) if one != VOID]
        if not present:
            return Reason("mask without a labelled pixel")
        assert max(present) < classes
        return {"mask": packed(index), "classes": present, "file": cell}


def read_classes(file: Path) -> dict[str, Colour | None]:
    """Names of classes by line, perhaps each with the three numbers of its colour before or after it.

    Raises:
        DataError: it cannot be read, or a name stands there twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file of classes {file} cannot be read: {error}.", "task.classes names another.") from None
    found: dict[str, Colour | None] = {}
    for line in lines:
        parts = [part for part in re.split(r"[,;:\t ]+", line.strip()) if part]
        if not parts or line.lstrip().startswith("#") or {part.lower() for part in parts} >= {"name", "r", "g", "b"}:
            continue
        numbers = [part for part in parts if part.isdigit() and int(part) < 256]
        colour = tuple(map(int, numbers)) if len(numbers) == 3 and len(parts) > 3 else None
        name = " ".join(part for part in parts if colour is None or part not in numbers)
        if name in found:
            raise DataError(f"The file of classes {file} names {name!r} twice.", "Give each class a name of its own.")
        found[name] = colour  # type: ignore[assignment]  # three of them
    if not found:
        raise DataError(f"The file of classes {file} names none.", "Write one name a line.")
    return found


def packed(index: Values) -> bytes:
    """A mask of class indices, (height, width), as a PNG."""
    content = BytesIO()
    Image.fromarray(index.astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def unpacked(content: bytes) -> npt.NDArray[np.uint8]:
    """(height, width): the mask that `packed` kept."""
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image, dtype=np.uint8)


def _pixels(folder: Path, cell: str | None) -> Values:
    """(height, width) of numbers, or (height, width, 3) of colours.

    Raises:
        NotAnImage: there is no such file, or it is none.
    """
    if not cell or not cell.strip():
        raise picture.NotAnImage("no file")
    image = picture.read(folder / path_of(cell.strip()))
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("L", "P", *picture.DEEP):
        return np.asarray(image)
    if image.mode == "LA":
        return np.asarray(image)[..., 0]
    values = np.asarray(image.convert("RGB"))
    grey = (values == values[..., :1]).all()
    return values[..., 0] if grey else values


def _from_values(
    values: Values, table: Mapping[int, int], ignored: frozenset[int] | set[int]
) -> tuple[Values, int | None]:
    """Class indices, and a value that is none and does not mean "not labelled"."""
    index = np.full(values.shape, VOID, dtype=np.uint8)
    for value in np.unique(values).tolist():
        if value in ignored:
            continue
        if value not in table:
            return index, value
        index[values == value] = table[value]
    return index, None


def _from_colours(values: Values, colours: Mapping[Colour, int]) -> Values:
    """Class indices; colours of no class are not labelled, as files of classes leave out what is not to be learned."""
    codes = (values.astype(np.int64) << np.array([16, 8, 0])).sum(axis=-1)
    index = np.full(codes.shape, VOID, dtype=np.uint8)
    for (red, green, blue), place in colours.items():
        index[codes == (red << 16 | green << 8 | blue)] = place
    return index


def _two(values: set[int]) -> bool:
    """Whether they are those of a mask of one thing on nothing."""
    return len(values) == 2 and 0 in values


def _listed(values: set[int]) -> str:
    shown = [str(value) for value in sorted(values)][:10]
    return ", ".join(shown) + (" …" if len(values) > len(shown) else "")
