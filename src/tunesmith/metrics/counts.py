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


def intervals(
    metrics: Metrics, counts: Array, *, seed: int, groups: Groups, resamples: int, confidence: float
) -> dict[str, Interval]:
    """Every metric with its interval, rows drawn anew."""
    check_rows(counts)
    drawn = weigh(lambda weights: metrics(_weighted(weights, counts)), len(counts), seed, groups, resamples)
    values = {name: float(value) for name, value in metrics(counts.sum(axis=0)).items()}
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
        one, other = (metrics(_weighted(weights, counts))[name] for counts in (first, second))
        return {name: one - other}

    drawn = weigh(apart, len(first), seed, groups, resamples)
    one, other = (float(metrics(counts.sum(axis=0))[name]) for counts in (first, second))
    return percentiles({name: one - other}, drawn, confidence)[name]


def _weighted(weights: Array, counts: Array) -> Array:
    """(resamples, *shape): the sums of the rows that were drawn."""
    flat = weights @ counts.reshape(len(counts), -1).astype(np.float64)
    return np.asarray(flat.reshape(len(weights), *counts.shape[1:]))
