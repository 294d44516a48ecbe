"""Metrics of entities, which are right where they are of the true words and of the true type, and not else (the strict
reading of Tjong Kim Sang & De Meulder 2003): all from counts, one set a row, so that rows can be drawn anew.

Shared by all functions:
    counts: (rows, classes, 3): true entities, those found, and those of them that are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics import counts as counting
from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups

Array = npt.NDArray[Any]
Row = Sequence[tuple[int, int, int]]
"""First word, word after the last, class of each entity; one that is listed twice counts once."""


def counted(truth: Sequence[Row], found: Sequence[Row], classes: int) -> npt.NDArray[np.int32]:
    """The counts of rows.

    Raises:
        DataError: there are no rows, or lengths differ.
    """
    check_rows(np.empty(len(truth)), np.empty(len(found)))
    counts = np.zeros((len(truth), classes, 3), dtype=np.int32)
    for row, (one, other) in enumerate(zip(truth, found, strict=True)):
        true, told = set(one), set(other)
        for place, entities in enumerate((true, told, true & told)):
            for _, _, label in entities:
                counts[row, label, place] += 1
    return counts


def from_counts(counts: Array) -> dict[str, Array]:
    """Metrics of (…, classes, 3) counts, name to (…); 0 where they are not defined.

    entity_f1, entity_precision and entity_recall are of all entities; entity_macro_f1 is the mean F1 of the classes that
    occur in truth or prediction.
    """
    true, found, right = np.moveaxis(counts, -1, 0)
    whole = true.sum(axis=-1), found.sum(axis=-1), right.sum(axis=-1)
    occurring = np.maximum((true + found > 0).sum(axis=-1), 1)
    return {
        "entity_f1": _share(2 * whole[2], whole[0] + whole[1]),
        "entity_precision": _share(whole[2], whole[1]),
        "entity_recall": _share(whole[2], whole[0]),
        "entity_macro_f1": np.asarray(_share(2 * right, true + found).sum(axis=-1) / occurring),
    }


def per_class(counts: Array) -> list[dict[str, Any]]:
    """For each class over all rows: F1, precision, recall; support, the true entities; and those found."""
    true, found, right = np.moveaxis(counts.sum(axis=0), -1, 0)
    shares = _share(2 * right, true + found), _share(right, found), _share(right, true)
    return [
        {
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
            "support": int(one),
            "found": int(other),
        }
        for f1, precision, recall, one, other in zip(*shares, true, found, strict=True)
    ]


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


def _share(part: Array, whole: Array) -> Array:
    """part / whole; 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole), dtype=np.float64), where=np.asarray(whole) > 0)
