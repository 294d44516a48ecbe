"""Images with boxes in them, as shares of the image, whatever size the network is given. Knows no processor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.pixels import Pixels

Indices = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Boxed(Pixels):
    """Images, perhaps with their boxes. A loss counts boxes; an image without any counts as one with a single box."""

    boxes: Sequence[Shares] | None
    """Of each image (boxes, 4): centre from the left and from the top, width, height, as shares of the image; None where
    nothing is known."""
    classes: Sequence[Indices] | None
    """Of each image (boxes,): class indices."""
    ignored: Sequence[Shares] | None
    """Boxes that are neither learned nor counted, in the form of `boxes`, and"""
    ignored_classes: Sequence[Indices] | None
    """their class indices."""
    sizes: Indices
    """(images, 2) height and width of each image as the files have it."""

    @cached_property
    def counts(self) -> Shares:
        """(images,) what each counts."""
        found = [len(classes) for classes in self.classes] if self.classes is not None else np.ones(len(self))
        return np.maximum(found, 1.0)

    def count(self, indices: Indices) -> float:
        return float(self.counts[indices].sum())

    def truth(self, indices: Indices) -> list[tuple[Shares, Indices]]:
        """Boxes and classes of these examples."""
        assert self.boxes is not None
        assert self.classes is not None
        return [(self.boxes[index], self.classes[index]) for index in indices]


def boxed(pixels: Pixels, targets: Sequence[Mapping[str, Any]] | None, sizes: Indices) -> Boxed:
    """`pixels` with their boxes.

    Args:
        targets: values as `targets.boxes.KIND` has them; None where nothing is known.
        sizes: (images, 2) height and width of each image, in the pixels of `targets`.
    """
    base = (pixels.values, pixels.scale, pixels.shift, pixels.targets)
    if targets is None:
        return Boxed(*base, pixels.key, None, None, None, None, sizes)
    boxes, ignored = (
        [shares(target[part], size) for target, size in zip(targets, sizes, strict=True)]
        for part in ("boxes", "ignored")
    )
    classes, ignored_classes = (
        [np.asarray(target[part], dtype=np.int64) for target in targets] for part in ("classes", "ignored_classes")
    )
    parts = (boxes, classes, ignored, ignored_classes)
    return Boxed(*base, _key(pixels.key, parts), *parts, sizes)


def shares(corners: Sequence[float], size: Indices) -> Shares:
    """(boxes, 4) centres, widths and heights as shares, of the corners of one box after the other in pixels.

    Args:
        size: (2,) height and width of the image.
    """
    height, width = size
    found = np.asarray(corners, dtype=np.float64).reshape(-1, 2, 2) / (width, height)
    return np.concatenate([found.mean(axis=1), found[:, 1] - found[:, 0]], axis=1)


def _key(key: str, parts: Sequence[Sequence[npt.NDArray[Any]]]) -> str:
    """A checksum over images and boxes."""
    digest = hashlib.blake2b(key.encode(), digest_size=16)
    for part in parts:
        digest.update(np.array([len(one) for one in part], dtype=np.int64).tobytes())
        for one in part:
            digest.update(one.tobytes())
    return digest.hexdigest()
