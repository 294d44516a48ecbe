"""Draws pictures of discs, squares and triangles: FOLDER/CLASS/NUMBER.png.

python examples/image-classification/make_images.py shapes
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE, EACH = 32, 150
KINDS = {"disc": 0, "square": 4, "triangle": 3}
"""Corners; a disc has none."""


def draw(corners: int, random: np.random.Generator) -> Image.Image:
    """One shape somewhere, in a colour of its own, on noise."""
    picture = Image.fromarray(random.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8))
    x, y = random.uniform(12, SIDE - 12, 2)
    radius, colour = random.uniform(7, 11), tuple(random.integers(120, 256, 3).tolist())
    pen = ImageDraw.Draw(picture)
    if corners:
        pen.regular_polygon((x, y, radius), corners, rotation=int(random.integers(0, 360)), fill=colour)
    else:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture


def main(folder: Path) -> None:
    """All pictures, into `folder`."""
    random = np.random.default_rng(0)
    for name, corners in KINDS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(EACH):
            draw(corners, random).save(folder / name / f"{number:03}.png")
    print(f"{EACH} pictures each of {', '.join(KINDS)} are in {folder}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
