"""A nearest-neighbour classifier on features: nothing is fitted, so that it shows what the features themselves say."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
BLOCK = 1_000
"""Rows compared with all others at once."""
NEARER = 1e-3
"""Of a vote: breaks ties for the class whose neighbours are nearer."""


def votes(known: Array, targets: Array, asked: Array, count: int = 5) -> Array:
    """What the `count` nearest rows by cosine say of each row (Cover & Hart 1967).

    Args:
        known: (rows, width) features of the rows whose targets are known.
        targets: (rows, outputs): what each of them votes for; one-hot for classes.
        asked: (others, width).

    Returns:
        (others, outputs): the mean of the neighbours' targets, those nearer counting a little more.
    """
    count = min(count, len(known))
    own, others = _unit(known), _unit(asked)
    found = np.empty((len(others), targets.shape[1]))
    for start in range(0, len(others), BLOCK):
        likeness = others[start : start + BLOCK] @ own.T
        nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        weights = 1 + NEARER * np.take_along_axis(likeness, nearest, axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        found[start : start + BLOCK] = (weights[:, :, None] * targets[nearest]).sum(axis=1)
    return found


def _unit(features: Array) -> Array:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12))
