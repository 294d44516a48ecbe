"""Masks: an image for each image, whose pixels say which class lies there, by number or by colour.

Every mask becomes one of class indices, kept in the row itself as a small PNG, so that from here on nobody asks how the
files spelled them. Pixels that are not labelled are `VOID`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
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
from tunesmith.data.cells import Place
from tunesmith.data.parallel import ordered
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.errors import DataError, SettingsError
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
HEADER = {
    "name",
    "class",
    "label",
    "class_name",
    "id",
    "index",
    "r",
    "g",
    "b",
    "red",
    "green",
    "blue",
    "color",
    "colour",
}
"""Words that the first line of a file of classes may consist of, where it names columns."""
NO_COLOURS = "mask of colours, and no file says which class each stands for"
LOSSY_SUFFIXES = (".jpg", ".jpeg")
BLURRED, BETWEEN = 48, 0.05
"""In a JPEG, pixels of black and white lie so near to these, but for a share at edges."""
WORKERS = min(8, os.cpu_count() or 1)
Values = npt.NDArray[Any]


class Masks:
    """Targets that are masks."""

    names: Sequence[str] = (
        "mask", "masks", "label", "labels", "segmentation", "annotation", "mask_path", "seg_map", "target",
    )  # fmt: skip
    preferred: Sequence[str] = ("mask", "label")
    several = False
    apart = False

    def __init__(self, classes: Sequence[str] | str | None, ignore: Sequence[int]) -> None:
        """`classes`: names by index, or a file of them; looked for beside the data when absent. `ignore`: values that mean
        "not labelled".

        Raises:
            SettingsError: a name stands in `classes` twice.
        """
        self.classes, self.ignore = classes, frozenset(ignore)
        if isinstance(classes, list) and (twice := [name for name in classes if classes.count(name) > 1]):
            raise SettingsError(f"task.classes names {twice[0]!r} twice.", "Give each class a name of its own.")

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where no mask can be read, or there is one class only."""
        named, where = self._named(raw.place.folder)
        colours = [colour for colour in named.values() if colour is not None]
        values, guesses = self._values(raw, coloured=bool(colours)), []
        if where is not None:
            guesses.append(f"The classes are those of {where} (task.classes names others).")
        if any(map(_lossy, raw.column.to_pylist())):
            guesses.append("Masks in JPEGs, which change values, are read as black (0) and white (255).")
        labels, table = tuple(named), {index: index for index in range(len(named))}
        if _two(values) and len(labels) in (0, 2):
            labels, table = labels or BINARY, {0: 0, max(values): 1}
            if not named:
                told = f"Masks hold {_listed(values)}: read as background and object"
                guesses.append(f"{told} (task.classes names them).")
        elif not labels:
            labels, table = (
                tuple(map(str, sorted(values))),
                {value: index for index, value in enumerate(sorted(values))},
            )
            told = f"Classes are called by the values that masks hold: {_listed(values)}"
            guesses.append(f"{told} (task.classes names them).")
        if len(labels) < 2:
            only = f"only the class {labels[0]!r}" if labels else "no class"
            raise DataError(f"The masks of {raw.name} hold {only}.", "At least two are needed to tell apart.")
        if len(labels) > MOST_CLASSES:
            raise DataError(
                f"The masks of {raw.name} hold {len(labels):,} classes.", f"Up to {MOST_CLASSES} can be told apart."
            )
        coding = {
            "values": [[value, index] for value, index in table.items()],
            "colours": [[*colour, index] for index, colour in enumerate(named.values()) if colour is not None],
        }
        return Settled(PROBLEM, labels, coding, tuple(guesses))

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """`pixels`: by split, the share of the labelled pixels that each class has, and the share that is labelled."""
        found = {}
        for split, rows in tables.items():
            counts = np.zeros(VOID + 1, dtype=np.int64)
            for target in rows.column("target").to_pylist():
                counts += np.bincount(unpacked(target["mask"]).reshape(-1), minlength=VOID + 1)
            known = max(1, int(counts[:VOID].sum()))
            shares = {label: float(counts[index] / known) for index, label in enumerate(labels)}
            found[split] = {"labelled": float(known / max(1, int(counts.sum()))), "classes": shares}
        return {"pixels": found}, []

    def reading(self, place: Place, settled: Settled) -> Reading:
        table = dict(map(tuple, settled.coding["values"]))
        colours = {(red, green, blue): index for red, green, blue, index in settled.coding["colours"]}
        read = partial(self._read, place.folder, table, colours)

        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            cells = zip(*(rows.column(name).to_pylist() for name in ("raw", "width", "height")), strict=True)
            yield from ordered(lambda cell: read(*cell), cells, WORKERS)

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

    def _values(self, raw: Raw, *, coloured: bool) -> set[int]:
        """Values of all masks of one channel, those that mean nothing left out.

        Args:
            coloured: whether classes have colours.

        Raises:
            DataError: not one mask can be read.
        """

        def one(cell: str | None) -> set[int] | str:
            try:
                values = _pixels(raw.place.folder, cell, coloured=coloured)
            except picture.NotAnImage as error:
                return "no mask" if not cell else f"{error} ({cell})"
            if values.ndim == 2:
                return set(np.unique(values).tolist())
            return set() if coloured else f"{NO_COLOURS} ({cell})"

        read = list(ordered(one, raw.column.to_pylist(), WORKERS))
        reasons = Counter(str(found).rpartition(" (")[0] or found for found in read if isinstance(found, str))
        if sum(reasons.values()) == len(read) and read:
            reason, count = reasons.most_common(1)[0]
            example = next(found for found in read if isinstance(found, str) and found.startswith(str(reason)))
            raise DataError(
                f"No mask of {raw.name} can be read; the commonest reason is: {example} ({count:,} of {len(read):,}).",
                "Paths of masks start where the table, or the folder, lies.",
            )
        found = set().union(*(one for one in read if isinstance(one, set))) - self.ignore
        return found if _two(found) else found - {VOID}

    def _read(
        self,
        folder: Path,
        table: Mapping[int, int],
        colours: Mapping[Colour, int],
        cell: str | None,
        width: int,
        height: int,
    ) -> Any:
        try:
            values = _pixels(folder, cell, coloured=bool(colours))
        except picture.NotAnImage as error:
            return Reason("no mask" if not cell else f"mask: {error}")
        if values.shape[:2] != (height, width):
            found = f"{values.shape[1]} × {values.shape[0]}"
            return Reason(f"mask of {found} pixels for an image of {width} × {height}")
        if values.ndim == 3:
            if not colours:
                return Reason(f"{NO_COLOURS} (task.classes)")
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
        return {"mask": packed(index), "classes": present, "file": cell}


