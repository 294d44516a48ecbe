"""Average precision of boxes as COCO defines it (Lin et al. 2014; cocoapi's cocoeval.py), such that images can be drawn anew.

What a found box is worth, a hit, a miss, or nothing as it lies on a crowd, depends on its own image alone; so boxes are
matched once, and every resample only weighs images. Tests hold the figures against faster-coco-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

Array = npt.NDArray[Any]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Intersection over union from which a found box is a hit."""
RECALLS = np.linspace(0, 1, 101)
"""At which precision is read."""
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels."""
MOST = 100
"""Found boxes of one class and image that count, the surest ones."""
MOST_RESAMPLES = 300
"""Each costs a pass over all boxes for each class, size and threshold."""
HALF, THREE_QUARTERS = 0, 5
"""Places of 0.5 and 0.75 among the thresholds."""


class Boxes(NamedTuple):
    """What is true of one image."""

    corners: Array
    """(boxes, 4) left, top, right, bottom, in pixels."""
    classes: Array
    """(boxes,) indices."""
    ignored: Array
    """(boxes,) whether it is a crowd, in which any number of found boxes are neither hits nor misses."""


class Found(NamedTuple):
    """What was found in one image."""

    corners: Array
    """(boxes, 4), as above."""
    classes: Array
    """(boxes,) indices."""
    scores: Array
    """(boxes,) how sure each is."""


@dataclass(frozen=True)
class Matched:
    """Found boxes of all images, by class, and in each the surest first."""

    areas: tuple[str, ...]
    """Which of AREAS."""
    image: Array
    """(found,) that each lies in."""
    label: Array
    """(found,) its class."""
    scores: Array
    """(found,)"""
    hits: Array
    """(areas, thresholds, found) whether it is a true box."""
    counted: Array
    """(areas, thresholds, found) whether it is a hit or a miss; neither where it lies on what is ignored."""
    truths: Array
    """(areas, images, classes) how many are to be found."""

    def __len__(self) -> int:
        return int(self.truths.shape[1])


def match(truth: Sequence[Boxes], found: Sequence[Found], classes: int, *, areas: bool = True) -> Matched:
    """Match what was found with what is true, image by image and class by class.

    Args:
        areas: whether boxes of different sizes are looked at by themselves too.

    Raises:
        DataError: no images, or not as many of one as of the other.
    """
    names = tuple(AREAS) if areas else ("all",)
    bounds = np.array([AREAS[name] for name in names])
    truths = np.zeros((len(names), len(truth), classes), dtype=np.int64)
    parts: list[list[Array]] = [[] for _ in range(5)]
    for image, (true, own) in enumerate(zip(truth, found, strict=True)):
        beyond = _beyond(true.corners, bounds) | true.ignored
        for label in range(classes):
            chosen = np.flatnonzero(true.classes == label)
            truths[:, image, label] = (~beyond[:, chosen]).sum(axis=1)
            places = np.flatnonzero(own.classes == label)
            places = places[np.argsort(-own.scores[places], kind="stable")][:MOST]
            if not len(places):
                continue
            hits, void = _matched(
                own.corners[places], true.corners[chosen], true.ignored[chosen], beyond[:, chosen], bounds
            )
            ones = np.ones(len(places), dtype=np.int64)
            for part, values in zip(parts, (image * ones, label * ones, own.scores[places], hits, ~void), strict=True):
                part.append(values)
    if not parts[0]:
        none = np.zeros(0, dtype=np.int64)
        empty = np.zeros((len(names), len(THRESHOLDS), 0), dtype=bool)
        return Matched(names, none, none, none.astype(np.float64), empty, empty, truths)
    image_, label_, scores, hits_, counted = (np.concatenate(part, axis=-1) for part in parts)
    order = np.lexsort((np.arange(len(scores)), -scores, label_))
    return Matched(names, image_[order], label_[order], scores[order], hits_[..., order], counted[..., order], truths)


def _matched(found: Array, true: Array, crowd: Array, beyond: Array, bounds: Array) -> tuple[Array, Array]:
    """Of the found boxes of one class and image, surest first: which are hits, and which are neither hit nor miss.

    Each takes the true box that it overlaps most with, of those that are left; one to be ignored only where there is no other.

    Args:
        crowd: (true,), and
        beyond: (areas, true) those that are to be ignored, the crowds among them.

    Returns:
        (areas, thresholds, found) each.
    """
    shape = (len(bounds), len(THRESHOLDS), len(found))
    hits, void = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    outside = np.broadcast_to(_beyond(found, bounds)[:, None], shape)
    if not len(true):
        return hits, outside.copy()
    overlaps = overlap(found, true, crowd)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[None, :, None]
    taken = np.zeros((*shape[:2], len(true)), dtype=bool)
    ignored = np.broadcast_to(beyond[:, None], taken.shape)
    for place, row in enumerate(overlaps):
        near = (row >= least) & (~taken | crowd)
        if not near.any():
            void[..., place] = outside[..., place]
            continue
        real = near & ~ignored
        pool = np.where(real.any(axis=2, keepdims=True), real, near)
        backwards = np.where(pool, row, -1.0)[..., ::-1]  # of equals the last, as cocoapi has it
        best = len(true) - 1 - backwards.argmax(axis=2)
        some = pool.any(axis=2)
        on_ignored = np.take_along_axis(ignored, best[..., None], axis=2)[..., 0]
        hits[..., place] = some & ~on_ignored
        void[..., place] = np.where(some, on_ignored, outside[..., place])
        area, threshold = np.nonzero(some)
        taken[area, threshold, best[area, threshold]] = True
    return hits, void


def _beyond(corners: Array, bounds: Array) -> Array:
    """(areas, boxes): whether a box is smaller or larger than the areas' bounds, (areas, 2)."""
    size = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return np.asarray((size < bounds[:, :1]) | (size > bounds[:, 1:]))


