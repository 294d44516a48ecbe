"""An image file as pixels: turned as its EXIF says, in the channels that are wanted, 16 bits scaled to 8.

What eight-bit files become is what transformers' own image pipeline makes of them (`image_utils.load_image`), so that a
model meets in use what it was trained on. Sixteen bits are scaled; Pillow's own conversion would clip nearly all to white.
"""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""Of files that are taken for images where a folder is looked through."""
DEEP = ("I;16", "I;16B", "I;16L", "I", "F")
"""Pillow's modes of more than eight bits."""
ORIENTATION, TURNS = 0x0112, range(2, 9)
"""The number of EXIF's entry, and its values where something is to be turned."""
CHANNELS = {1: "L", 3: "RGB"}
"""How many channels a network reads, and the mode for that."""


class NotAnImage(Exception):
    """The file cannot be read as an image; the message is the reason, for people."""


def read(source: Path | bytes) -> Any:
    """The first frame of a file, or of a file's content, whole, turned, in the mode that it is stored in.

    Raises:
        NotAnImage: it is damaged, cut off, far too large, or no image.
    """
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as found:
            found.load()
            return ImageOps.exif_transpose(found)
    except UnidentifiedImageError:
        raise NotAnImage("not an image of a known kind") from None
    except Image.DecompressionBombError:
        raise NotAnImage(f"image of more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except FileNotFoundError:
        raise NotAnImage("no such file") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:  # Pillow's decoders raise all of these
        cut = "truncated" in str(error) or isinstance(error, EOFError)
        raise NotAnImage("truncated image" if cut else f"damaged image ({error})") from None


def moves(content: bytes) -> bool:
    """Whether a file that `read` can read holds more than one frame or page; False where more is damaged."""
    try:
        with Image.open(BytesIO(content)) as found:  # a photograph of some cameras holds its small copy as a second one
            return found.format != "MPO" and bool(getattr(found, "is_animated", False))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error):
        return False


def turned(content: bytes) -> bool:
    """Whether `read` turns or mirrors the image, as its EXIF says."""
    with Image.open(BytesIO(content)) as found:
        return found.getexif().get(ORIENTATION) in TURNS


def converted(image: Any, channels: int) -> Any:
    """`image` with eight bits a channel and 1 (grey) or 3 (red, green, blue) channels.

    Raises:
        NotAnImage: its colours are of a kind that Pillow cannot turn into these.
    """
    if image.mode in DEEP:
        image = Image.fromarray(_eight_bits(np.asarray(image), image.mode))
    try:
        return image.convert(CHANNELS[channels])
    except ValueError:
        raise NotAnImage(f"image of the mode {image.mode}, whose colours cannot be converted") from None


def _eight_bits(values: Any, mode: str) -> Any:
    """Numbers of a deep image as bytes: those of other modes than I;16 by the range that holds them, 1, 255 or 65,535."""
    values = np.nan_to_num(np.asarray(values, dtype=np.float64))
    top = float(values.max(initial=0.0))
    fractions = top <= 1 and bool(np.any(values % 1))
    range_ = 65535 if mode.startswith("I;16") or top > 255 else 1 if fractions else 255
    return np.clip(np.rint(values * (255 / range_)), 0, 255).astype(np.uint8)
