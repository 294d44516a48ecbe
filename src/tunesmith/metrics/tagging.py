"""Metrics of tags of words, all from counts, one set a row, so that rows can be drawn anew.

Shared by all functions:
    counts: (rows, classes, 3): words that truly have a tag, that were given it, and those of them that are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError
from tunesmith.metrics import classification
from tunesmith.metrics import counts as counting
from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups

Array = npt.NDArray[Any]


def counted(truth: Sequence[Sequence[int]], found: Sequence[Sequence[int]], classes: int) -> npt.NDArray[np.int32]:
    """The counts of rows of tags, (words,) indices each.

    Raises:
        DataError: there are no rows or a row has no words, lengths differ, or an index is none of the classes.
    """
    check_rows(np.empty(len(truth)), np.empty(len(found)))
    counts = np.zeros((len(truth), classes, 3), dtype=np.int32)
    for row, (one, other) in enumerate(zip(truth, found, strict=True)):
        true, told = np.asarray(one, dtype=np.int64), np.asarray(other, dtype=np.int64)
        check_rows(true, told)
        if max(true.max(), told.max()) >= classes:
            raise DataError(f"The tag {max(true.max(), told.max()):,} is none of the {classes:,} classes.")
        for place, tags in enumerate((true, told, true[true == told])):
            counts[row, :, place] = np.bincount(tags, minlength=classes)
    return counts


def from_counts(counts: Array) -> dict[str, Array]:
    """token_accuracy, and macro_f1, the mean over the tags that occur in truth or prediction; of (…, classes, 3) counts, name
    to (…)."""
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
    """Right, true and given words, (…, classes) each."""
    true, found, right = np.moveaxis(counts, -1, 0)
    return right, true, found