def overlap(found: Array, true: Array, crowd: Array) -> Array:
    """(found, true): intersection over union; of crowds, over the found box."""
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum(found[:, None, 2:], true[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    own, other = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (found, true))
    whole = np.where(crowd[None], own[:, None], own[:, None] + other[None] - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def precisions(matched: Matched, weights: Array, areas: Sequence[str] | None = None) -> tuple[Array, Array]:
    """Average precision and recall, (resamples, areas, thresholds, classes) each; NaN where nothing is to be found.

    Args:
        weights: (resamples, images) how often each image was drawn.
        areas: those that are wanted; all that were matched when it is None.
    """
    wanted = matched.areas if areas is None else areas
    classes = matched.truths.shape[2]
    found = np.full((2, len(weights), len(wanted), len(THRESHOLDS), classes), np.nan)
    for place, area in enumerate(matched.areas.index(name) for name in wanted):
        truths = weights @ matched.truths[area].astype(np.float64)
        for label in range(classes):
            own = np.flatnonzero(matched.label == label)
            drawn = weights[:, matched.image[own]]
            everything = np.cumsum(drawn, axis=1)
            for threshold in range(len(THRESHOLDS)):
                counted = matched.counted[area, threshold, own]
                seen = everything if counted.all() else np.cumsum(drawn * counted, axis=1)
                hits = np.flatnonzero(matched.hits[area, threshold, own])
                both = _at_recalls(np.cumsum(drawn[:, hits], axis=1), seen[:, hits], truths[:, label])
                found[:, :, place, threshold, label] = both
    return found[0], found[1]


def _at_recalls(hits: Array, seen: Array, truths: Array) -> tuple[Array, Array]:
    """(resamples,) average precision and final recall.

    Precision is only looked at where there is a hit: elsewhere it is lower than at the hit before.

    Args:
        hits, seen: (resamples, hits) of the boxes up to each hit, the weight of the hits and of all that count.
        truths: (resamples,) the weight of what is to be found.
    """
    known = truths > 0
    if not hits.shape[1]:
        none = np.where(known, 0.0, np.nan)
        return none, none
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = np.divide(hits, truths[:, None], out=np.zeros_like(hits), where=known[:, None])
    # One search for all resamples: each has a stretch of its own, far from the others.
    apart = 2.0 * np.arange(len(hits))[:, None]
    places = np.searchsorted((recall + apart).ravel(), (RECALLS + apart).ravel()).reshape(len(hits), -1)
    places -= hits.shape[1] * np.arange(len(hits))[:, None]
    padded = np.concatenate([precision, np.zeros((len(hits), 1))], axis=1)
    read = np.take_along_axis(padded, np.clip(places, 0, hits.shape[1]), axis=1)
    return np.where(known, read.mean(axis=1), np.nan), np.where(known, recall[:, -1], np.nan)


def _figures(matched: Matched, weights: Array, areas: Sequence[str] | None = None) -> dict[str, Array]:
    """Metrics by name, (resamples,) each; NaN where nothing is to be found."""
    precision, recall = precisions(matched, weights, areas)
    found = {
        "map": _mean(precision[:, 0]),
        "map_50": _mean(precision[:, 0, HALF : HALF + 1]),
        "map_75": _mean(precision[:, 0, THREE_QUARTERS : THREE_QUARTERS + 1]),
        "mar_100": _mean(recall[:, 0]),
    }
    sizes = (matched.areas if areas is None else areas)[1:]
    return found | {f"map_{name}": _mean(precision[:, place]) for place, name in enumerate(sizes, 1)}


def _mean(values: Array) -> Array:
    """(resamples,): the mean over thresholds and those classes that are there; NaN without any."""
    known = ~np.isnan(values)
    sums, counts = np.where(known, values, 0.0).sum(axis=(1, 2)), known.sum(axis=(1, 2))
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def values(matched: Matched) -> dict[str, float]:
    """Every metric by name; one is absent where nothing is to be found for it."""
    found = _figures(matched, np.ones((1, len(matched))))
    return {name: float(value[0]) for name, value in found.items() if not np.isnan(value[0])}


def intervals(
    matched: Matched, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Every metric with its interval, images drawn anew."""
    check_rows(matched.truths[0])
    count = min(resamples, MOST_RESAMPLES)
    drawn = weigh(lambda weights: _figures(matched, weights), len(matched), seed, groups, count)
    defined = {name: value[~np.isnan(value)] for name, value in drawn.items()}
    return percentiles(values(matched), defined, confidence)


def difference(
    name: str,
    first: Matched,
    second: Matched,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Metric `name`, over boxes of all sizes, of `first` minus that of `second`, both on the same drawn images."""
    check_rows(first.truths[0], second.truths[0])

    def apart(weights: Array) -> dict[str, Array]:
        one, other = (_figures(matched, weights, ["all"])[name] for matched in (first, second))
        return {name: one - other}

    drawn = weigh(apart, len(first), seed, groups, min(resamples, MOST_RESAMPLES))[name]
    value = float(apart(np.ones((1, len(first))))[name][0])
    return percentiles({name: value}, {name: drawn[~np.isnan(drawn)]}, confidence).get(name, Interval(0.0, 0.0, 0.0))


def per_class(matched: Matched, threshold: float) -> list[dict[str, Any]]:
    """For each class: AP, AP at an overlap of half, and at that overlap precision, recall and F1 of boxes of this score or more."""
    precision, _ = precisions(matched, np.ones((1, len(matched))), ["all"])
    truths, rows = matched.truths[0].sum(axis=0), []
    for label, count in enumerate(truths.tolist()):
        sure = (matched.label == label) & (matched.scores >= threshold) & matched.counted[0, HALF]
        hits = int(matched.hits[0, HALF, sure].sum())
        rows.append(
            {
                "ap": float(np.nan_to_num(precision[0, 0, :, label]).mean()),
                "ap_50": float(np.nan_to_num(precision[0, 0, HALF, label])),
                "precision": _ratio(hits, int(sure.sum())),
                "recall": _ratio(hits, count),
                "f1": _ratio(2 * hits, int(sure.sum()) + count),
                "support": count,
            }
        )
    return rows


def best_threshold(matched: Matched) -> float:
    """The score from which on boxes of all classes together have the best F1, at an overlap of half; 0.5 without a hit."""
    counted = matched.counted[0, HALF]
    order = np.argsort(-matched.scores[counted], kind="stable")
    scores, hits = matched.scores[counted][order], matched.hits[0, HALF, counted][order].cumsum()
    if not len(scores) or not hits[-1]:
        return 0.5
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + matched.truths[0].sum())
    f1[:-1][scores[1:] == scores[:-1]] = 0.0  # no score lies between equals
    best = int(f1.argmax())
    following = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + following) / 2)


def hits_in(truth: Boxes, found: Found) -> int:
    """How many found boxes of one image are true ones, at an overlap of half."""
    classes = int(max([*truth.classes.tolist(), *found.classes.tolist()], default=-1)) + 1
    return int(match([truth], [found], classes, areas=False).hits[0, HALF].sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
