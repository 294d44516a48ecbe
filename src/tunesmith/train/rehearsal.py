"""Rows of a reference task that training goes back to: for replay, and to find which weights matter for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith import seeds
from tunesmith.contracts import Examples, Indices, Model, Scoring


@dataclass(frozen=True)
class Rehearsal:
    """Training rows of a reference, with the pre-trained network and a head for them."""

    name: str
    task: Scoring
    model: Model
    examples: Examples


def rows_a_step(share: float, batch: int) -> int:
    """How many replayed rows make them `share` of a step that has `batch` training rows beside."""
    return max(1, round(share / (1 - share) * batch))


def drawn(sizes: Sequence[int], count: int, seed: int, step: int) -> list[Indices]:
    """`count` examples of a step, out of references of these sizes; indices in each, the same whenever it is asked.

    Every reference is drawn from alike, however large it is.
    """
    random = seeds.generator(seed, "replay", step)
    shares = np.bincount(random.permutation(np.arange(count) % len(sizes)), minlength=len(sizes))
    return [
        random.choice(size, size=min(int(share), size), replace=False).astype(np.int64)
        for size, share in zip(sizes, shares, strict=True)
    ]
