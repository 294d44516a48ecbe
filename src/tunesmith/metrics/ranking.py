"""Area under the ROC curve and average precision of weighted rows, for many resamples at once.

Each column is sorted once; a resample only changes the weights that are summed along the order. Only the scores at
which a positive row stands add to either metric, so that sums are read there and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ranked:
    """One column of scores from best to worst. A step is a run of rows with one score, at least one of them positive.

    `order` (rows,): row indices; `first`, `last` (steps,): places in `order` where a step begins and ends;
    `positives` (positives,): indices of positive rows in order; `begins` (steps,): where each step begins in them.
    """

    order: Array
    first: Array
    last: Array
    positives: Array
    begins: Array


def rank(hits: Array, scores: Array) -> list[Ranked]:
    """Sort every column that has both kinds of row.

    Args:
        hits: (rows, columns) bool, True for a positive row.
        scores: (rows, columns), higher for a likelier positive.
    """
    usable = np.flatnonzero(hits.any(axis=0) & ~hits.all(axis=0))
    return [_rank(hits[:, column], scores[:, column]) for column in usable]


def measure(columns: list[Ranked], weights: Array) -> dict[str, Array]:
    """The mean over `columns` of both metrics, in each resample over those that have both kinds of row in it.

    The area counts ties by half (Fawcett 2006, algorithm 2); average precision is the step-wise sum, without
    interpolation, as scikit-learn has it.

    Args:
        columns: from `rank`.
        weights: (resamples, rows), how often each row counts.

    Returns:
        auroc and average_precision, each (defined,): resamples where no column is defined are left out.
    """
    total = weights.sum(axis=1, keepdims=True)
    area, average, defined = np.zeros((3, len(weights)))
    for column in columns:
        drawn = weights[:, column.order]
        sums = np.cumsum(drawn, axis=1)
        through = sums[:, column.last]
        step = through - sums[:, column.first] + drawn[:, column.first]
        gained = np.add.reduceat(weights[:, column.positives], column.begins, axis=1)
        found = np.cumsum(gained, axis=1)
        positive = found[:, -1]
        negative = total[:, 0] - positive
        both = (positive > 0) & (negative > 0)
        below = negative[:, None] - (through - found) + (step - gained) / 2
        area += np.where(both, (gained * below).sum(axis=1) / np.where(both, positive * negative, 1.0), 0.0)
        precision = found / np.where(through > 0, through, 1.0)
        average += np.where(both, (gained * precision).sum(axis=1) / np.where(both, positive, 1.0), 0.0)
        defined += both
    kept = defined > 0
    return {"auroc": area[kept] / defined[kept], "average_precision": average[kept] / defined[kept]}


def plain(hits: Array, scores: Array) -> dict[str, float]:
    """auroc and average_precision where every row counts once; empty where no column has both kinds of row."""
    found = measure(rank(hits, scores), np.ones((1, len(hits))))
    return {name: float(value[0]) for name, value in found.items() if len(value)}


def _rank(hit: Array, score: Array) -> Ranked:
    order = np.argsort(-score, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])
    sizes = np.diff(np.r_[first, len(order)])
    places = np.flatnonzero(hit[order])
    steps, begins = np.unique(np.repeat(np.arange(len(first)), sizes)[places], return_index=True)
    return Ranked(order, first[steps], (first + sizes - 1)[steps], order[places], begins)
