"""Average precision as faster-coco-eval has it, images drawn anew as if they were there twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import DataError
from tunesmith.metrics import detection
from tunesmith.metrics.detection import Boxes, Found, best_threshold, difference, intervals, match, per_class, values

NAMES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "", "", "mar_100")
NOTHING = Found(np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0))


def some(
    seed: int, images: int, classes: int, *, crowds: bool = False, ties: bool = False, more: int = 12
) -> tuple[list[Boxes], list[Found]]:
    """True boxes of all sizes; found ones near some of them, and others anywhere. Some images have nothing.

    Args:
        ties: whether scores are tenths and corners whole pixels, so that scores and overlaps are often equal.
        more: below how many boxes are found anywhere in an image.
    """
    random = np.random.default_rng(seed)
    truth, found = [], []
    for image in range(images):
        count = 0 if image % 5 == 4 else int(random.integers(1, 8))
        corners = boxes(random, count)
        corners = np.round(corners) if ties else corners
        labels = random.integers(0, classes, count)
        truth.append(Boxes(corners, labels, (random.random(count) < 0.2) & crowds))
        near = np.repeat(corners, 2, axis=0) + random.normal(0, 4, (2 * count, 4))
        anywhere = boxes(random, 0 if image % 10 == 9 else int(random.integers(0, more)))
        ends = np.concatenate([near, anywhere]).reshape(-1, 2, 2)
        whole = np.concatenate([ends.min(axis=1), ends.max(axis=1)], axis=1)
        kinds = np.concatenate([np.repeat(labels, 2), random.integers(0, classes, len(anywhere))])
        scores = random.random(len(whole))
        found.append(Found(np.round(whole), kinds, np.round(scores, 1)) if ties else Found(whole, kinds, scores))
    return truth, found


def boxes(random: np.random.Generator, count: int) -> np.ndarray:
    start = random.uniform(0, 300, (count, 2))
    return np.concatenate([start, start + np.exp(random.uniform(np.log(8), np.log(250), (count, 2)))], axis=1)


def library(truth: list[Boxes], found: list[Found], classes: int) -> Any:
    """What faster-coco-eval says of the same boxes."""
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
        {"image_id": image, "category_id": int(label), "score": float(score), "bbox": [*box[:2], *(box[2:] - box[:2])]}
        for image, one in enumerate(found)
        for box, label, score in zip(one.corners, one.classes, one.scores, strict=True)
    ]
    known = COCO(marked)
    judge = COCOeval_faster(known, known.loadRes(answers), iouType="bbox", print_function=lambda *_: None)
    judge.run()
    return judge


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("seed", "more"), [(0, 12), (1, 1), (2, 400)])
def test_figures_are_those_of_faster_coco_eval(seed: int, more: int, crowds: bool, ties: bool) -> None:
    truth, found = some(seed, 20, 3, crowds=crowds, ties=ties, more=more)
    found = [Found(one.corners, np.where(one.scores > 0.95, 4, one.classes), one.scores) for one in found]
    judge, matched = (
        library(truth, found, 5),
        match(truth, found, 5),
    )  # class 3 occurs nowhere, 4 is found but never true
    known = {name: value for name, value in zip(NAMES, judge.stats, strict=False) if name and value >= 0}
    assert values(matched) == pytest.approx(known, abs=1e-9)
    one = np.ones((1, 20))
    precision, recall = judge.eval["precision"][..., -1].mean(axis=1), judge.eval["recall"][..., -1]
    for own, other in (
        (detection.average_precision(matched, one), precision),
        (detection.recall(matched, one), recall),
    ):
        np.testing.assert_allclose(own[0], np.where(other < 0, np.nan, other).transpose(2, 0, 1), atol=1e-9)


def test_boxes_of_all_sizes_are_alike_whether_or_not_sizes_are_looked_at() -> None:
    truth, found = some(4, 10, 2, crowds=True)
    whole = values(match(truth, found, 2))
    sizes = {"map_small", "map_medium", "map_large"}
    assert values(match(truth, found, 2, areas=False)) == {name: whole[name] for name in whole.keys() - sizes}


def test_a_figure_without_true_boxes_is_absent() -> None:
    corners = np.array([[0.0, 0, 10, 10]])
    truth = [Boxes(corners, np.array([0]), np.array([False])), Boxes(corners, np.array([1]), np.array([True]))]
    assert set(values(match(truth, [NOTHING, NOTHING], 2))) == {"map", "map_50", "map_75", "map_small", "mar_100"}
    assert values(match(truth[1:], [NOTHING], 2)) == {}
    assert intervals(match(truth[1:], [NOTHING], 2), seed=0, resamples=5) == {}


@pytest.mark.parametrize("seed", range(3))
def test_an_image_that_is_drawn_twice_counts_twice(seed: int) -> None:
    truth, found = some(seed, 8, 2, crowds=True)
    weights = np.random.default_rng(seed).integers(0, 4, (6, 8)).astype(np.float64)
    once = match(truth, found, 2)
    for row, *figures in zip(
        weights, detection.average_precision(once, weights), detection.recall(once, weights), strict=True
    ):
        drawn = np.repeat(np.arange(8), row.astype(int))
        twice = match([truth[image] for image in drawn], [found[image] for image in drawn], 2)
        ones = np.ones((1, len(drawn)))
        for one, other in zip(figures, (detection.average_precision, detection.recall), strict=True):
            np.testing.assert_allclose(one, other(twice, ones)[0], atol=1e-12)


def test_resamples_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    matched = match(*some(5, 10, 2, crowds=True), 2)
    weights = np.random.default_rng(0).integers(0, 3, (20, 10)).astype(np.float64)
    whole = detection.average_precision(matched, weights)
    monkeypatch.setattr(detection, "MOST_DRAWN", 150)
    np.testing.assert_array_equal(detection.average_precision(matched, weights), whole)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_what_is_perfect_is_one_and_more_false_boxes_help_nothing(seed: int, score: float) -> None:
    truth, found = some(seed, 4, 2, ties=seed % 2 == 0)
    perfect = [Found(one.corners, one.classes, np.linspace(1, 0, len(one.classes))) for one in truth]
    assert all(value == pytest.approx(1) for value in values(match(truth, perfect, 2)).values())
    before = values(match(truth, found, 2))
    assert all(0 <= value <= 1 for value in before.values())
    far = np.array([[900.0, 900, 950, 950]])
    more = [
        Found(np.concatenate([one.corners, far]), np.append(one.classes, 0), np.append(one.scores, score))
        for one in found
    ]
    after = values(match(truth, more, 2))
    assert all(after[name] <= before[name] + 1e-12 for name in before)


def test_intervals_hold_their_values_and_nothing_differs_from_itself() -> None:
    truth, found = some(3, 12, 3)
    matched = match(truth, found, 3)
    known = intervals(matched, seed=0, resamples=200)
    assert {name: one.value for name, one in known.items()} == values(matched)
    assert all(one.low <= one.value <= one.high for one in known.values())
    for name in ("map", "map_large", "mar_100"):
        same = difference(name, matched, matched, seed=0, resamples=50)
        assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = match(truth, [Found(one.corners + 30, one.classes, one.scores) for one in found], 3)
    assert difference("map_50", matched, worse, seed=0, resamples=200).low > 0


def test_a_resample_without_true_boxes_is_left_out() -> None:
    corners = np.array([[0.0, 0, 10, 10]])
    one = Boxes(corners, np.array([0]), np.array([False]))
    empty = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0, dtype=bool))
    matched = match([one, empty], [Found(corners, np.array([0]), np.array([0.9])), NOTHING], 1)
    assert intervals(matched, seed=0, resamples=40)["map_small"].as_dict() == {"value": 1.0, "low": 1.0, "high": 1.0}
    none = match([empty], [NOTHING], 1)
    assert difference("map", none, none, seed=0, resamples=5).as_dict() == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_images_of_a_group_are_drawn_together() -> None:
    matched = match(*some(6, 12, 2), 2)
    alone = intervals(matched, seed=0, groups=np.zeros(12), resamples=20)["map"]
    assert alone.low == pytest.approx(alone.value) == pytest.approx(alone.high)


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
    assert detection.tally(truth[0], found[0]) == (2, 0, 2)
    assert best_threshold(match(truth, [Found(*(part[:2] for part in found[0]))], 2)) == pytest.approx(0.4)
    assert best_threshold(match(truth, [NOTHING], 2)) == 0.5
    assert values(match(truth, [NOTHING], 2))["map"] == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_no_other_threshold_has_a_better_f1(seed: int) -> None:
    matched = match(*some(seed, 5, 2, crowds=True, ties=seed % 2 == 0), 2, areas=False)

    def f1(threshold: float) -> float:
        sure = matched.scores >= threshold
        counted, hits = (int((part[0, 0] & sure).sum()) for part in (matched.counted, matched.hits))
        return 2 * hits / max(1, counted + matched.truths.sum())

    assert f1(best_threshold(matched)) == pytest.approx(max(f1(score) for score in np.append(matched.scores, 0.5)))


def test_each_class_has_its_own_row_and_lower_scores_change_no_match() -> None:
    truth, found = some(7, 15, 3, crowds=True)
    matched = match(truth, found, 4)
    rows, figures = per_class(matched, 0.4), values(matched)
    assert np.mean([row["ap"] for row in rows[:3]]) == pytest.approx(figures["map"])
    assert np.mean([row["ap_50"] for row in rows[:3]]) == pytest.approx(figures["map_50"])
    assert rows[3] == {"ap": 0, "ap_50": 0, "precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert sum(row["support"] for row in rows) == sum(int((~one.ignored).sum()) for one in truth)
    sure = [Found(*(part[one.scores >= 0.4] for part in one)) for one in found]
    for row, other in zip(rows, per_class(match(truth, sure, 4), 0.0), strict=True):
        assert all(row[name] == other[name] for name in ("precision", "recall", "f1"))


def test_what_cannot_be_measured_is_refused() -> None:
    truth, found = some(8, 3, 2)
    with pytest.raises(DataError, match="differ in length"):
        match(truth, found[:2], 2)
    with pytest.raises(DataError, match="no rows"):
        match([], [], 2)
    with pytest.raises(DataError, match="none of the 1 classes"):
        match(truth, found, 1)
    with pytest.raises(DataError, match="scores of found boxes are not finite"):
        match(truth, [found[0]._replace(scores=found[0].scores * np.nan), *found[1:]], 2)
