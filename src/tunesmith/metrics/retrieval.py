"""Whether each text finds the one that belongs to it among all others of a split.

What each row finds is worked out once; a resample only weighs the rows that ask, as candidates stay as they are.

Shared by all functions:
    ranks: (rows,) the place of a row's own text among the candidates, from 1; of equals the middle one.
    nearer: (rows,) whether it is nearer than the text that does not belong to the row; None where there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunesmith.metrics import counts
from tunesmith.metrics.checks import check_finite, check_rows
from tunesmith.metrics.interval import Interval

Array = npt.NDArray[Any]
DEPTHS = (1, 5, 10)
BLOCK = 4_000_000
"""Similarities held at once."""


class Found(NamedTuple):
    """What each row finds."""

    ranks: Array
    first: Array
    """(rows,) the most similar candidate of each, its own one, others that belong to its question, and itself left out."""


def search(asking: Array, candidates: Array, own: Array, questions: Array, itself: Array) -> Found:
    """Let every row look for its own candidate. What belongs to other rows of the same question is no mistake, and left out;
    so is the text that asks, where it is a candidate too.

    Args:
        asking: (rows, width) of length 1.
        candidates: (candidates, width) of length 1, each different text once.
        own: (rows,) which candidate belongs to each row.
        questions: (rows,) a number for each different text that asks.
        itself: (rows,) which candidate is the text that asks; -1 where none is.

    Raises:
        DataError: no rows, other lengths, or what is no number.
    """
    check_rows(asking, own, questions)
    check_finite(asking, "vectors")
    check_finite(candidates, "vectors")
    ranks, first = np.empty(len(asking)), np.empty(len(asking), dtype=np.int64)
    order = np.argsort(questions, kind="stable")
    starts = np.searchsorted(questions[order], questions)
    ends = np.searchsorted(questions[order], questions, side="right")
    step = max(1, BLOCK // len(candidates))
    for start in range(0, len(asking), step):
        rows = np.arange(start, min(start + step, len(asking)))
        near = asking[rows] @ candidates.T
        mine = near[np.arange(len(rows)), own[rows]].copy()
        for place, row in enumerate(rows):
            near[place, own[order[starts[row] : ends[row]]]] = -np.inf
        again = np.flatnonzero(itself[rows] >= 0)
        near[again, itself[rows[again]]] = -np.inf
        above, equal = (near > mine[:, None]).sum(axis=1), (near == mine[:, None]).sum(axis=1)
        ranks[rows], first[rows] = 1 + above + equal / 2, near.argmax(axis=1)
    return Found(ranks, first)


def values(ranks: Array, nearer: Array | None) -> dict[str, float]:
    """mrr (the mean of one over the rank), recall at 1, 5 and 10, and triplet_accuracy where there are triplets."""
    check_rows(ranks)
    found = _means(nearer is not None)(_counted(ranks, nearer).sum(axis=0))
    return {name: float(value) for name, value in found.items()}


def intervals(ranks: Array, nearer: Array | None, **how: Any) -> dict[str, Interval]:
    """The same with their intervals; `how`: seed, groups, resamples, confidence."""
    return counts.intervals(_means(nearer is not None), _counted(ranks, nearer), **how)


def difference(
    name: str, first: tuple[Array, Array | None], second: tuple[Array, Array | None], **how: Any
) -> Interval:
    """Metric `name` of the ranks and `nearer` of `first` minus that of `second`, on the same drawn rows."""
    one, other = (_counted(*given) for given in (first, second))
    return counts.difference(_means(first[1] is not None), name, one, other, **how)


def _counted(ranks: Array, nearer: Array | None) -> Array:
    """(rows, 5 or 6): 1, one over the rank, whether it is within each of DEPTHS, and whether the row's own is nearer."""
    columns = [np.ones(len(ranks)), 1 / ranks, *(ranks <= depth for depth in DEPTHS)]
    return np.stack([*columns, *([] if nearer is None else [nearer])], axis=1).astype(np.float64)


def _means(triplets: bool) -> Callable[[Array], dict[str, Array]]:
    names = ["mrr", *(f"recall_at_{depth}" for depth in DEPTHS), *(["triplet_accuracy"] if triplets else [])]

    def means(sums: Array) -> dict[str, Array]:
        return {name: sums[..., place + 1] / sums[..., 0] for place, name in enumerate(names)}

    return means
