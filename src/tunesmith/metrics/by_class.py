"""The figure of each class with its interval, rows drawn anew.

Shared by all functions:
    counts: (…, classes, 3): what truly is of a class, what was found to be, and what of that is right.
    seed, groups, resamples, confidence: as `bootstrap.py` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

Array = npt.NDArray[Any]
Figure = Callable[[Array], Array]
"""counts (…, classes, 3) to (…, classes); NaN where a class has none."""
MOST_NUMBERS = 20_000_000
"""Counts of rows that are held at once."""


def f1(counts: Array) -> Array:
    """F1 of each class; NaN of one that is neither true nor found."""
    true, found, right = np.moveaxis(counts, -1, 0)
    return _share(2 * right, true + found)


def iou(counts: Array) -> Array:
    """Intersection over union of each class; NaN of one that is neither true nor found."""
    true, found, right = np.moveaxis(counts, -1, 0)
    return _share(right, true + found - right)


def intervals(
    measure: Callable[[Array], Array],
    rows: int,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> list[Interval | None]:
    """An interval a class; None where the figure is not defined.

    Args:
        measure: weights (resamples, rows) to figures (resamples, classes).
    """
    values = measure(np.ones((1, rows)))[0]
    drawn = weigh(lambda weights: {"figure": measure(weights)}, rows, seed, groups, resamples)["figure"]
    known = ~np.isnan(drawn)
    named = {str(place): float(value) for place, value in enumerate(values) if not np.isnan(value)}
    again = {name: drawn[known[:, int(name)], int(name)] for name in named}
    found = percentiles(named, again, confidence)
    return [found.get(str(place)) for place in range(len(values))]


def counted(
    figure: Figure,
    counts: Callable[[Sequence[int]], Array],
    rows: int,
    classes: int,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> list[Interval | None]:
    """The same of figures that follow from counts, some classes at a time.

    Args:
        counts: classes to their counts, (rows, those classes, 3).
    """
    step = max(1, MOST_NUMBERS // (3 * max(1, rows)))
    found: list[Interval | None] = []
    for start in range(0, classes, step):
        some = counts(range(start, min(classes, start + step))).astype(np.float64)

        def measure(weights: Array, some: Array = some) -> Array:
            return figure(np.tensordot(weights, some, axes=1))

        found += intervals(measure, rows, seed=seed, groups=groups, resamples=resamples, confidence=confidence)
    return found


def _share(part: Array, whole: Array) -> Array:
    nothing = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=nothing, where=np.asarray(whole) > 0))
