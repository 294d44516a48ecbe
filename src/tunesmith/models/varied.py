"""Images in several views: the first as they are, the others varied at random, each the same whenever it is asked for."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tunesmith import seeds
from tunesmith.data.boxed import Boxed
from tunesmith.data.identified import Identified
from tunesmith.data.pixels import Pixels
from tunesmith.data.segments import Segments
from tunesmith.data.targets.masks import VOID
from tunesmith.models import augment
from tunesmith.models.augment import Augment

Indices = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
VISIBLE = 0.3
"""Share of a box that must stay in the image, so that one can still tell what it was."""


class _Views(Pixels):
    """Example v · rows + i is view v of image i."""

    outside: ClassVar[augment.Outside] = "reflection"
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
        values = self.values[indices % self.rows].astype(np.float32)
        found = self.scaled(values)
        varied, drawn = self._drawn(indices)
        if drawn:
            raw = values[varied]
            low, span = self._range(raw)
            changed = augment.apply(torch.from_numpy((raw - low) / span), drawn, self.outside).numpy() * span + low
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


class _Moving(_Views):
    """Images whose targets move with them, so that how much of them is left is another number in each view."""

    def count(self, indices: Indices) -> float:
        """Of each view it is found out once: a step asks several times."""
        unknown = np.unique(indices[np.isnan(self._counts[indices])])
        if len(unknown):
            self._counts[unknown] = self._count_each(unknown)
        return float(self._counts[indices].sum())

    @cached_property
    def _counts(self) -> npt.NDArray[np.float64]:
        """(examples,) what is known so far."""
        return np.full(len(self), np.nan)

    @abstractmethod
    def _count_each(self, indices: Indices) -> Array:
        """(indices,) how much of the target of each is left."""


@dataclass(frozen=True)
class VariedPixels(_Views):
    """Images in several views."""

    how: Augment
    views: int
    seed: int


@dataclass(frozen=True)
class VariedSegments(_Moving, Segments):
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

    def _count_each(self, indices: Indices) -> Array:
        return np.asarray((self.truth(indices) != VOID).mean(axis=(1, 2)))


@dataclass(frozen=True)
class VariedBoxed(_Moving, Boxed):
    """Images with boxes, which move with them; one that mostly leaves the image is no longer to be found."""

    outside: ClassVar[augment.Outside] = "zeros"
    how: Augment
    views: int
    seed: int

    def truth(self, indices: Indices) -> list[tuple[Array, Indices]]:
        found = super().truth(indices % self.rows)
        varied, drawn = self._drawn(indices)
        size = self.values.shape[2:]
        for place, one in zip(varied, drawn, strict=True):
            boxes, classes = found[place]
            found[place] = _moved(boxes, classes, one.matrix, (size[0], size[1]))
        return found

    def _count_each(self, indices: Indices) -> Array:
        return np.array([max(1, len(boxes)) for boxes, _ in self.truth(indices)])


def _moved(boxes: Array, classes: Indices, matrix: augment.Matrix, size: tuple[int, int]) -> tuple[Array, Indices]:
    """Boxes by centre and size, as shares of an image of `size`, (height, width), moved with it."""
    height, width = size
    whole = np.array([width, height, width, height])
    half = boxes[:, 2:] / 2
    corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1) * whole
    found = augment.moved(corners, matrix)
    inside = np.clip(found, 0, whole)
    left = _area(inside) >= np.maximum(VISIBLE * _area(found), 1)
    ends = inside[left] / whole
    return np.concatenate([(ends[:, :2] + ends[:, 2:]) / 2, ends[:, 2:] - ends[:, :2]], axis=1), classes[left]


def _area(corners: Array) -> Array:
    return np.asarray((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]))


def varied(images: Pixels, how: Augment, views: int, seed: int) -> VariedPixels:
    """`images` in so many views."""
    key = _key(images, how, views, seed)
    return VariedPixels(images.values, images.scale, images.shift, images.targets, key, how, views, seed)


def varied_segments(images: Segments, how: Augment, views: int, seed: int) -> VariedSegments:
    """`images` in so many views, their masks moved with them."""
    own = {one.name: getattr(images, one.name) for one in fields(images)}
    return VariedSegments(**own | {"key": _key(images, how, views, seed)}, how=how, views=views, seed=seed)


def varied_boxed(images: Boxed, how: Augment, views: int, seed: int) -> VariedBoxed:
    """`images` in so many views, their boxes moved with them."""
    own = {one.name: getattr(images, one.name) for one in fields(images)}
    return VariedBoxed(**own | {"key": _key(images, how, views, seed)}, how=how, views=views, seed=seed)


@dataclass(frozen=True)
class VariedIdentified(_Views, Identified):
    """Images with identities, in several views."""

    how: Augment
    views: int
    seed: int


def varied_identified(images: Identified, how: Augment, views: int, seed: int) -> VariedIdentified:
    """`images` in so many views."""
    own = {one.name: getattr(images, one.name) for one in fields(images)}
    return VariedIdentified(**own | {"key": _key(images, how, views, seed)}, how=how, views=views, seed=seed)


def _key(images: Pixels, how: Augment, views: int, seed: int) -> str:
    text = f"{images.key}/{how.model_dump_json()}/{views}/{seed}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
