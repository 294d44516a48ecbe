"""Average precision of boxes as COCO defines it (Lin et al. 2014; cocoapi's cocoeval.py), such that images can be drawn anew.

What a found box is worth, a hit, a miss, or nothing as it lies on a crowd, depends on its own image alone; so boxes are
matched once, and every resample only weighs images. Tests hold the figures against faster-coco-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunesmith.metrics.checks import check_classes, check_finite, check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

Array = npt.NDArray[Any]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Intersection over union from which a found box is a hit."""
HALF, THREE_QUARTERS = 0, 5
"""Places of 0.5 and 0.75 among the thresholds."""
RECALLS = np.linspace(0, 1, 101)
"""At which precision is read."""
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels; both ends belong to a range, so that a box may be in two of them."""
MOST_FOUND = 100
"""Found boxes of one class and image that count, the surest ones."""
MOST_DRAWN = 500_000
"""Weights of found boxes held at once: with 4 MB of them a sum over boxes is read from the cache."""
FIGURES = {
    "map": ("precision", "all", slice(None)),
    "map_50": ("precision", "all", slice(HALF, HALF + 1)),
    "map_75": ("precision", "all", slice(THREE_QUARTERS, THREE_QUARTERS + 1)),
    "map_small": ("precision", "small", slice(None)),
    "map_medium": ("precision", "medium", slice(None)),
    "map_large": ("precision", "large", slice(None)),
    "mar_100": ("recall", "all", slice(None)),
}
"""What each metric is the mean of, for boxes of which size, over which thresholds."""


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

    def only(self, area: str) -> Matched:
        """The same of boxes of one size."""
        one = [self.areas.index(area)]
        return replace(self, areas=(area,), hits=self.hits[one], counted=self.counted[one], truths=self.truths[one])


def match(truth: Sequence[Boxes], found: Sequence[Found], classes: int, areas: bool = True) -> Matched:
    """Match what was found with what is true, image by image and class by class.

    Args:
        areas: whether boxes of different sizes are looked at by themselves too.

    Raises:
        DataError: no images, not as many of one as of the other, a class that is none, or a number that is not finite.
    """
    _check(truth, found, classes)
    names = tuple(AREAS) if areas else ("all",)
    bounds = np.array([AREAS[name] for name in names])
    truths = np.zeros((len(names), len(truth), classes), dtype=np.int64)
    none = np.zeros(0, dtype=np.int64)
    nothing = np.zeros((len(names), len(THRESHOLDS), 0), dtype=bool)
    parts: list[list[Array]] = [[none], [none], [none.astype(np.float64)], [nothing], [nothing]]
    for image, (true, own) in enumerate(zip(truth, found, strict=True)):
        beyond = _beyond(true.corners, bounds) | true.ignored
        for label in np.unique(np.concatenate([true.classes, own.classes])).tolist():
            chosen = np.flatnonzero(true.classes == label)
            truths[:, image, label] = (~beyond[:, chosen]).sum(axis=1)
            places = np.flatnonzero(own.classes == label)
            places = places[np.argsort(-own.scores[places], kind="stable")][:MOST_FOUND]
            if not len(places):
                continue
            hits, void = _matched(
                own.corners[places], true.corners[chosen], true.ignored[chosen], beyond[:, chosen], bounds
            )
            same = np.ones(len(places), dtype=np.int64)
            new = (image * same, label * same, own.scores[places], hits, ~void)
            for part, values in zip(parts, new, strict=True):
                part.append(values)
    images, labels, scores, hit, counted = (np.concatenate(part, axis=-1) for part in parts)
    # Of equal scores the earlier image comes first, as in cocoapi: both sorts are stable.
    order = np.lexsort((-scores, labels))
    return Matched(names, images[order], labels[order], scores[order], hit[..., order], counted[..., order], truths)


def _check(truth: Sequence[Boxes], found: Sequence[Found], classes: int) -> None:
    check_rows(np.empty(len(truth)), np.empty(len(found)))
    for boxes, what in ((truth, "true"), (found, "found")):
        check_classes(np.concatenate([one.classes for one in boxes]), classes, what)
        check_finite(np.concatenate([one.corners for one in boxes]), f"corners of {what} boxes")
    check_finite(np.concatenate([one.scores for one in found]), "scores of found boxes")


def _matched(found: Array, true: Array, crowd: Array, beyond: Array, bounds: Array) -> tuple[Array, Array]:
    """Of the found boxes of one class and image, surest first: which are hits, and which are neither hit nor miss.

    Each takes the true box that it overlaps most with, of those that are left; one to be ignored only if there is no other.

    Args:
        crowd: (true,), and
        beyond: (areas, true) those that are to be ignored, the crowds among them.

    Returns:
        (areas, thresholds, found) each.
    """
    shape = (len(bounds), len(THRESHOLDS), len(found))
    hits = np.zeros(shape, dtype=bool)
    void = np.repeat(_beyond(found, bounds)[:, None], len(THRESHOLDS), axis=1)
    overlaps = overlap(found, true, crowd)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[None, :, None]
    taken = np.zeros((*shape[:2], len(true)), dtype=bool)
    for place in np.flatnonzero((overlaps >= THRESHOLDS[0]).any(axis=1)).tolist():
        near = (overlaps[place] >= least) & (~taken | crowd)
        real = near & ~beyond[:, None]
        some, hit = near.any(axis=2), real.any(axis=2)
        pool = np.where(hit[..., None], real, near)
        backwards = np.where(pool, overlaps[place], -1.0)[..., ::-1]  # of equals the last, as cocoapi has it
        best = len(true) - 1 - backwards.argmax(axis=2)
        hits[..., place] = hit
        void[..., place] = np.where(some, ~hit, void[..., place])
        area, threshold = np.nonzero(some)
        taken[area, threshold, best[area, threshold]] = True
    return hits, void


def _beyond(corners: Array, bounds: Array) -> Array:
    """(areas, boxes): whether a box is smaller or larger than the areas' bounds, (areas, 2)."""
    size = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    return np.asarray((size < bounds[:, :1]) | (size > bounds[:, 1:]))


