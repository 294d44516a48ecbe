"""Drawing with replacement, and the percentile interval of what the draws give. Knows no metric.

A resample is a vector of weights: how often each row was drawn. Where rows belong together, whole groups are drawn
(the cluster bootstrap: Davison & Hinkley 1997, section 3.8). Every draw of one seed is the same, whatever is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith import seeds
from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval

Array = npt.NDArray[Any]
Groups = npt.NDArray[Any] | None
MOST_WEIGHTS = 1_000_000
"""Weights held at once: resamples are drawn in blocks of this many numbers."""


def weights(rows: int, seed: int, groups: Groups, resamples: int) -> Iterator[Array]:
    """Blocks of (some resamples, rows) float64: how often each row is drawn.

    Args:
        groups: (rows,) of any kind of value; rows with the same one are drawn together.

    Raises:
        DataError: `groups` is not as long as the rows.
    """
    random = seeds.generator(seed, "bootstrap")
    units, unit = rows, None
    if groups is not None:
        check_rows(np.empty(rows), groups)
        names, unit = np.unique(groups, return_inverse=True)
        units = len(names)
    block = max(1, min(resamples, MOST_WEIGHTS // max(1, rows)))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = random.integers(units, size=(count, units)) + np.arange(count)[:, None] * units
        times = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)
        yield times if unit is None else times[:, unit]


def weigh(
    metrics: Callable[[Array], Mapping[str, Array]], rows: int, seed: int, groups: Groups, resamples: int
) -> dict[str, Array]:
    """Metrics of weights: `metrics` takes (some resamples, rows) and gives, by name, a value for each that has one."""
    blocks = [metrics(block) for block in weights(rows, seed, groups, resamples)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def redraw(
    metrics: Callable[[Array], Mapping[str, float]], rows: int, seed: int, groups: Groups, resamples: int
) -> dict[str, Array]:
    """Metrics of the drawn rows themselves: `metrics` takes indices (drawn,); a name it leaves out is left out."""
    found: dict[str, list[float]] = {}
    for block in weights(rows, seed, groups, resamples):
        for times in block:
            for name, value in metrics(np.repeat(np.arange(rows), times.astype(np.int64))).items():
                found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def percentiles(values: Mapping[str, float], drawn: Mapping[str, Array], confidence: float) -> dict[str, Interval]:
    """Each value with the central `confidence` of what was drawn (Efron & Tibshirani 1993, section 13.3).

    A metric that was defined in no resample has no interval and is left out.
    """
    tail = (1 - confidence) / 2
    return {
        name: Interval(value, *(float(end) for end in np.quantile(drawn[name], [tail, 1 - tail])))
        for name, value in values.items()
        if name in drawn and len(drawn[name])
    }
