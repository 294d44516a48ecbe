"""Metrics for any number of labels a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError
from tunesmith.metrics import ranking
from tunesmith.metrics.checks import check_finite, check_rows
from tunesmith.metrics.classification import table

Array = npt.NDArray[Any]


def counted(truth: Array, chosen: Array, weights: Array) -> dict[str, Array]:
    """F1 scores, exact matches and Hamming loss (Tsoumakas et al. 2010) for rows that count `weights` times.

    macro_f1 is the mean over the labels that occur in truth or prediction (scikit-learn's `zero_division=nan`).
    In samples_f1, a row with no label, and none chosen, is right (`zero_division=1`).

    Args:
        truth, chosen: (rows, labels) bool.
        weights: (resamples, rows).

    Returns:
        Name to (resamples,).
    """
    both = (truth & chosen).astype(np.float64)
    sums = truth.astype(np.float64) + chosen
    hits, sizes = weights @ both, weights @ sums
    f1 = np.divide(2 * hits, sizes, out=np.zeros_like(hits), where=sizes > 0)
    row_sizes = sums.sum(axis=1)
    row_f1 = np.divide(2 * both.sum(axis=1), row_sizes, out=np.ones(len(truth)), where=row_sizes > 0)
    total = weights.sum(axis=1)
    size = sizes.sum(axis=1)
    return {
        "micro_f1": np.divide(2 * hits.sum(axis=1), size, out=np.zeros_like(size), where=size > 0),
        "macro_f1": f1.sum(axis=1) / np.maximum(1, (sizes > 0).sum(axis=1)),
        "samples_f1": weights @ row_f1 / total,
        "exact_match": weights @ (truth == chosen).all(axis=1) / total,
        "hamming_loss": weights @ (truth != chosen).mean(axis=1) / total,
    }


def multi_label(truth: Array, probabilities: Array, threshold: float = 0.5) -> dict[str, float]:
    """All metrics for several labels a row.

    Args:
        truth: (rows, labels) bool.
        probabilities: (rows, labels); a label is chosen from `threshold` on.

    Returns:
        micro_f1, macro_f1, samples_f1, exact_match, hamming_loss and, over the labels that some rows have and some
        have not, auroc and average_precision. exact_match is also called subset accuracy.

    Raises:
        DataError: a probability is not finite, there are no rows, or the shapes differ.
    """
    check_rows(truth, probabilities)
    if truth.shape != probabilities.shape:
        raise DataError(f"Truth is {truth.shape}, probabilities are {probabilities.shape}: the shapes must agree.")
    check_finite(probabilities, "probabilities")
    counts = counted(truth, probabilities >= threshold, np.ones((1, len(truth))))
    found = {name: float(value[0]) for name, value in counts.items()}
    return found | ranking.plain(truth, probabilities)


def per_label(truth: Array, probabilities: Array, threshold: float = 0.5) -> list[dict[str, float]]:
    """Precision, recall, F1 and support of each label; truth (rows, labels) bool, probabilities alike."""
    chosen = probabilities >= threshold
    hits = (truth & chosen).sum(axis=0).astype(np.float64)
    return table(hits, truth.sum(axis=0).astype(np.float64), chosen.sum(axis=0).astype(np.float64))
