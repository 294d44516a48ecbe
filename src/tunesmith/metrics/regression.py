"""Metrics for scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from tunesmith.metrics.classification import check_finite

Array = npt.NDArray[Any]


def regression(truth: Array, predicted: Array) -> dict[str, float]:
    """mae, rmse and, where they are defined (neither side constant), r2, pearson and spearman.

    Args:
        truth, predicted: (rows,).

    Raises:
        DataError: a prediction is not finite.
    """
    check_finite(predicted, "predictions")
    error = predicted.astype(np.float64) - truth
    found = {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.square(error).mean()))}
    spread = float(np.square(truth - truth.mean()).mean())
    if spread > 0:
        found["r2"] = 1.0 - float(np.square(error).mean()) / spread
        if np.ptp(predicted) > 0:
            found["pearson"] = _correlation(truth, predicted)
            found["spearman"] = _correlation(rankdata(truth), rankdata(predicted))
    return found


def _correlation(first: Array, second: Array) -> float:
    return float(np.corrcoef(first.astype(np.float64), second.astype(np.float64))[0, 1])
