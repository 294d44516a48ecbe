"""Intervals of the figures of single classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from tunesmith.metrics import bootstrap, by_class


def rows_of(classes: int, rows: int = 120) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    truth = random.integers(0, classes, rows)
    return truth, np.where(random.random(rows) < 0.7, truth, random.integers(0, classes, rows))


def counts_of(truth: Any, found: Any) -> Any:
    def counts(some: Sequence[int]) -> Any:
        one, other = (labels[:, None] == np.array(some) for labels in (truth, found))
        return np.stack([one, other, one & other], axis=2)

    return counts


@pytest.mark.parametrize(("figure", "sklearn"), [(by_class.f1, f1_score), (by_class.iou, jaccard_score)])
def test_values_are_those_of_scikit_learn(figure: Any, sklearn: Any) -> None:
    truth, found = rows_of(4)
    intervals = by_class.counted(figure, counts_of(truth, found), len(truth), 4, seed=0, resamples=200)
    for one, wanted in zip(intervals, sklearn(truth, found, average=None), strict=True):
        assert one is not None
        assert one.value == pytest.approx(wanted)
        assert one.low < one.value < one.high


def test_the_interval_of_a_class_is_that_of_its_rows_drawn_by_hand() -> None:
    truth, found = rows_of(3)
    (_, one, _) = by_class.counted(by_class.f1, counts_of(truth, found), len(truth), 3, seed=5, resamples=300)
    scores = []
    for block in by_class.weigh(lambda weights: {"w": weights}, len(truth), 5, None, 300)["w"]:
        drawn = np.repeat(np.arange(len(truth)), block.astype(int))
        scores.append(f1_score(truth[drawn] == 1, found[drawn] == 1))
    assert one is not None
    assert (one.low, one.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])))


def test_many_classes_are_counted_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = rows_of(7)
    whole = by_class.counted(by_class.f1, counts_of(truth, found), len(truth), 7, seed=0, resamples=100)
    monkeypatch.setattr(by_class, "MOST_NUMBERS", 3 * len(truth) * 2)
    assert by_class.counted(by_class.f1, counts_of(truth, found), len(truth), 7, seed=0, resamples=100) == whole


def test_a_class_that_is_nowhere_has_none() -> None:
    truth, found = rows_of(3)
    intervals = by_class.counted(by_class.f1, counts_of(truth, found), len(truth), 4, seed=0, resamples=100)
    assert intervals[3] is None
    assert all(one is not None for one in intervals[:3])


def test_rows_that_belong_together_are_drawn_together() -> None:
    truth, found = rows_of(2)
    alone = by_class.counted(by_class.f1, counts_of(truth, found), len(truth), 2, seed=0, resamples=400)[0]
    twice = [np.concatenate([labels, labels]) for labels in (truth, found)]
    groups = np.tile(np.arange(len(truth)), 2)
    pairs = by_class.counted(by_class.f1, counts_of(*twice), 2 * len(truth), 2, seed=0, resamples=400, groups=groups)[0]
    assert alone is not None
    assert pairs is not None
    assert (pairs.low, pairs.high) == pytest.approx((alone.low, alone.high))


def test_the_figures_of_one_class_and_of_all_go_together() -> None:
    truth, found = rows_of(2)
    answers = np.eye(2)[found]
    whole = bootstrap.single_label_intervals(truth, answers, seed=0, resamples=200)["macro_f1"]
    each = by_class.counted(by_class.f1, counts_of(truth, found), len(truth), 2, seed=0, resamples=200)
    assert whole.value == pytest.approx(np.mean([one.value for one in each if one]))
