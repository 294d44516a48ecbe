"""Metrics of masks, all from confusion matrices of pixels: one an image, so that images can be drawn anew.

Shared by all functions:
    counts: (images, classes, classes) pixels, by truth (rows) and prediction (columns).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics import counts as counting
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups

Array = npt.NDArray[Any]


def confusion(truth: Array, predicted: Array, classes: int, void: int) -> Array:
    """(classes, classes) pixels of one image; pixels whose truth is `void` are left out."""
    known = truth != void
    cells = truth[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def from_counts(counts: Array) -> dict[str, Array]:
    """Metrics of (…, classes, classes) counts, name to (…).

    mean_iou and mean_dice are means over the classes that occur in truth or prediction (Everingham et al. 2015, section 4.4
    for the first, over all images together); mean_accuracy is the mean recall of the classes that occur in the truth.
    """
    hits, truths, found = counts.diagonal(axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)
    either, both = truths + found - hits, truths + found
    return {
        "mean_iou": _mean(hits, either),
        "mean_dice": _mean(2 * hits, both),
        "pixel_accuracy": hits.sum(axis=-1) / np.maximum(truths.sum(axis=-1), 1),
        "mean_accuracy": _mean(hits, truths),
    }


def by_class(counts: Array) -> Array:
    """(images, classes, 3): pixels that truly are of a class, that were found to be, and those of them that are right."""
    return np.stack([counts.sum(axis=2), counts.sum(axis=1), counts.diagonal(axis1=1, axis2=2)], axis=2)


def per_class(counts: Array) -> list[dict[str, Any]]:
    """For each class over all images: IoU, precision, recall, F1 (which is Dice), share of the labelled pixels, images."""
    whole = counts.sum(axis=0).astype(np.float64)
    hits, truths, found = whole.diagonal(), whole.sum(axis=1), whole.sum(axis=0)
    images = (counts.sum(axis=2) > 0).sum(axis=0)
    return [
        {
            "iou": _ratio(hits[place], truths[place] + found[place] - hits[place]),
            "precision": _ratio(hits[place], found[place]),
            "recall": _ratio(hits[place], truths[place]),
            "f1": _ratio(2 * hits[place], truths[place] + found[place]),
            "share": _ratio(truths[place], whole.sum()),
            "support": int(images[place]),
        }
        for place in range(len(whole))
    ]


def intervals(
    counts: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Every metric with its interval, images drawn anew."""
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
    """Metric `name` of the counts `first` minus that of `second`, both on the same drawn images."""
    return counting.difference(
        from_counts, name, first, second,
        seed=seed, groups=groups, resamples=resamples, confidence=confidence,
    )  # fmt: skip


def _mean(part: Array, whole: Array) -> Array:
    """(…): the mean of part / whole over the classes of which there is a whole; 0 where there is none."""
    shares = np.divide(part, whole, out=np.zeros(np.shape(whole), dtype=np.float64), where=whole > 0)
    return np.asarray(shares.sum(axis=-1) / np.maximum((whole > 0).sum(axis=-1), 1))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
