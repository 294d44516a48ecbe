"""Boxes: where in an image each object lies, and of which class it is.

Every cell becomes corners in pixels inside the image, whatever form the files spell them in. A box that cannot be learned
is set aside with its reason, and the others of its image stay; an image without any object is a good one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.cells import Place
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.data.targets.box_cells import Box, BoxFormat, Corners, boxes_of, size_of
from tunesmith.data.targets.classes import natural
from tunesmith.data.targets.masks import read_classes
from tunesmith.errors import DataError, SettingsError
from tunesmith.run import path_of

KIND = pa.struct(
    [
        ("boxes", pa.list_(pa.float64())),  # left, top, right, bottom of one after the other
        ("classes", pa.list_(pa.int64())),  # one a box
        ("ignored", pa.list_(pa.float64())),  # those that are neither learned nor counted: crowds, difficult ones
        ("ignored_classes", pa.list_(pa.int64())),
        ("cut", pa.int64()),  # how many reached out of the image
        ("set_aside", pa.list_(pa.string())),  # why, one a box
    ]
)
PROBLEM = "boxes"
ROUNDING = 0.5
"""Pixels by which a box may reach out of its image without a word."""
LEAST = 1.0
"""Pixels of width and of height that a box has at least."""
EXAMPLES = 5


class Boxes:
    """Targets that are boxes with classes."""

    names: Sequence[str] = (
        "objects", "object", "annotations", "annotation", "boxes", "bboxes", "bbox", "labels", "label", "target",
    )  # fmt: skip
    preferred: Sequence[str] = ("objects", "boxes")
    several = False
    apart = False

    def __init__(self, classes: Sequence[str] | str | None, box_format: BoxFormat = "auto") -> None:
        """`classes`: names by index, or a file of them; those in the training rows when absent. `box_format`: how four
        numbers are read; by the key that they stand under when "auto".

        Raises:
            SettingsError: a name stands in `classes` twice.
        """
        self.classes, self.box_format = classes, box_format
        if isinstance(classes, list) and (twice := [name for name in classes if classes.count(name) > 1]):
            raise SettingsError(f"task.classes names {twice[0]!r} twice.", "Give each class a name of its own.")

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where no cell can be read, there is no box at all, or boxes are shares of the image."""
        read = [boxes_of(cell, self.box_format) for cell in raw.column.to_pylist()]
        reasons = Counter(str(one) for one in read if isinstance(one, Reason))
        if reasons and sum(reasons.values()) == len(read):
            reason, count = reasons.most_common(1)[0]
            raise DataError(
                f"No boxes of {raw.name} can be read; the commonest reason is: {reason} ({count:,} of {len(read):,}).",
                "data.target names the column of boxes.",
            )
        found = [box for one in read if isinstance(one, list) for box in one if not box.ignored]
        if not found:
            raise DataError(f"The rows of {raw.name} hold no box.", "Some images must show what is to be found.")
        sides = [abs(side) for box in found for side in box.corners if math.isfinite(side)]
        if sides and max(sides) <= 1:
            raise DataError(
                f"The boxes of {raw.name} hold no number above 1, as shares of an image would.",
                "Give them in pixels: shares times width and height.",
            )
        labels = self._named() or tuple(sorted({box.name for box in found}, key=natural))
        numbered = self.classes is not None and not any(name.isdecimal() for name in labels)
        return Settled(PROBLEM, labels, {"numbered": numbered})

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """`boxes`: by split, how many there are, in all and an image, and what became of the others."""
        found = {split: _counted(rows) for split, rows in tables.items()}
        warnings = [warning for split, one in found.items() if (warning := _warning(split, one))]
        without, images = found["train"]["without"], tables["train"].num_rows
        if 2 * without > images:
            warnings.append(f"train: {without:,} of {images:,} images have no box.")
        return {"boxes": found}, warnings

    def reading(self, place: Place, settled: Settled) -> Reading:
        index = {name: number for number, name in enumerate(settled.labels)}
        if settled.coding["numbered"]:  # cells may say classes by their place in task.classes
            index = {str(number): number for number in index.values()} | index

        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            cells = (rows.column(name).to_pylist() for name in ("raw", "width", "height"))
            for cell, width, height in zip(*cells, strict=True):
                read = boxes_of(cell, self.box_format)
                if isinstance(read, Reason):
                    yield read
                elif (size := size_of(cell)) not in (None, (width, height)):
                    # Scaled since, or turned by its EXIF: nobody knows where the boxes would lie.
                    yield Reason(f"boxes of {_times(size)} pixels for an image of {_times((width, height))}")
                else:
                    yield self._value(read, index, width, height)

        return Reading(KIND, values)

    def _named(self) -> tuple[str, ...]:
        if isinstance(self.classes, str):
            return tuple(read_classes(path_of(self.classes)))
        return tuple(self.classes or ())

    def _value(self, read: Sequence[Box], index: Mapping[str, int], width: int, height: int) -> dict[str, Any] | Reason:
        """The boxes of one image as `KIND` has them, or which class is unknown."""
        unknown = next((box.name for box in read if not box.ignored and box.name not in index), None)
        if unknown is not None:
            who = "no training row has" if self.classes is None else "task.classes does not name"
            return Reason(f"label {unknown!r}, which {who}")
        boxes: dict[tuple[bool, int, Corners], None] = {}
        cut, set_aside = 0, []
        for box in read:
            if box.name not in index:
                set_aside.append("ignored, and of an unknown class")
                continue
            corners = _inside(box.corners, width, height)
            if isinstance(corners, Reason):
                set_aside.append(str(corners))
            elif (box.ignored, index[box.name], corners) in boxes:
                set_aside.append("stands there twice")
            else:
                boxes[box.ignored, index[box.name], corners] = None
                cut += _excess(box.corners, width, height) > ROUNDING
        return {
            "boxes": [side for ignored, _, corners in boxes if not ignored for side in corners],
            "classes": [label for ignored, label, _ in boxes if not ignored],
            "ignored": [side for ignored, _, corners in boxes if ignored for side in corners],
            "ignored_classes": [label for ignored, label, _ in boxes if ignored],
            "cut": cut,
            "set_aside": set_aside,
        }


