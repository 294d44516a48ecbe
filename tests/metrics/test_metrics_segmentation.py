"""Metrics of masks against scikit-learn on all pixels, and intervals over images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from tunesmith.metrics import segmentation

VOID = 255


def masks(seed: int, images: int = 8, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, (images, 6, 7)).astype(np.uint8)
    found = np.where(random.random(truth.shape) < 0.6, truth, random.integers(0, classes, truth.shape)).astype(np.uint8)
    truth[random.random(truth.shape) < 0.1] = VOID
    counts = np.stack(
        [segmentation.confusion(one, other, classes, VOID) for one, other in zip(truth, found, strict=True)]
    )
    return truth, found, counts


@given(st.integers(0, 50))
def test_metrics_are_those_of_all_labelled_pixels(seed: int) -> None:
    truth, found, counts = masks(seed)
    known = truth != VOID
    value = segmentation.from_counts(counts.sum(axis=0))
    assert value["pixel_accuracy"] == pytest.approx(metrics.accuracy_score(truth[known], found[known]))
    assert value["mean_iou"] == pytest.approx(metrics.jaccard_score(truth[known], found[known], average="macro"))
    assert value["mean_dice"] == pytest.approx(metrics.f1_score(truth[known], found[known], average="macro"))
    assert value["mean_accuracy"] == pytest.approx(metrics.recall_score(truth[known], found[known], average="macro"))


def test_a_class_that_occurs_nowhere_counts_nowhere() -> None:
    counts = np.zeros((3, 3))
    counts[0, 0], counts[1, 1], counts[1, 0] = 6, 2, 2
    assert segmentation.from_counts(counts)["mean_iou"] == pytest.approx((6 / 8 + 2 / 4) / 2)


def test_each_class_has_its_own_row() -> None:
    _, _, counts = masks(0)
    rows = segmentation.per_class(counts)
    assert np.mean([row["iou"] for row in rows]) == pytest.approx(
        segmentation.from_counts(counts.sum(axis=0))["mean_iou"]
    )
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[0]["support"] == 8


def test_intervals_are_those_of_drawn_images() -> None:
    _, _, counts = masks(1, images=40)
    found = segmentation.intervals(counts, seed=0, resamples=300)
    assert all(one.low <= one.value <= one.high for one in found.values())
    narrow = segmentation.intervals(np.concatenate([counts] * 9), seed=0, resamples=300)["mean_iou"]
    assert narrow.high - narrow.low < 0.5 * (found["mean_iou"].high - found["mean_iou"].low)


def test_a_difference_is_paired_by_image() -> None:
    _, _, counts = masks(2, images=30)
    same = segmentation.difference("mean_iou", counts, counts, seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = counts.copy()
    worse[:, 0, 0] -= worse[:, 0, 0] // 2
    worse[:, 0, 1] += counts[:, 0, 0] // 2
    assert segmentation.difference("mean_iou", counts, worse, seed=0).low > 0
