"""What a cell says of boxes, in the forms that data sets are spelled in. Knows neither the image nor the classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from tunesmith.data.targets import Reason

BoxFormat = Literal["auto", "corners", "xywh"]
"""How four numbers are read: left, top, right, bottom; or left, top, width, height; or as the key they stand under says."""
BOXES: Mapping[str, BoxFormat] = {
    "boxes": "corners", "box": "corners", "bndbox": "corners", "bbox": "xywh", "bboxes": "xywh",
}  # fmt: skip
"""Keys of boxes, and how four numbers under each are read."""
SIDES = ("xmin", "ymin", "xmax", "ymax")
CLASSES = (
    "label", "labels", "category", "categories", "class", "classes", "name", "category_name", "class_name",
    "category_id", "class_id",
)  # fmt: skip
"""Keys of a box's class, best first."""
IGNORED = ("ignored", "iscrowd", "is_crowd", "difficult")
"""Keys that say of a box that it is neither learned nor counted."""
NOT_A_NUMBER = float("nan")
Corners = tuple[float, float, float, float]


class Box(NamedTuple):
    """One object, as the cell says it."""

    corners: Corners
    """Left, top, right, bottom in pixels; what is no number is NaN."""
    name: str
    ignored: bool


class _Wrong(Exception):
    """The cell cannot be read; the message is the reason, for people."""


def boxes_of(cell: str | None, box_format: BoxFormat) -> list[Box] | Reason:
    """The boxes in a cell of JSON, in one of these forms, or why there are none:

    - lists side by side: `{"boxes": [[0, 0, 9, 9]], "labels": ["cat"]}` or `{"bbox": [[0, 0, 9, 9]], "category": [1]}`
    - a list of mappings: `[{"bbox": [0, 0, 9, 9], "label": "cat"}]`, `[{"box": {"xmin": 0, …}, "label": "cat"}]` or
      `[{"xmin": 0, "ymin": 0, "xmax": 9, "ymax": 9, "label": "cat"}]`
    - one of those mappings by itself
    """
    if cell is None or not cell.strip():
        return Reason("no boxes")
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):  # a number of thousands of digits is a plain ValueError
        return Reason("boxes that are not JSON")
    try:
        return _read(found, box_format)
    except _Wrong as wrong:
        return Reason(str(wrong))


def size_of(cell: str | None) -> tuple[int, int] | None:
    """Width and height of the image that a readable cell is about, where it says so: `{"size": [640, 480], …}`."""
    found = json.loads(cell) if cell else None
    size = found.get("size") if isinstance(found, dict) else None
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        return None
    return size[0], size[1]


def _read(found: Any, box_format: BoxFormat) -> list[Box] | Reason:
    if isinstance(found, dict):
        if found and all(value is None for value in found.values()):  # what a table makes of an empty cell
            return Reason("no boxes")
        found = _apart(found)
    if found is None:
        return Reason("no boxes")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return Reason('boxes that are neither {"boxes": […], "labels": […]} nor a list of {"bbox": […], "label": …}')
    return [Box(_corners(one, box_format), _name(one), _ignored(one)) for one in found]


def _apart(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One mapping a box, of a mapping that holds lists side by side."""
    key = _key(found)
    boxes = found[key] if key else None
    if key is None or not isinstance(boxes, list) or any(not isinstance(box, list | dict) for box in boxes):
        return [found]
    beside = {name: found[name] for name in (*CLASSES, *IGNORED) if found.get(name) is not None}
    for name, values in beside.items():
        if not isinstance(values, list) or len(values) != len(boxes):
            count = f"{len(values):,}" if isinstance(values, list) else "no list"
            raise _Wrong(f"{len(boxes):,} in {key!r}, but {count} in {name!r}")
    return [{key: box} | {name: values[place] for name, values in beside.items()} for place, box in enumerate(boxes)]


def _key(found: Mapping[str, Any]) -> str | None:
    return next((key for key in BOXES if found.get(key) is not None), None)


def _corners(one: Mapping[str, Any], box_format: BoxFormat) -> Corners:
    key = _key(one)
    box = one[key] if key else one
    if isinstance(box, Mapping):
        if absent := next((side for side in SIDES if side not in box), None):
            sides = key or any(side in box for side in SIDES)
            raise _Wrong(f"box without {absent!r}" if sides else "object without a box")
        left, top, right, bottom = (_number(box[side]) for side in SIDES)
        return left, top, right, bottom
    if not isinstance(box, list) or len(box) != 4:
        raise _Wrong("box that is not of four numbers")
    left, top, right, bottom = map(_number, box)
    if (BOXES[key or "box"] if box_format == "auto" else box_format) == "xywh":
        return left, top, left + right, top + bottom
    return left, top, right, bottom


def _number(value: Any) -> float:
    if isinstance(value, list | dict):
        raise _Wrong("box that is not of four numbers")
    try:
        return NOT_A_NUMBER if value is None or isinstance(value, bool) else float(value)
    except (ValueError, OverflowError):
        return NOT_A_NUMBER


def _name(one: Mapping[str, Any]) -> str:
    """The class; a whole number as text."""
    value = next((one[key] for key in CLASSES if one.get(key) is not None), None)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str | None):
        raise _Wrong("class that is neither a name nor a whole number")
    name = "" if value is None else str(value).strip()
    if not name:
        raise _Wrong("box without a class")
    return name


def _ignored(one: Mapping[str, Any]) -> bool:
    return any(str(one.get(key)).strip().lower() in ("1", "1.0", "true") for key in IGNORED)
