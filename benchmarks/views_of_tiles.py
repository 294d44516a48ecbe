"""Views of things, for image-similarity: crops of each image of a table of images, mirrored, lighter or darker, with noise.

    python benchmarks/views_of_tiles.py DATA/magnetic-tile VIEWS --views 5

writes VIEWS/NAME/0.png and so on, a folder for each image: what `tunesmith train --task image-similarity --data VIEWS` reads.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 96
LEAST, MOST = 0.6, 0.8
"""Of the image's sides: what a view shows."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path, help="folder with splits.csv: the columns file and tile")
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--views", type=int, default=5)
    wanted = arguments.parse_args()
    draw = np.random.default_rng(0)
    with open(wanted.table / "splits.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        with Image.open(wanted.table / row["file"]) as image:
            whole = image.convert("L")
        for view in range(wanted.views):
            file = wanted.out / row["tile"] / f"{view}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_view(whole, draw)).save(file)
    print(f"{len(rows):,} things, {wanted.views} views of each: {wanted.out}")


def _view(image: Image.Image, draw: np.random.Generator) -> np.ndarray:
    share = draw.uniform(LEAST, MOST)
    width, height = int(image.width * share), int(image.height * share)
    left, top = draw.integers(0, image.width - width + 1), draw.integers(0, image.height - height + 1)
    part = image.crop((left, top, left + width, top + height)).resize((SIDE, SIDE))
    values = np.asarray(part, dtype=np.float64) * draw.uniform(0.85, 1.15) + draw.normal(0, 4, (SIDE, SIDE))
    if draw.random() < 0.5:
        values = values[:, ::-1]
    return np.clip(values, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
