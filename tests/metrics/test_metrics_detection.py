"""Average precision as faster-coco-eval has it, images drawn anew as if they were there twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.metrics import detection
from tunesmith.metrics.detection import Boxes, Found, best_threshold, difference, intervals, match, per_class, values

NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "", "", "mar_100")


def some(random: np.random.Generator, images: int, classes: int, *, crowds: bool, ties: bool) -> tuple[Any, Any]:
    """True boxes of all sizes; found ones near some of them, and others anywhere. Some images have nothing."""
    truth, found = [], []
    for image in range(images):
        count = 0 if image % 5 == 4 else int(random.integers(1, 8))
        corners = _boxes(random, count)
        labels = random.integers(0, classes, count)
        truth.append(Boxes(corners, labels, (random.random(count) < 0.2) & crowds))
        near = np.repeat(corners, 2, axis=0) + random.normal(0, 4, (2 * count, 4))
        more = _boxes(random, int(random.integers(0, 12)))
        whole = np.concatenate([near, more])
        whole = np.concatenate([np.minimum(whole[:, :2], whole[:, 2:]), np.maximum(whole[:, :2], whole[:, 2:])], axis=1)
        kinds = np.concatenate([np.repeat(labels, 2), random.integers(0, classes, len(more))])
        scores = random.random(len(whole))
        found.append(Found(whole, kinds, np.round(scores, 1) if ties else scores))
    return truth, found


def _boxes(random: np.random.Generator, count: int) -> np.ndarray:
    start = random.uniform(0, 300, (count, 2))
    return np.concatenate([start, start + np.exp(random.uniform(np.log(8), np.log(250), (count, 2)))], axis=1)


def library(truth: list[Boxes], found: list[Found], classes: int) -> dict[str, float]:
    """What faster-coco-eval says; figures that it has none for are left out."""
    marked: dict[str, Any] = {
        "images": [{"id": image, "width": 640, "height": 640} for image in range(len(truth))],
        "categories": [{"id": label, "name": str(label)} for label in range(classes)],
        "annotations": [],
    }
    for image, one in enumerate(truth):
        for (left, top, right, bottom), label, crowd in zip(one.corners, one.classes, one.ignored, strict=True):
            width, height = right - left, bottom - top
            entry = {"image_id": image, "category_id": int(label), "bbox": [left, top, width, height]}
            entry |= {"id": len(marked["annotations"]) + 1, "area": width * height, "iscrowd": int(crowd)}
            marked["annotations"].append(entry)
    answers = [
        {"image_id": image, "category_id": int(label), "score": float(score), "bbox": [box[0], box[1], *(box[2:] - box[:2])]}
        for image, one in enumerate(found)
        for box, label, score in zip(one.corners, one.classes, one.scores, strict=True)
    ]  # fmt: skip
    known = COCO(marked)
    judge = COCOeval_faster(known, known.loadRes(answers), iouType="bbox", print_function=lambda *_: None)
    judge.run()
    return {name: value for name, value in zip(NAMES, judge.stats, strict=False) if name and value >= 0}


@pytest.mark.parametrize("seed", range(6))
def test_figures_are_those_of_faster_coco_eval(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, found = some(random, 20, 3, crowds=seed % 2 == 1, ties=False)
    assert values(match(truth, found, 4)) == pytest.approx(library(truth, found, 4), abs=1e-9)


def test_an_image_that_is_drawn_twice_counts_twice() -> None:
    truth, found = some(np.random.default_rng(9), 6, 2, crowds=True, ties=False)
    weights = np.array([[2.0, 0, 1, 3, 0, 1]])
    drawn = np.repeat(np.arange(6), weights[0].astype(int))
    twice = match([truth[image] for image in drawn], [found[image] for image in drawn], 2)
    once = match(truth, found, 2)
    for one, other in zip(
        detection.precisions(once, weights), detection.precisions(twice, np.ones((1, len(drawn)))), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_what_is_perfect_is_one_and_more_false_boxes_help_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, found = some(random, 4, 2, crowds=False, ties=seed % 2 == 0)
    perfect = [Found(one.corners, one.classes, random.random(len(one.classes))) for one in truth]
    assert all(value == pytest.approx(1) for value in values(match(truth, perfect, 2)).values())
    before = values(match(truth, found, 2))
    assert all(0 <= value <= 1 for value in before.values())
    far = np.array([[900.0, 900, 950, 950]])
    more = [
        Found(np.concatenate([one.corners, far]), np.append(one.classes, 0), np.append(one.scores, 0.5))
        for one in found
    ]
    after = values(match(truth, more, 2))
    assert all(after[name] <= before[name] + 1e-12 for name in after)


def test_intervals_hold_their_values_and_nothing_differs_from_itself() -> None:
    truth, found = some(np.random.default_rng(3), 12, 3, crowds=False, ties=False)
    matched = match(truth, found, 3)
    known = intervals(matched, seed=0, resamples=200)
    assert {name: one.value for name, one in known.items()} == values(matched)
    assert all(one.low <= one.value <= one.high for one in known.values())
    same = difference("map", matched, matched, seed=0, resamples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = match(truth, [Found(one.corners + 30, one.classes, one.scores) for one in found], 3)
    assert difference("map_50", matched, worse, seed=0, resamples=200).low > 0


def test_the_threshold_is_between_what_is_worth_it_and_what_is_not() -> None:
    corners = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    truth = [Boxes(corners, np.array([0, 1]), np.zeros(2, dtype=bool))]
    places = np.concatenate([corners, corners + 300])
    found = [Found(places, np.array([0, 1, 0, 1]), np.array([0.9, 0.8, 0.3, 0.2]))]
    matched = match(truth, found, 2, areas=False)
    assert best_threshold(matched) == pytest.approx(0.55)
    rows = per_class(matched, 0.55)
    assert [(row["precision"], row["recall"], row["f1"], row["support"]) for row in rows] == [(1, 1, 1, 1)] * 2
    assert per_class(matched, 0.1)[0]["precision"] == pytest.approx(0.5)
    assert detection.hits_in(truth[0], found[0]) == 2
    nothing = [Found(np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0))]
    assert best_threshold(match(truth, nothing, 2)) == 0.5
    assert values(match(truth, nothing, 2))["map"] == 0
