"""Percentile bootstrap (Efron & Tibshirani 1993, chapter 13): every number with its interval, every comparison paired.

What follows from counts is computed for all resamples in a few matrix products. Ranking metrics cost a pass over the
rows for each class, and are given the first `RANKING_RESAMPLES` resamples only.

Shared by all functions:
    seed: the resamples depend on it and on nothing else, so that two models see the same ones.
    groups: (rows,), of any kind of value; rows with the same one are drawn together. None: each row stands alone.
    resamples, confidence: how many are drawn, and the share of them that lies within an interval.
Every function raises DataError when there are no rows, when lengths differ, or when a number is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics import classification, multilabel, ranking, regression
from tunesmith.metrics.checks import check_finite, check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, redraw, weigh

Array = npt.NDArray[Any]
RANKING_RESAMPLES = 200


def intervals(
    metric: Callable[..., Mapping[str, float]],
    arrays: tuple[Array, ...],
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Every value that `metric` returns, with its interval; for metrics that need the drawn rows themselves.

    Args:
        metric: takes the arrays, gives named values; a resample where a name is absent is left out of its interval.
        arrays: each (rows, …).
    """
    check_rows(*arrays)
    values = metric(*arrays)
    drawn = redraw(lambda rows: metric(*(array[rows] for array in arrays)), len(arrays[0]), seed, groups, resamples)
    return percentiles(values, drawn, confidence)


def single_label_intervals(
    truth: Array,
    probabilities: Array,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Every metric of `classification.single_label` with its interval; truth (rows,), probabilities (rows, classes)."""
    values = classification.single_label(truth, probabilities)
    predicted = probabilities.argmax(axis=1)
    classes = probabilities.shape[1]
    losses = classification.log_losses(truth, probabilities)

    def counted(weights: Array) -> dict[str, Array]:
        hits, truths, predictions = (
            _by_class(weights, index, classes, mask)
            for index, mask in ((truth, truth == predicted), (truth, None), (predicted, None))
        )
        mean_loss = weights @ losses / weights.sum(axis=1)
        return classification.from_counts(hits, truths, predictions) | {"log_loss": mean_loss}

    drawn = weigh(counted, len(truth), seed, groups, resamples)
    ranked = _ranking(*classification.one_against_rest(truth, probabilities), seed, groups, resamples)
    return percentiles(values, drawn | ranked, confidence)


def multi_label_intervals(
    truth: Array,
    probabilities: Array,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    threshold: float = 0.5,
) -> dict[str, Interval]:
    """Every metric of `multilabel.multi_label` with its interval; truth (rows, labels) bool, probabilities alike."""
    values = multilabel.multi_label(truth, probabilities, threshold)
    chosen = probabilities >= threshold
    drawn = weigh(lambda weights: multilabel.counted(truth, chosen, weights), len(truth), seed, groups, resamples)
    return percentiles(values, drawn | _ranking(truth, probabilities, seed, groups, resamples), confidence)


def regression_intervals(
    truth: Array, predicted: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Every metric of `regression.regression` with its interval; both (rows,)."""
    return intervals(
        regression.regression, (truth, predicted),
        seed=seed, groups=groups, resamples=resamples, confidence=confidence,
    )  # fmt: skip


def paired_difference(
    metric: Callable[[Array, Array], Mapping[str, float]],
    name: str,
    truth: Array,
    first: Array,
    second: Array,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Metric `name` of `first` minus that of `second`, both on the same resampled rows.

    Where `metric` leaves `name` out for one of the two, it counts as 0 (a constant answer correlates with nothing);
    where for both, the resample is left out, and the difference is 0 when that is so in all of them.

    Args:
        metric: (truth, answers) to named values; called twice a resample, so give it what is cheap.
        truth, first, second: (rows, …).
    """
    check_rows(truth, first, second)

    def difference(rows: Array) -> dict[str, float]:
        one, other = (metric(truth[rows], answers[rows]) for answers in (first, second))
        return {name: one.get(name, 0.0) - other.get(name, 0.0)} if name in one or name in other else {}

    value = difference(np.arange(len(truth)))
    drawn = redraw(difference, len(truth), seed, groups, resamples)
    return percentiles(value, drawn, confidence).get(name, Interval(0.0, 0.0, 0.0))


def paired_mean_difference(
    first: Array, second: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """Mean of `first` minus mean of `second`, (rows,) each, drawn by row."""
    check_rows(first, second)
    gap = first.astype(np.float64) - second
    check_finite(gap, "differences")
    drawn = weigh(lambda weights: {"gap": weights @ gap / weights.sum(axis=1)}, len(gap), seed, groups, resamples)
    return percentiles({"gap": float(gap.mean())}, drawn, confidence)["gap"]


def _ranking(hits: Array, scores: Array, seed: int, groups: Groups, resamples: int) -> dict[str, Array]:
    """auroc and average_precision of the first resamples; see `ranking.measure`."""
    columns = ranking.rank(hits, scores)
    count = min(resamples, RANKING_RESAMPLES)
    return weigh(lambda weights: ranking.measure(columns, weights), len(hits), seed, groups, count)


def _by_class(weights: Array, index: Array, classes: int, mask: Array | None) -> Array:
    """(resamples, classes): the weight of the rows of each class, of those in `mask` where it is given."""
    kept = np.flatnonzero(mask) if mask is not None else np.arange(len(index))
    order = kept[np.argsort(index[kept], kind="stable")]
    sums = np.zeros((len(weights), classes))
    if len(order):
        starts = np.flatnonzero(np.r_[True, np.diff(index[order]) > 0])
        sums[:, index[order][starts]] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums
