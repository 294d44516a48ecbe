"""Whether probabilities mean what they say, and the one number that mends them (Guo et al. 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import betaincinv, log_softmax

from tunesmith.metrics.checks import check_classes, check_finite, check_rows

Array = npt.NDArray[Any]
FEWEST_MISTAKES = 10
BINS = 15
"""As in the paper's table 1."""


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """(rows, classes) probabilities, fp64, of (rows, classes) `logits` (section 4.2, eq. 9). NaN stays NaN."""
    return np.asarray(np.exp(log_softmax(logits.astype(np.float64) / temperature, axis=1)))


def reliability(truth: Array, probabilities: Array, bins: int = BINS) -> list[dict[str, float]]:
    """For each occupied bin of the top class's confidence: mean confidence, accuracy with its 95 % interval, count.

    Bins are of equal width (section 2); low and high are the ends of Clopper and Pearson's (1934) interval.

    Args:
        truth: (rows,) class indices.
        probabilities: (rows, classes).

    Returns:
        One {confidence, accuracy, count, low, high} a bin, lowest confidence first.

    Raises:
        DataError: a probability is not finite, lengths differ, there are no rows, or a truth is none of the classes.
    """
    _check(truth, probabilities, "probabilities")
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.minimum((top * bins).astype(np.int64), bins - 1)
    found = []
    for index in np.unique(place):
        inside = place == index
        count, hits = int(inside.sum()), int(right[inside].sum())
        found.append(
            {
                "confidence": float(top[inside].mean()),
                "accuracy": hits / count,
                "count": count,
                "low": float(betaincinv(hits, count - hits + 1, 0.025)) if hits else 0.0,
                "high": float(betaincinv(hits + 1, count - hits, 0.975)) if hits < count else 1.0,
            }
        )
    return found


def expected_calibration_error(truth: Array, probabilities: Array, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over the bins of `reliability`, by count (eq. 3)."""
    found = reliability(truth, probabilities, bins)
    return sum(entry["count"] * abs(entry["accuracy"] - entry["confidence"]) for entry in found) / len(truth)


def brier(truth: Array, probabilities: Array) -> float:
    """Mean squared distance between probabilities and truth (Brier 1950); 0 is best.

    Two classes: the usual half of Brier's sum, the squared error of class 1's probability, 0 to 1. More: summed over
    the classes, 0 to 2. Arguments and errors are those of `reliability`.
    """
    _check(truth, probabilities, "probabilities")
    target = truth[:, None] == np.arange(probabilities.shape[1])
    squares = np.square(probabilities - target)
    return float((squares[:, 1] if probabilities.shape[1] == 2 else squares.sum(axis=1)).mean())


def fit_temperature(logits: Array, truth: Array) -> float:
    """The temperature, from 0.05 to 20, that makes `truth` likeliest (section 4.2).

    Divide logits by it (`softmax`). With fewer than `FEWEST_MISTAKES` wrong rows it is at least 1: hardly a mistake on
    few rows does not show that the model may be surer of itself; with none at all, no finite surety would be enough.

    Args:
        logits: (rows, classes).
        truth: (rows,) class indices.

    Raises:
        DataError: as in `reliability`.
    """
    _check(truth, logits, "logits")

    def loss(log_temperature: float) -> float:
        logs = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return float(-logs[np.arange(len(truth)), truth].mean())

    lowest = 0.05 if (logits.argmax(axis=1) != truth).sum() >= FEWEST_MISTAKES else 1.0
    found = minimize_scalar(loss, bounds=(np.log(lowest), np.log(20.0)), method="bounded")
    return float(np.exp(found.x)) if loss(found.x) < loss(0.0) else 1.0


def _check(truth: Array, scores: Array, what: str) -> None:
    check_rows(truth, scores)
    check_finite(scores, what)
    check_classes(truth, scores.shape[1], "true")