def _times(size: tuple[int, int] | None) -> str:
    return " × ".join(map(str, size or ()))


def _inside(corners: Corners, width: int, height: int) -> Corners | Reason:
    """The part of a box that lies in the image, or why nothing can be learned from it."""
    left, top, right, bottom = corners
    if not all(map(math.isfinite, corners)):
        return Reason("not a number")
    if right <= left or bottom <= top:
        return Reason("no area")
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        return Reason("outside the image")
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if right - left < LEAST or bottom - top < LEAST:
        return Reason("less than a pixel wide or high")
    return left, top, right, bottom


def _excess(corners: Corners, width: int, height: int) -> float:
    """Pixels by which a box reaches out of the image, on the side where it does most; below 0 where it does on none."""
    left, top, right, bottom = corners
    return max(-left, -top, right - width, bottom - height)


def _counted(rows: pa.Table) -> dict[str, Any]:
    """What one split has of boxes."""
    target = rows.column("target")
    counts = pc.list_value_length(pc.struct_field(target, "classes")).to_numpy()
    set_aside = pc.struct_field(target, "set_aside")
    some = np.flatnonzero(pc.list_value_length(set_aside).to_numpy())[:EXAMPLES]
    pairs = zip(rows.column("id").take(some).to_pylist(), set_aside.take(some).to_pylist(), strict=True)
    least, median, most = map(float, np.quantile(counts, [0, 0.5, 1]))
    return {
        "boxes": int(counts.sum()),
        "a_image": {"min": least, "median": median, "max": most},
        "without": int((counts == 0).sum()),
        "ignored": int(pc.sum(pc.list_value_length(pc.struct_field(target, "ignored_classes"))).as_py()),
        "cut": int(pc.sum(pc.struct_field(target, "cut")).as_py()),
        "set_aside": dict(Counter(pc.list_flatten(set_aside).to_pylist()).most_common()),
        "examples": [[name, reason] for name, reasons in pairs for reason in reasons][:EXAMPLES],
    }


def _warning(split: str, counted: Mapping[str, Any]) -> str:
    """What was changed of the boxes of a split, as a sentence; empty where nothing was."""
    cut, set_aside = counted["cut"], sum(counted["set_aside"].values())
    told = []
    if cut:
        one = cut == 1
        told.append(
            f"{cut:,} box{'' if one else 'es'} reached out of {'its' if one else 'their'} image and "
            f"{'was' if one else 'were'} cut to it"
        )
    if set_aside:
        what = "" if cut else f" box{'' if set_aside == 1 else 'es'}"
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counted["set_aside"].items())
        told.append(f"{set_aside:,}{what} {'was' if set_aside == 1 else 'were'} set aside ({reasons})")
    return f"{split}: {'; '.join(told)}." if told else ""
