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
    resized: Mask | None
    """(images, height, width): the masks at the size of what the network is given; may lie in a mapped file."""
    sizes: npt.NDArray[np.int64]
    """(images, 2) height and width of each image as it was drawn."""

    @cached_property
    def labelled(self) -> npt.NDArray[np.float64]:
        """(images,) the share of each image's pixels that are labelled, at the size of what the network is given."""
        assert self.resized is not None
        return np.array([(mask != VOID).mean() for mask in self.resized])

    def truth(self, indices: Indices) -> Mask:
        """(len(indices), height, width): the masks of these examples, at the size of what the network is given."""
        assert self.resized is not None
        return self.resized[indices]

    def drawn(self, row: int) -> Mask:
        """(height, width): the mask of an image, at its own size."""
        assert self.masks is not None
        return unpacked(self.masks[row])

    def count(self, indices: Indices) -> float:
        return float(self.labelled[indices].sum())


def resize(masks: Sequence[bytes], into: Mask) -> None:
    """Put `masks` into an array (images, height, width), each pixel the nearest of the mask as it was drawn."""
    height, width = into.shape[1:]
    for place, mask in enumerate(masks):
        image = Image.fromarray(unpacked(mask))
        into[place] = np.asarray(image.resize((width, height), Image.Resampling.NEAREST))


def key_of(pixels: Pixels, masks: Sequence[bytes]) -> str:
    """A checksum over images and masks."""
    digest = hashlib.blake2b(pixels.key.encode(), digest_size=16)
    for mask in masks:
        digest.update(mask)
    return digest.hexdigest()
