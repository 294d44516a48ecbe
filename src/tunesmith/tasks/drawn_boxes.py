"""Boxes as people look at them: drawn into the image, each class in a colour of its own, its name where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw, ImageFont

from tunesmith.tasks.overlays import colour

SIDE = 320
"""Pixels of the longer side."""
LINE = 2
"""Pixels."""
SIZE = 11
"""Of letters."""
MIDDLE = 140
"""Of 255: what is lighter than that bears black letters."""


def drawn(
    image: Any, corners: npt.NDArray[np.float64], classes: npt.NDArray[np.int64], names: Sequence[str], side: int = SIDE
) -> Any:
    """A small copy of `image` with boxes, (n, 4) in its pixels.

    Args:
        names: what is written at each box; nothing where it is empty.
        side: pixels of the longer side.
    """
    small = image.convert("RGB")
    small.thumbnail((side, side))
    scale = np.tile([small.width / image.width, small.height / image.height], 2)
    pen, font = ImageDraw.Draw(small), ImageFont.load_default(SIZE)
    lines = [" ".join(name.split()) for name in names]
    for box, index, name in zip(corners * scale, classes.tolist(), lines, strict=True):
        left, top, right, bottom = (round(float(end)) for end in box)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour(index), width=LINE)
        width = pen.textlength(name, font=font)
        if name and width + 2 * LINE <= right - left:
            pen.rectangle((left, top, left + width + 2 * LINE, top + SIZE + LINE), fill=colour(index))
            pen.text((left + LINE, top), name, fill=_readable(colour(index)), font=font)
    return small


def _readable(ground: tuple[int, int, int]) -> str:
    """Black on what is light, white on what is dark (by the luma of ITU-R BT.601)."""
    red, green, blue = ground
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > MIDDLE else "white"
