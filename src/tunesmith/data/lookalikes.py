"""Images that are the same, or nearly: the same file, or one that differs by no more than another encoding or size would.

Near ones by the difference hash (64 bits: is each cell of an 8 × 8 grid brighter than the one to its left?), found by
bands: of two hashes that differ in at most k bits, one of k + 1 bands is the same in both (Manku et al. 2007, section 3).
What the hash proposes must also be nearly as bright everywhere, so that plain surfaces, whose bits are noise, are told apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from tunesmith.data.duplicates import candidates, connected
from tunesmith.data.picture import converted

Indices = npt.NDArray[np.int64]
GRID = 16
BITS = 64
BYTES = BITS // 8 + GRID * GRID
BRIGHTNESS = 2.0
"""Levels of 255 by which two small grey copies may differ, on average over their cells: JPEG at quality 75 stays below it."""


def look(image: Any) -> bytes:
    """BYTES bytes that tell what an image looks like: its difference hash, and a small grey copy."""
    grey = converted(image, 1)
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    return bits.tobytes() + np.asarray(grey.resize((GRID, GRID), Image.Resampling.BOX), dtype=np.uint8).tobytes()


def clusters(tables: list[pa.Table], threshold: float) -> tuple[Indices, Indices]:
    """Which rows are the same file, and which look nearly the same.

    Args:
        tables: with the columns content and look; numbered one after the other.
        threshold: least share of the 64 bits that agree.

    Returns:
        Two arrays (rows of all tables,): cluster of the same files, and of lookalikes (which contains it).
    """
    contents = np.concatenate([np.asarray(table.column("content").to_pylist(), dtype=str) for table in tables])
    raw = b"".join(one for table in tables for one in table.column("look").to_pylist())
    looks = np.frombuffer(raw, dtype=np.uint8).reshape(-1, BYTES)
    _, first, exact = np.unique(contents, return_index=True, return_inverse=True)
    bits = np.unpackbits(looks[first, : BITS // 8], axis=1)
    small = looks[first, BITS // 8 :].astype(np.int16)
    most = int((1 - threshold) * BITS + 1e-9)
    root = np.arange(len(first))
    for band in np.array_split(bits, min(most + 1, BITS), axis=1):
        pairs = candidates(_numbers(band))
        one, other = pairs.T
        differing = (bits[one] != bits[other]).sum(axis=1)
        apart = np.abs(small[one] - small[other]).mean(axis=1)
        root = connected(root, pairs[(differing <= most) & (apart <= BRIGHTNESS)])
    return exact.astype(np.int64), root[exact]


def _numbers(band: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """(rows,) the bits of each row, (rows, bits), as one number."""
    weights = np.uint64(1) << np.arange(band.shape[1], dtype=np.uint64)
    return np.asarray((band.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64))
