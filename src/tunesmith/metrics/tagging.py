"""Metrics of tags of words, all from confusion matrices of words: one a row, so that rows can be drawn anew.

Shared by all functions:
    counts: (rows, classes, classes) words, by true tag (rows) and predicted one (columns); each row has a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics import classification
from tunesmith.metrics import counts as counting
from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups

Array = npt.NDArray[Any]


def confusion(truth: Sequence[Sequence[int]], found: Sequence[Sequence[int]], classes: int) -> npt.NDArray[np.int64]:
    """The counts of rows of tags, (words,) indices each.

    Raises:
        DataError: there are no rows or a row has no words, lengths differ, or an index is none of the classes.
    """
    check_rows(np.empty(len(truth)), np.empty(len(found)))
    pairs = zip(truth, found, strict=True)
    return np.stack([classification.confusion(np.array(one), np.array(other), classes) for one, other in pairs])


def from_counts(counts: Array) -> dict[str, Array]:
    """token_accuracy and macro_f1, the mean over the tags that occur in truth or prediction, of (…, classes, classes) counts;
    name to (…)."""
    found = classification.from_counts(*_sums(counts))
    return {"token_accuracy": found["accuracy"], "macro_f1": found["macro_f1"]}


def per_class(counts: Array) -> list[dict[str, float]]:
    """For each tag over all rows: precision, recall, F1, and support, its true words."""
    return classification.table(*_sums(counts.sum(axis=0).astype(np.float64)))


def intervals(
    counts: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Every metric with its interval, rows drawn anew."""
    return counting.intervals(from_counts, counts, seed=seed, groups=groups, resamples=resamples, confidence=confidence)


def difference(
    name: str,
    first: Array,
    second: Array,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Metric `name` of the counts `first` minus that of `second`, both on the same drawn rows."""
    return counting.difference(
        from_counts, name, first, second,
        seed=seed, groups=groups, resamples=resamples, confidence=confidence,
    )  # fmt: skip


def _sums(counts: Array) -> tuple[Array, Array, Array]:
    """Diagonals, true and predicted words, (…, classes) each."""
    return counts.diagonal(axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)
