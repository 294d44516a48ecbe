"""Images as the network takes them, all of one size, compact: bytes and what makes numbers of them. Knows no processor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

PIXELS_A_TOKEN = 256
"""What a patch of 16 × 16 is to a vision transformer; so one bound on tokens fits texts and images of any size."""


def cost(height: int, width: int) -> int:
    """What an image counts against a bound on tokens."""
    return max(1, height * width // PIXELS_A_TOKEN)


@dataclass(frozen=True)
class Pixels:
    """Images, ready to be put into batches."""

    values: npt.NDArray[Any]
    """(images, channels, height, width): bytes, or numbers that need no more scaling; may lie in a mapped file."""
    scale: npt.NDArray[np.float32]
    """(channels,) factor, and"""
    shift: npt.NDArray[np.float32]
    """(channels,) summand that turn `values` into what the network takes."""
    targets: npt.NDArray[Any] | None
    """(images,) class index or score, or (images, labels) of 0 and 1; None where nothing is known."""
    key: str
    """A checksum over the files and how they were read."""

    @property
    def rows(self) -> int:
        return len(self.values)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(images,) the cost of each, the same for all."""
        return np.full(len(self), cost(*self.values.shape[2:]), dtype=np.int64)

    @property
    def read_lengths(self) -> npt.NDArray[np.int64]:
        """(images,) the same: what the first blocks see is all that an image costs."""
        return self.lengths

    @cached_property
    def owner(self) -> npt.NDArray[np.int64]:
        """(images,) each image is a row of its own."""
        return np.arange(len(self), dtype=np.int64)

    @cached_property
    def weights(self) -> npt.NDArray[np.float32]:
        """(images,) ones; of several views an epoch passes one."""
        return np.ones(len(self), dtype=np.float32)

    def count(self, indices: npt.NDArray[np.int64]) -> float:
        return float(len(indices))

    def batch(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(len(indices), channels, height, width), scaled as the network takes it."""
        return self.scaled(self.values[indices].astype(np.float32))

    def scaled(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(images, channels, height, width) of some of `values` as the network takes them."""
        found: npt.NDArray[np.float32] = values * self.scale[:, None, None]
        found += self.shift[:, None, None]
        return found
