"""Metrics for one label a row. What follows from the confusion matrix is computed from it, for many resamples at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics import ranking
from tunesmith.metrics.checks import check_classes, check_finite, check_rows

Array = npt.NDArray[Any]


def confusion(truth: Array, predicted: Array, classes: int) -> npt.NDArray[np.int64]:
    """(classes, classes) counts; rows are the truth, columns the prediction.

    Args:
        truth, predicted: (rows,) class indices.

    Raises:
        DataError: lengths differ, there are no rows, or an index is none of the classes.
    """
    check_rows(truth, predicted)
    check_classes(truth, classes, "true")
    check_classes(predicted, classes, "predicted")
    cells = truth.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def from_counts(hits: Array, truths: Array, predictions: Array) -> dict[str, Array]:
    """Accuracy, F1 scores and Matthews' coefficient (Gorodkin 2004, eq. 8) from what a confusion matrix sums to.

    macro_f1 is the mean over the classes that occur in truth or prediction, as scikit-learn has it. mcc is 0 where all
    truths, or all predictions, are of one class.

    Args:
        hits, truths, predictions: (…, classes): diagonal, row sums and column sums.

    Returns:
        Name to (…).
    """
    total = truths.sum(axis=-1)
    both = truths + predictions
    f1 = np.divide(2.0 * hits, both, out=np.zeros(both.shape), where=both > 0)
    occurring = (both > 0).sum(axis=-1)
    right = hits.sum(axis=-1)
    covariance = right * total - (truths * predictions).sum(axis=-1)
    spread = np.sqrt(
        (np.square(total) - np.square(predictions).sum(axis=-1)) * (np.square(total) - np.square(truths).sum(axis=-1))
    )
    return {
        "accuracy": right / total,
        "macro_f1": f1.sum(axis=-1) / occurring,
        "weighted_f1": (f1 * truths).sum(axis=-1) / total,
        "mcc": np.divide(covariance, spread, out=np.zeros(np.shape(covariance)), where=spread > 0),
    }


def single_label(truth: Array, probabilities: Array) -> dict[str, float]:
    """All metrics for one label a row.

    Args:
        truth: (rows,) class indices.
        probabilities: (rows, classes).

    Returns:
        accuracy, macro_f1, weighted_f1, mcc, log_loss and, where they are defined, auroc and average_precision: of
        class 1 for two classes, otherwise the mean over the classes that some rows have and some have not. log_loss
        is in nats, a probability counting as at least 1e-12.

    Raises:
        DataError: a probability is not finite, lengths differ, there are no rows, or a truth is none of the classes.
    """
    check_rows(truth, probabilities)
    check_finite(probabilities, "probabilities")
    classes = probabilities.shape[1]
    counts = confusion(truth, probabilities.argmax(axis=1), classes).astype(np.float64)
    found = {name: float(value) for name, value in from_counts(np.diag(counts), counts.sum(1), counts.sum(0)).items()}
    found["log_loss"] = float(log_losses(truth, probabilities).mean())
    return found | ranking.plain(*one_against_rest(truth, probabilities))


def log_losses(truth: Array, probabilities: Array) -> Array:
    """(rows,) negative logarithms of the true class's probability, in nats."""
    chosen = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return np.asarray(-np.log(np.clip(chosen, 1e-12, 1.0)))


def one_against_rest(truth: Array, probabilities: Array) -> tuple[Array, Array]:
    """Hits and scores, (rows, columns) each, that are ranked: one column a class, for two classes that of class 1."""
    hits = truth[:, None] == np.arange(probabilities.shape[1])
    return (hits[:, 1:], probabilities[:, 1:]) if probabilities.shape[1] == 2 else (hits, probabilities)


def per_class(truth: Array, predicted: Array, classes: int) -> list[dict[str, float]]:
    """Precision, recall, F1 and support of each class; 0 where a class is never predicted or never true."""
    counts = confusion(truth, predicted, classes).astype(np.float64)
    return table(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))


def table(hits: Array, truths: Array, predictions: Array) -> list[dict[str, float]]:
    """One entry a class from (classes,) counts."""
    precision = np.divide(hits, predictions, out=np.zeros_like(hits), where=predictions > 0)
    recall = np.divide(hits, truths, out=np.zeros_like(hits), where=truths > 0)
    both = truths + predictions
    f1 = np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)
    return [
        {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for p, r, f, s in zip(precision, recall, f1, truths, strict=True)
    ]
