"""A few things, each in several images, made on the spot, so that the contract tests can run in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_identities(folder: Path, identities: int = 24, each: int = 5, seed: int = 0) -> Path:
    """A folder for each thing: a pattern of its own, in noise, now lighter, now darker."""
    draw = np.random.default_rng(seed)
    for number in range(identities):
        pattern = np.kron(draw.uniform(-60, 60, (5, 5, 3)), np.ones((4, 4, 1)))
        for view in range(each):
            values = draw.uniform(110, 145) + pattern * draw.uniform(0.8, 1.2) + draw.normal(0, 25, (20, 20, 3))
            file = folder / f"thing {number:02}" / f"{view}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(file)
    return folder
