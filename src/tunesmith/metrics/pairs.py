"""What the similarities of pairs say of their scores: whether they are in the same order, and whether they tell 0 from 1.

Shared by all functions:
    truth: (rows,) scores; of pairs that belong together or not, 1 and 0.
    similarity: (rows,).
    how: seed, groups, resamples and confidence, as `bootstrap.py` has them.
Each raises DataError when there are no rows, when lengths differ, or when a number is not finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics import bootstrap, counts, ranking
from tunesmith.metrics.bootstrap import RANKING_RESAMPLES
from tunesmith.metrics.checks import check_finite, check_rows, check_truth
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.regression import regression
from tunesmith.metrics.resampling import percentiles, weigh

Array = npt.NDArray[Any]
RANKED = ("average_precision", "auroc")


def correlations(truth: Array, similarity: Array) -> dict[str, float]:
    """spearman and pearson, where the truth is not constant; 0 for similarities that are all the same."""
    found = regression(truth, similarity)
    return {name: found[name] for name in ("spearman", "pearson") if name in found}


def correlation_intervals(truth: Array, similarity: Array, **how: Any) -> dict[str, Interval]:
    """Both with their intervals."""
    return bootstrap.intervals(correlations, (truth, similarity), **how)


def correlation_difference(name: str, truth: Array, first: Array, second: Array, **how: Any) -> Interval:
    """Metric `name` of the similarities `first` minus that of `second`, on the same drawn rows."""
    return bootstrap.paired_difference(correlations, name, truth, first, second, **how)


def same_or_not(truth: Array, similarity: Array, threshold: float) -> dict[str, float]:
    """average_precision and auroc of the similarities; accuracy and f1 of calling a pair the same from `threshold` on."""
    _check(truth, similarity)
    said = {name: float(value) for name, value in _said(_counted(truth, similarity, threshold).sum(axis=0)).items()}
    return ranking.plain(truth[:, None] > 0, similarity[:, None]) | said


def same_or_not_intervals(truth: Array, similarity: Array, threshold: float, **how: Any) -> dict[str, Interval]:
    """All four with their intervals."""
    values = same_or_not(truth, similarity, threshold)
    columns = ranking.rank(truth[:, None] > 0, similarity[:, None])
    drawn = weigh(
        lambda weights: ranking.measure(columns, weights), len(truth), how["seed"], how["groups"],
        min(how["resamples"], RANKING_RESAMPLES),
    )  # fmt: skip
    return percentiles(values, drawn, how["confidence"]) | counts.intervals(
        _said, _counted(truth, similarity, threshold), **how
    )


def same_or_not_difference(
    name: str, truth: Array, first: Array, second: Array, thresholds: tuple[float, float], **how: Any
) -> Interval:
    """Metric `name` of the similarities `first` minus that of `second`, each with its threshold, on the same drawn rows."""
    _check(truth, first)
    _check(truth, second)
    if name not in RANKED:
        one, other = (_counted(truth, *given) for given in zip((first, second), thresholds, strict=True))
        return counts.difference(_said, name, one, other, **how)
    ranked = [ranking.rank(truth[:, None] > 0, similarity[:, None]) for similarity in (first, second)]

    def apart(weights: Array) -> dict[str, Array]:
        one, other = (ranking.measure(columns, weights)[name] for columns in ranked)
        return {name: one - other}

    count = min(how["resamples"], RANKING_RESAMPLES)
    drawn = weigh(apart, len(truth), how["seed"], how["groups"], count)
    value = apart(np.ones((1, len(truth))))[name]
    if not len(value):
        return Interval(0.0, 0.0, 0.0)
    return percentiles({name: float(value[0])}, drawn, how["confidence"])[name]


def threshold(truth: Array, similarity: Array) -> float:
    """The similarity from which calling pairs the same is right most often; in the middle between two that occur."""
    _check(truth, similarity)
    order = np.argsort(-similarity, kind="stable")
    ranked, same = similarity[order].astype(np.float64), truth[order] > 0
    right = np.concatenate([[0], np.cumsum(np.where(same, 1, -1))])  # more than when none is called the same
    ends = np.concatenate([[True], np.diff(ranked) < 0, [True]])
    best = int(np.argmax(np.where(ends, right, right.min() - 1)))
    padded = np.concatenate([[ranked[0] + 1e-6], ranked, [ranked[-1] - 1e-6]])
    return float((padded[best] + padded[best + 1]) / 2)


def _check(truth: Array, similarity: Array) -> None:
    check_rows(truth, similarity)
    check_truth(truth)
    check_finite(similarity, "similarities")


def _counted(truth: Array, similarity: Array, threshold: float) -> Array:
    """(rows, 4): rightly and wrongly called the same, wrongly and rightly not."""
    said, same = similarity >= threshold, truth > 0
    return np.stack([said & same, said & ~same, ~said & same, ~said & ~same], axis=1).astype(np.int64)


def _said(found: Array) -> dict[str, Array]:
    right, added, missed, none = (found[..., place] for place in range(4))
    whole = found.sum(axis=-1)
    shown = 2 * right + added + missed
    return {
        "accuracy": (right + none) / whole,
        "f1": np.divide(2 * right, shown, out=np.zeros_like(shown, dtype=np.float64), where=shown > 0),
    }
