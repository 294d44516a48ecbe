"""Intervals of metrics that follow from counts: those of a row are an array, and those of several rows their sum.

Shared by both functions:
    metrics: counts (…, *shape) to named values (…).
    counts: (rows, *shape).
    seed, groups, resamples, confidence: as `bootstrap.py` has them.
Both raise DataError where there are no rows, or lengths differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

Array = npt.NDArray[Any]
Metrics = Callable[[Array], Mapping[str, Array]]
MOST_NUMBERS = 1_000_000
"""Held at once: counts of some rows, and sums of some resamples."""


def intervals(
    metrics: Metrics, counts: Array, *, seed: int, groups: Groups, resamples: int, confidence: float
) -> dict[str, Interval]:
    """Every metric with its interval, rows drawn anew."""
    check_rows(counts)
    drawn = weigh(lambda weights: _measured(metrics, weights, counts), len(counts), seed, groups, resamples)
    values = {name: float(value) for name, value in metrics(_sum(counts)).items()}
    return percentiles(values, drawn, confidence)


def difference(
    metrics: Metrics,
    name: str,
    first: Array,
    second: Array,
    *,
    seed: int,
    groups: Groups,
    resamples: int,
    confidence: float,
) -> Interval:
    """Metric `name` of the counts `first` minus that of `second`, both on the same drawn rows."""
    check_rows(first, second)

    def apart(weights: Array) -> dict[str, Array]:
        one, other = (_measured(metrics, weights, counts)[name] for counts in (first, second))
        return {name: one - other}

    drawn = weigh(apart, len(first), seed, groups, resamples)
    one, other = (float(metrics(_sum(counts))[name]) for counts in (first, second))
    return percentiles({name: one - other}, drawn, confidence)[name]


def _sum(counts: Array) -> Array:
    """(*shape): of all rows; in float64, as products of whole numbers overflow."""
    return np.asarray(counts.sum(axis=0, dtype=np.float64))


def _measured(metrics: Metrics, weights: Array, counts: Array) -> dict[str, Array]:
    """Metrics of what was drawn, (resamples,) each, some resamples at a time."""
    step = max(1, MOST_NUMBERS // counts[0].size)
    parts = [metrics(_weighted(weights[at : at + step], counts)) for at in range(0, len(weights), step)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _weighted(weights: Array, counts: Array) -> Array:
    """(resamples, *shape): the sums of the rows that were drawn, some rows at a time; whole numbers, so that the order of
    summing changes nothing."""
    flat = counts.reshape(len(counts), -1)
    found = np.zeros((len(weights), flat.shape[1]))
    step = max(1, MOST_NUMBERS // flat.shape[1])
    for at in range(0, len(flat), step):
        found += weights[:, at : at + step] @ flat[at : at + step].astype(np.float64)
    return found.reshape(len(weights), *counts.shape[1:])
