"""Percentile bootstrap (Efron & Tibshirani 1993, chapter 13): every number with its interval, every comparison paired.

A resample is a vector of weights: how often each row was drawn. Where rows belong together, whole groups are drawn.
What follows from counts is computed for all resamples in a few matrix products; ranking metrics, which need a sort
each, are given `RANKING_RESAMPLES` resamples only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith import seeds
from tunesmith.metrics import classification, multilabel, regression
from tunesmith.metrics.interval import Interval

Array = npt.NDArray[Any]
Groups = npt.NDArray[np.int64] | None
RANKING_RESAMPLES = 100
MOST_WEIGHTS = 1_000_000
"""Weights held at once: resamples are drawn in blocks of this many numbers."""


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
    losses = -np.log(np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, 1.0))

    def counted(weights: Array) -> dict[str, Array]:
        hits, truths, predictions = (
            _by_class(weights, index, classes, mask)
            for index, mask in ((truth, truth == predicted), (truth, None), (predicted, None))
        )
        mean_loss = weights @ losses / weights.sum(axis=1)
        return classification.from_counts(hits, truths, predictions) | {"log_loss": mean_loss}

    drawn = _draw(counted, len(truth), seed, groups, resamples)
    binary = probabilities.shape[1] == 2
    hits = truth[:, None] == np.arange(probabilities.shape[1])
    ranked = _ranking(hits[:, 1:] if binary else hits, probabilities[:, 1:] if binary else probabilities, seed, groups)
    return _intervals(values, drawn | ranked, confidence)


def multi_label_intervals(
    truth: Array,
    probabilities: Array,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Every metric of `multilabel.multi_label` with its interval; both (rows, labels)."""
    values = multilabel.multi_label(truth, probabilities)
    chosen = probabilities >= 0.5
    drawn = _draw(lambda weights: multilabel.counted(truth, chosen, weights), len(truth), seed, groups, resamples)
    ranked = _ranking(truth, probabilities, seed, groups)
    return _intervals(values, drawn | ranked, confidence)


def regression_intervals(
    truth: Array, predicted: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Every metric of `regression.regression` with its interval; both (rows,)."""
    values = regression.regression(truth, predicted)
    drawn = _redraw(
        lambda rows: regression.regression(truth[rows], predicted[rows]), len(truth), seed, groups, resamples
    )
    return _intervals(values, drawn, confidence)


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

    Args:
        metric: (truth, answers) to named values; a name that is absent counts as 0 (undefined for a constant answer).
        truth, first, second: (rows, …).
    """

    def difference(rows: Array) -> dict[str, float]:
        one, other = (metric(truth[rows], answers[rows]).get(name, 0.0) for answers in (first, second))
        return {name: one - other}

    value = difference(np.arange(len(truth)))
    return _intervals(value, _redraw(difference, len(truth), seed, groups, resamples), confidence)[name]


def paired_mean_difference(
    first: Array, second: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """Mean of `first` minus mean of `second`, (rows,) each, drawn by row."""
    gap = first.astype(np.float64) - second
    drawn = _draw(lambda weights: {"gap": weights @ gap / weights.sum(axis=1)}, len(gap), seed, groups, resamples)
    return _intervals({"gap": float(gap.mean())}, drawn, confidence)["gap"]


def _ranking(hits: Array, scores: Array, seed: int, groups: Groups) -> dict[str, Array]:
    """auroc and average_precision of weighted rows, the mean over columns that have both kinds of row in a resample.

    Each column is sorted once; a resample only changes the weights that are summed along the order.
    """
    weights = np.concatenate(list(_weights(len(hits), seed, groups, RANKING_RESAMPLES)))
    sums = {name: np.zeros(len(weights)) for name in ("auroc", "average_precision")}
    defined = np.zeros(len(weights))
    for column in range(hits.shape[1]):
        order = np.argsort(-scores[:, column], kind="stable")
        ranked = scores[order, column]
        last = np.flatnonzero(np.r_[np.diff(ranked) != 0, True])  # rows of one score stand or fall together
        drawn = weights[:, order]
        positive = np.cumsum(drawn * hits[order, column], axis=1)[:, last]
        negative = np.cumsum(drawn, axis=1)[:, last] - positive
        enough = (positive[:, -1] > 0) & (negative[:, -1] > 0)
        gained = np.diff(positive, axis=1, prepend=0.0)
        fallen = np.diff(negative, axis=1, prepend=0.0)
        precision = positive / np.maximum(positive + negative, 1e-12)
        area = (fallen * (positive - gained / 2)).sum(axis=1)
        sums["auroc"] += np.where(enough, area / np.maximum(positive[:, -1] * negative[:, -1], 1e-12), 0.0)
        average = (gained * precision).sum(axis=1) / np.maximum(positive[:, -1], 1e-12)
        sums["average_precision"] += np.where(enough, average, 0.0)
        defined += enough
    return {name: total[defined > 0] / defined[defined > 0] for name, total in sums.items() if defined.any()}


def _by_class(weights: Array, index: Array, classes: int, mask: Array | None) -> Array:
    """(resamples, classes): the weight of the rows of each class, of those in `mask` where it is given."""
    kept = np.flatnonzero(mask) if mask is not None else np.arange(len(index))
    order = kept[np.argsort(index[kept], kind="stable")]
    sums = np.zeros((len(weights), classes))
    if len(order):
        starts = np.flatnonzero(np.r_[True, np.diff(index[order]) > 0])
        sums[:, index[order][starts]] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _draw(
    metrics: Callable[[Array], dict[str, Array]], rows: int, seed: int, groups: Groups, resamples: int
) -> dict[str, Array]:
    """Metrics of weights (resamples, rows), for all resamples, in blocks."""
    blocks = [metrics(weights) for weights in _weights(rows, seed, groups, resamples)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _redraw(
    metrics: Callable[[Array], Mapping[str, float]],
    rows: int,
    seed: int,
    groups: Groups,
    resamples: int = RANKING_RESAMPLES,
) -> dict[str, Array]:
    """The same for metrics that need the drawn rows themselves; a resample where one is undefined is left out of it."""
    found: dict[str, list[float]] = {}
    for block in _weights(rows, seed, groups, resamples):
        for weights in block:
            for name, value in metrics(np.repeat(np.arange(rows), weights.astype(np.int64))).items():
                found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def _weights(rows: int, seed: int, groups: Groups, resamples: int) -> Iterator[Array]:
    """Blocks of (some resamples, rows): how often each row is drawn."""
    random = seeds.generator(seed, "bootstrap")
    units = rows if groups is None else int(groups.max()) + 1
    block = max(1, min(resamples, MOST_WEIGHTS // max(1, rows)))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = random.integers(units, size=(count, units)) + np.arange(count)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)
        yield weights if groups is None else weights[:, groups]


def _intervals(values: Mapping[str, float], drawn: Mapping[str, Array], confidence: float) -> dict[str, Interval]:
    tail = (1 - confidence) / 2
    return {
        name: Interval(value, *(float(end) for end in np.quantile(drawn[name], [tail, 1 - tail])))
        for name, value in values.items()
        if name in drawn and len(drawn[name])
    }
