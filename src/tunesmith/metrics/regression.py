"""Metrics for scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics.checks import check_finite, check_rows, check_truth

Array = npt.NDArray[Any]


def regression(truth: Array, predicted: Array) -> dict[str, float]:
    """mae and rmse in the unit of the truth, and r2, pearson and spearman where they are defined.

    r2 and the correlations need a truth that is not constant (a single row is). A constant prediction, which
    correlates with nothing, has a correlation of 0.

    Args:
        truth, predicted: (rows,).

    Raises:
        DataError: a number is not finite, lengths differ, or there are no rows.
    """
    check_rows(truth, predicted)
    check_truth(truth)
    check_finite(predicted, "predictions")
    truth, predicted = truth.astype(np.float64), predicted.astype(np.float64)
    error = predicted - truth
    found = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean()))}
    # The range, not the variance: the mean of equal numbers may differ from them by rounding.
    if np.ptp(truth) > 0:
        found["r2"] = 1.0 - float(np.square(error).sum() / np.square(truth - truth.mean()).sum())
        varied = np.ptp(predicted) > 0
        found["pearson"] = _correlation(truth, predicted) if varied else 0.0
        found["spearman"] = _correlation(_ranks(truth), _ranks(predicted)) if varied else 0.0
    return found


def _correlation(first: Array, second: Array) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Array) -> Array:
    """Places in order; equal values share the mean of theirs. scipy.stats has it, and takes half a second to import."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])
