"""Masks as people look at them: each class in a colour of its own, laid over the image."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tunesmith.data.targets.masks import VOID

Mask = npt.NDArray[np.uint8]
OPACITY = 0.6
SIDE = 200
"""Pixels of the longer side."""
GOLDEN = 0.618034
"""Of a turn: neighbours in a list of colours lie far apart."""


def colour(index: int) -> tuple[int, int, int]:
    """The colour of a class: the hue turns by the golden section, and gets lighter and darker in turns."""
    red, green, blue = colorsys.hls_to_rgb((0.58 + index * GOLDEN) % 1, (0.5, 0.62, 0.38)[index % 3], 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


def spelled(index: int) -> str:
    """The colour of a class, as a page writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour(index))


def small(image: Any) -> Any:
    """A small copy in colour."""
    found = image.convert("RGB")
    found.thumbnail((SIDE, SIDE))
    return found


def overlaid(image: Any, mask: Mask) -> Any:
    """`image` with a mask of any size over it; what is not labelled stays bare."""
    resized = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))
    colours = np.array([colour(index) for index in range(int(resized[resized != VOID].max(initial=0)) + 1)])
    plain = np.asarray(image.convert("RGB")).astype(np.float64)
    known = resized != VOID
    plain[known] = (1 - OPACITY) * plain[known] + OPACITY * colours[resized[known]]
    return Image.fromarray(np.rint(plain).astype(np.uint8))


def palette_png(mask: Mask) -> Any:
    """A mask as an image with a palette, whose values are class indices and whose colours are those of the report."""
    image = Image.fromarray(mask, "P")
    image.putpalette([level for index in range(256) for level in colour(index)])
    return image