def read_classes(file: Path) -> dict[str, Colour | None]:
    """Names of classes by line, perhaps each with its number first, and the three numbers of its colour after or before it.

    Raises:
        DataError: it cannot be read, or a name or a colour stands there twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The file of classes {file} cannot be read: {error}.", "task.classes names another.") from None
    split = [[part for part in re.split(r"[,;:\t ]+", line.strip()) if part] for line in lines]
    rows = [parts for parts in split if parts and not parts[0].startswith("#")]
    if rows and len(rows[0]) > 1 and {part.lower() for part in rows[0]} <= HEADER:
        rows = rows[1:]
    taken = [_apart(parts) for parts in rows]
    numbered = all(len(words) > 1 and words[0] == str(index) for index, (words, _) in enumerate(taken))
    found: dict[str, Colour | None] = {}
    for words, colour in taken:
        name = " ".join(words[1:] if numbered else words)
        if name in found:
            raise DataError(f"The file of classes {file} names {name!r} twice.", "Give each class a name of its own.")
        if colour is not None and colour in found.values():
            raise DataError(f"The file of classes {file} gives one colour to two classes: {colour}.", "Change one.")
        found[name] = colour
    if not found:
        raise DataError(f"The file of classes {file} names none.", "Write one name a line.")
    return found


def _apart(parts: list[str]) -> tuple[list[str], Colour | None]:
    """The words of a line, and the colour that ends or begins it."""
    for numbers, words in ((parts[-3:], parts[:-3]), (parts[:3], parts[3:])):
        if words and all(re.fullmatch(r"[0-9]{1,3}", part) and int(part) < 256 for part in numbers):
            red, green, blue = map(int, numbers)
            return words, (red, green, blue)
    return parts, None


def packed(index: Values) -> bytes:
    """A mask of class indices, (height, width), as a PNG."""
    content = BytesIO()
    Image.fromarray(index.astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def unpacked(content: bytes) -> npt.NDArray[np.uint8]:
    """(height, width): the mask that `packed` kept."""
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image, dtype=np.uint8)


def _pixels(folder: Path, cell: str | None, *, coloured: bool) -> Values:
    """(height, width) of whole numbers, or (height, width, 3) of colours.

    Args:
        coloured: whether classes have colours, so that grey ones are colours too.

    Raises:
        NotAnImage: there is no such file, it is none, it holds fractions, or values that its kind of file does not keep.
    """
    if not cell or not cell.strip():
        raise picture.NotAnImage("no file")
    image = picture.read(folder / path_of(cell.strip()))
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if _lossy(cell):
        return _black_and_white(np.asarray(image.convert("L")))
    if image.mode in ("L", "P"):
        return np.asarray(image)
    if image.mode in picture.DEEP:
        values = np.asarray(image)
        if not np.array_equal(values, np.rint(values)):
            raise picture.NotAnImage("mask of fractions, where each value stands for a class")
        return values.astype(np.int64)
    if image.mode == "LA":
        return np.asarray(image)[..., 0]
    values = np.asarray(image.convert("RGB"))
    grey = not coloured and (values == values[..., :1]).all()
    return values[..., 0] if grey else values


def _lossy(cell: str | None) -> bool:
    """Whether a mask's file keeps values only nearly."""
    return (cell or "").strip().lower().endswith(LOSSY_SUFFIXES)


def _black_and_white(values: Values) -> Values:
    """A mask of black and white whose values are nearly these.

    Raises:
        NotAnImage: it holds others, which may have been any.
    """
    if bool(((values > BLURRED) & (values < 255 - BLURRED)).mean() > BETWEEN):
        raise picture.NotAnImage("mask in a JPEG, which changes the values that stand for classes: save masks as PNG")
    return np.where(values > 127, 255, 0).astype(np.uint8)


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
