"""Metrics for one label a row. What follows from the confusion matrix is computed from it, for many resamples at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from tunesmith.errors import DataError

Array = npt.NDArray[Any]


def check_finite(values: Array, what: str) -> None:
    """Raise DataError when `values` hold NaN or infinity: every metric of them would be wrong in silence."""
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise DataError(
            f"{bad:,} of {values.size:,} {what} are not finite numbers.", "Train in fp32 or at a lower rate."
        )


def confusion(truth: Array, predicted: Array, classes: int) -> npt.NDArray[np.int64]:
    """(classes, classes) counts; rows are the truth, columns the prediction."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def from_counts(hits: Array, truths: Array, predictions: Array) -> dict[str, Array]:
    """Accuracy, F1 scores and Matthews' coefficient (Gorodkin 2004, eq. 8) from what a confusion matrix sums to.

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
        class 1 for two classes, otherwise the mean over the classes that some rows have and some have not.

    Raises:
        DataError: a probability is not finite.
    """
    check_finite(probabilities, "probabilities")
    classes = probabilities.shape[1]
    counts = confusion(truth, probabilities.argmax(axis=1), classes).astype(np.float64)
    found = {name: float(value) for name, value in from_counts(np.diag(counts), counts.sum(1), counts.sum(0)).items()}
    chosen = np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, 1.0)
    return found | {"log_loss": float(-np.log(chosen).mean())} | ranking(truth, probabilities)


def ranking(truth: Array, probabilities: Array) -> dict[str, float]:
    """auroc and average_precision, as `single_label` describes them; empty where they are not defined."""
    classes = probabilities.shape[1]
    columns = [1] if classes == 2 else range(classes)
    hits = [(truth == column, probabilities[:, column]) for column in columns]
    usable = [(hit, score) for hit, score in hits if hit.any() and not hit.all()]
    scores: dict[str, Callable[..., float]] = {"auroc": roc_auc_score, "average_precision": average_precision_score}
    return {name: float(np.mean([score(*pair) for pair in usable])) for name, score in scores.items() if usable}


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
