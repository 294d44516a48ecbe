"""Images with a class for each pixel, as the network takes them and as they were drawn. Knows no processor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from tunesmith.data.pixels import Pixels
from tunesmith.data.targets.masks import VOID, unpacked

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Segments(Pixels):
    """Images, perhaps with their masks. A loss counts pixels, in images: an image that is labelled all over counts 1."""

    masks: Sequence[bytes] | None
    """The mask of each image as a PNG of class indices, `VOID` where nothing is labelled; None where nothing is known."""
    sizes: npt.NDArray[np.int64]
    """(images, 2) height and width of each image as it was drawn."""

    @cached_property
    def resized(self) -> Mask:
        """(images, height, width): the masks at the size of what the network is given, each pixel's nearest."""
        assert self.masks is not None
        height, width = self.values.shape[2:]
        found = np.empty((self.rows, height, width), dtype=np.uint8)
        for place, mask in enumerate(self.masks):
            image = Image.fromarray(unpacked(mask))
            found[place] = np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
        return found

    @cached_property
    def labelled(self) -> npt.NDArray[np.float64]:
        """(images,) the share of each image's pixels that are labelled, at the size of what the network is given."""
        return np.asarray((self.resized != VOID).mean(axis=(1, 2)))

    def truth(self, indices: Indices) -> Mask:
        """(len(indices), height, width): the masks of these examples, at the size of what the network is given."""
        return self.resized[indices]

    def drawn(self, row: int) -> Mask:
        """(height, width): the mask of an image, at its own size."""
        assert self.masks is not None
        return unpacked(self.masks[row])

    def count(self, indices: Indices) -> float:
        return float(self.labelled[indices].sum())


def keyed(pixels: Pixels, masks: Sequence[bytes] | None, sizes: npt.NDArray[np.int64]) -> Segments:
    """`pixels` with their masks."""
    digest = hashlib.blake2b(pixels.key.encode(), digest_size=16)
    for mask in masks or ():
        digest.update(mask)
    return Segments(pixels.values, pixels.scale, pixels.shift, None, digest.hexdigest(), masks, sizes)