def overlap(found: Array, true: Array, crowd: Array) -> Array:
    """(found, true): intersection over union; of crowds, over the found box."""
    low = np.maximum(found[:, None, :2], true[None, :, :2])
    high = np.minimum(found[:, None, 2:], true[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    own, other = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (found, true))
    whole = np.where(crowd[None], own[:, None], own[:, None] + other[None] - shared)
    return np.asarray(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0))


def average_precision(matched: Matched, weights: Array) -> Array:
    """(resamples, areas, thresholds, classes): precision, as it is at 101 recalls; NaN where nothing is to be found.

    Args:
        weights: (resamples, images) how often each image was drawn.
    """
    truths = _weighted(weights, matched.truths)
    found = np.full((len(weights), *matched.hits.shape[:2], truths.shape[2]), np.nan)
    for label in range(truths.shape[2]):
        own = np.flatnonzero(matched.label == label)
        hits, counted = matched.hits[..., own], matched.counted[..., own]
        block = max(1, MOST_DRAWN // max(1, len(own)))
        for start in range(0, len(weights), block):
            some = slice(start, start + block)
            drawn = weights[some][:, matched.image[own]]
            found[some, ..., label] = _of_class(drawn, hits, counted, truths[some, :, label])
    return found


def _of_class(drawn: Array, hits: Array, counted: Array, truths: Array) -> Array:
    """(resamples, areas, thresholds) average precision of one class.

    Args:
        drawn: (resamples, found) weights, of the surest box first.
        hits, counted: (areas, thresholds, found), as in Matched.
        truths: (resamples, areas) the weight of what is to be found.
    """
    result = np.empty((len(drawn), *hits.shape[:2]))
    for area, rows in enumerate(counted):
        for threshold, row in enumerate(rows):
            # Without crowds, boxes of all sizes count alike at every threshold, and are summed once.
            if threshold == 0 or (row != rows[threshold - 1]).any():
                places = np.flatnonzero(row)
                seen = np.cumsum(drawn[:, places], axis=1)
            own = np.flatnonzero(hits[area, threshold])
            found = np.cumsum(drawn[:, own], axis=1)
            result[:, area, threshold] = _interpolated(found, seen[:, np.searchsorted(places, own)], truths[:, area])
    return result


def _interpolated(hits: Array, seen: Array, truths: Array) -> Array:
    """(resamples,) the mean over RECALLS of the greatest precision at that recall or a higher one.

    Precision is only looked at where there is a hit: elsewhere it is lower than at the hit before.

    Args:
        hits, seen: (resamples, hits) of the boxes up to each hit, the weight of the hits and of all that count.
        truths: (resamples,) the weight of what is to be found.
    """
    known = truths > 0
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = np.divide(hits, truths[:, None], out=np.zeros_like(hits), where=known[:, None])
    # A hit stands for the recalls that it reaches and the hit before does not.
    reached = np.searchsorted(RECALLS, recall, side="right")
    new = np.diff(reached, axis=1, prepend=0)
    return np.where(known, (precision * new).sum(axis=1) / len(RECALLS), np.nan)


def recall(matched: Matched, weights: Array) -> Array:
    """(resamples, areas, thresholds, classes): share of the true boxes that is found; NaN where nothing is to be found.

    Args:
        weights: (resamples, images) how often each image was drawn.
    """
    area, threshold, own = np.nonzero(matched.hits)
    counts = np.zeros((*matched.hits.shape[:2], *matched.truths.shape[1:]))
    np.add.at(counts, (area, threshold, matched.image[own], matched.label[own]), 1)
    found = _weighted(weights, counts)
    truths = _weighted(weights, matched.truths)[:, :, None]
    return np.asarray(np.divide(found, truths, out=np.full_like(found, np.nan), where=truths > 0))


def _weighted(weights: Array, counts: Array) -> Array:
    """(resamples, …, classes) of counts (…, images, classes)."""
    return np.tensordot(weights, counts.astype(np.float64), axes=(1, counts.ndim - 2))


def _figures(matched: Matched, weights: Array) -> dict[str, Array]:
    """Metrics by name, (resamples,) each, of the sizes that were matched; NaN where nothing is to be found."""
    measured = {"precision": average_precision(matched, weights), "recall": recall(matched, weights)}
    return {
        name: _mean(measured[kind][:, matched.areas.index(area), thresholds])
        for name, (kind, area, thresholds) in FIGURES.items()
        if area in matched.areas
    }


def _mean(measured: Array) -> Array:
    """(resamples,): the mean over thresholds and those classes that are there; NaN without any."""
    known = ~np.isnan(measured)
    sums, counts = np.where(known, measured, 0.0).sum(axis=(1, 2)), known.sum(axis=(1, 2))
    return np.asarray(np.divide(sums, counts, out=np.full(len(measured), np.nan), where=counts > 0))


def values(matched: Matched) -> dict[str, float]:
    """Every metric by name; one is absent where nothing is to be found for it."""
    found = _figures(matched, np.ones((1, len(matched))))
    return {name: float(value[0]) for name, value in found.items() if not np.isnan(value[0])}


def intervals(
    matched: Matched, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Every metric with its interval, images drawn anew; a resample without true boxes for a metric is left out of it."""
    drawn = weigh(lambda weights: _figures(matched, weights), len(matched), seed, groups, resamples)
    return percentiles(values(matched), _defined(drawn), confidence)


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
    """Metric `name` of `first` minus that of `second`, both on the same drawn images; 0 where neither is defined."""
    check_rows(first.truths[0], second.truths[0])
    _, area, _ = FIGURES[name]
    both = [matched.only(area) for matched in (first, second)]

    def apart(weights: Array) -> dict[str, Array]:
        one, other = (_figures(matched, weights)[name] for matched in both)
        return {name: one - other}

    value = float(apart(np.ones((1, len(first))))[name][0])
    drawn = weigh(apart, len(first), seed, groups, resamples)
    return percentiles({name: value}, _defined(drawn), confidence).get(name, Interval(0.0, 0.0, 0.0))


def _defined(drawn: dict[str, Array]) -> dict[str, Array]:
    return {name: value[~np.isnan(value)] for name, value in drawn.items()}


def per_class(matched: Matched, threshold: float) -> list[dict[str, Any]]:
    """For each class, 0 where undefined: AP, and at an overlap of half AP, and precision, recall, F1 from a score on.

    Boxes of a lower score are taken after those of a higher one, so that leaving them out changes no match.

    Args:
        threshold: the score from which on a box is counted in precision, recall and F1.
    """
    average = np.nan_to_num(average_precision(matched.only("all"), np.ones((1, len(matched))))[0, 0])
    all_sizes = matched.areas.index("all")
    hits, counted = matched.hits[all_sizes, HALF], matched.counted[all_sizes, HALF]
    rows = []
    for label, truths in enumerate(matched.truths[all_sizes].sum(axis=0).tolist()):
        sure = (matched.label == label) & (matched.scores >= threshold)
        right, many = int((hits & sure).sum()), int((counted & sure).sum())
        rows.append(
            {
                "ap": float(average[:, label].mean()),
                "ap_50": float(average[HALF, label]),
                "precision": _ratio(right, many),
                "recall": _ratio(right, truths),
                "f1": _ratio(2 * right, many + truths),
                "support": truths,
            }
        )
    return rows


def best_threshold(matched: Matched) -> float:
    """The score from which on boxes of all classes together have the best F1, at an overlap of half; 0.5 without a hit.

    It lies midway between the last box that is worth it and the next, or zero where that is the last of all.
    """
    all_sizes = matched.areas.index("all")
    counted = matched.counted[all_sizes, HALF]
    order = np.argsort(-matched.scores[counted], kind="stable")
    scores = matched.scores[counted][order]
    hits = matched.hits[all_sizes, HALF, counted][order].cumsum()
    if not len(scores) or not hits[-1]:
        return 0.5
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + matched.truths[all_sizes].sum())
    f1[:-1][scores[1:] == scores[:-1]] = 0.0  # no score lies between equals
    best = int(f1.argmax())
    return float((scores[best] + np.append(scores, 0.0)[best + 1]) / 2)


def tally(truth: Boxes, found: Found) -> tuple[int, int, int]:
    """Of one image, at an overlap of half: how many boxes were found, how many missed, and how many were too many."""
    classes = int(max([*truth.classes.tolist(), *found.classes.tolist()], default=-1)) + 1
    matched = match([truth], [found], classes, areas=False)
    hits, counted = int(matched.hits[0, HALF].sum()), int(matched.counted[0, HALF].sum())
    return hits, int(matched.truths.sum()) - hits, counted - hits


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
