"""Images in several views: the first as they are, the others varied at random, each the same whenever it is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from tunesmith import seeds
from tunesmith.data.pixels import Pixels
from tunesmith.data.segments import Segments
from tunesmith.data.targets.masks import VOID
from tunesmith.models import augment
from tunesmith.models.augment import Augment

Indices = npt.NDArray[np.int64]


class _Views(Pixels):
    """Example v · rows + i is view v of image i."""

    how: Augment
    views: int
    seed: int

    def __len__(self) -> int:
        return self.views * self.rows

    @cached_property
    def owner(self) -> Indices:
        """(examples,) the image that each is a view of; not ascending."""
        return np.tile(np.arange(self.rows, dtype=np.int64), self.views)

    def batch(self, indices: Indices) -> npt.NDArray[np.float32]:
        rows = indices % self.rows
        found = super().batch(rows)
        varied, drawn = self._drawn(indices)
        if drawn:
            raw = self.values[rows[varied]].astype(np.float32)
            low, span = self._range(raw)
            changed = augment.apply(torch.from_numpy((raw - low) / span), drawn).numpy() * span + low
            found[varied] = changed * self.scale[:, None, None] + self.shift[:, None, None]
        return found

    def _drawn(self, indices: Indices) -> tuple[Indices, list[augment.Drawn]]:
        """Which of the examples `indices` are varied, by their place among these, and what each goes through."""
        views, rows = np.divmod(indices, self.rows)
        varied = np.flatnonzero(views)
        channels, height, width = self.values.shape[1:]
        return varied, [
            augment.draw(self.how, height, width, channels, seeds.generator(self.seed, "view", int(view), int(row)))
            for view, row in zip(views[varied], rows[varied], strict=True)
        ]

    def _range(self, raw: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(images, 1, 1, 1) each: where colours begin, and how far they reach: those of bytes, or of the image itself."""
        if self.values.dtype == np.uint8:
            return np.zeros((len(raw), 1, 1, 1), dtype=np.float32), np.full((len(raw), 1, 1, 1), 255, dtype=np.float32)
        low, high = (end(axis=(1, 2, 3), keepdims=True) for end in (raw.min, raw.max))
        return low, np.where(high > low, high - low, np.float32(1))


@dataclass(frozen=True)
class VariedPixels(_Views):
    """Images in several views."""

    how: Augment
    views: int
    seed: int


@dataclass(frozen=True)
class VariedSegments(_Views, Segments):
    """Images with masks, which move with them."""

    how: Augment
    views: int
    seed: int

    def truth(self, indices: Indices) -> npt.NDArray[np.uint8]:
        found = super().truth(indices % self.rows)
        varied, drawn = self._drawn(indices)
        if drawn:
            masks = torch.from_numpy(found[varied].astype(np.float32))[:, None]
            found[varied] = (
                augment.warp(masks, [one.matrix for one in drawn], nearest=True)[:, 0].numpy().astype(np.uint8)
            )
        return found

    def count(self, indices: Indices) -> float:
        return float((self.truth(indices) != VOID).mean(axis=(1, 2)).sum())


def varied(images: Pixels, how: Augment, views: int, seed: int) -> VariedPixels:
    """`images` in so many views."""
    key = _key(images, how, views, seed)
    return VariedPixels(images.values, images.scale, images.shift, images.targets, key, how, views, seed)


def varied_segments(images: Segments, how: Augment, views: int, seed: int) -> VariedSegments:
    """`images` in so many views, their masks moved with them."""
    key = _key(images, how, views, seed)
    return VariedSegments(
        images.values,
        images.scale,
        images.shift,
        None,
        key,
        images.masks,
        images.resized,
        images.sizes,
        how,
        views,
        seed,
    )


def _key(images: Pixels, how: Augment, views: int, seed: int) -> str:
    text = f"{images.key}/{how.model_dump_json()}/{views}/{seed}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
