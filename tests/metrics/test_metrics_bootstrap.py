"""Intervals: right widths, the same resamples for all, groups drawn whole, and fast paths that equal the slow one."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import DataError
from tunesmith.metrics import bootstrap, classification, multilabel, ranking, regression, resampling
from tunesmith.metrics.interval import Interval


def made(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=rows)
    scores = random.random((rows, classes)).round(1) + 0.05
    scores[np.arange(rows), truth] += random.random(rows)
    return truth, scores / scores.sum(axis=1, keepdims=True)


def assert_same(found: dict[str, Interval], expected: dict[str, Interval]) -> None:
    assert found.keys() == expected.keys()
    for name, interval in found.items():
        assert interval.as_dict() == pytest.approx(expected[name].as_dict()), name


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("groups", [None, np.arange(40) // 3])
def test_intervals_of_classes_are_those_of_the_resampled_rows(classes: int, groups: np.ndarray | None) -> None:
    """The fast path over weights gives what the plain metric gives on the rows themselves."""
    arrays = made(40, classes, 1)
    found = bootstrap.single_label_intervals(*arrays, seed=3, groups=groups, resamples=50)
    assert_same(found, bootstrap.intervals(classification.single_label, arrays, seed=3, groups=groups, resamples=50))


def test_intervals_of_labels_are_those_of_the_resampled_rows() -> None:
    random = np.random.default_rng(0)
    arrays = random.random((40, 3)) < 0.3, random.random((40, 3))
    found = bootstrap.multi_label_intervals(*arrays, seed=3, resamples=50, threshold=0.7)
    slow = bootstrap.intervals(lambda *both: multilabel.multi_label(*both, 0.7), arrays, seed=3, resamples=50)
    assert_same(found, slow)


def test_intervals_of_scores_hold_every_metric() -> None:
    truth, noise = np.random.default_rng(0).normal(size=(2, 100))
    found = bootstrap.regression_intervals(truth, truth + noise, seed=0, resamples=200)
    assert set(found) == {"mae", "rmse", "r2", "pearson", "spearman"}
    assert all(interval.low < interval.value < interval.high for interval in found.values())


@settings(deadline=None, max_examples=15)
@given(rows=st.integers(1, 40), classes=st.integers(2, 4), seed=st.integers(0, 1000))
def test_weighted_ranking_equals_ranking_of_repeated_rows(rows: int, classes: int, seed: int) -> None:
    truth, scores = made(rows, classes, seed)
    times = np.random.default_rng(seed).integers(0, 3, size=rows)
    hits = truth[:, None] == np.arange(classes)
    again = np.repeat(np.arange(rows), times)
    weighted = ranking.measure(ranking.rank(hits, scores), times[None, :].astype(float))
    expected = ranking.plain(hits[again], scores[again]) if len(again) else {}
    assert {name: value[0] for name, value in weighted.items() if len(value)} == pytest.approx(expected)


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 50), unit=st.integers(1, 6), seed=st.integers(0, 1000))
def test_groups_are_drawn_whole_and_as_many_as_there_are(rows: int, unit: int, seed: int) -> None:
    groups = np.arange(rows) // unit
    for weights in resampling.weights(rows, seed, groups, 20):
        for group in np.unique(groups):
            assert (weights[:, groups == group] == weights[:, groups == group][:, :1]).all()
        firsts = np.unique(groups, return_index=True)[1]
        assert (weights[:, firsts].sum(axis=1) == len(firsts)).all()


def test_the_names_of_groups_do_not_matter() -> None:
    truth, scores = made(60, 3, 0)
    numbers = np.arange(60) // 4
    named = np.array([f"{number:02}" for number in numbers])
    found = [
        bootstrap.single_label_intervals(truth, scores, seed=0, groups=groups, resamples=100)
        for groups in (numbers, numbers * 10**12, named)
    ]
    assert found[0] == found[1] == found[2]


def test_rows_that_belong_together_widen_the_interval() -> None:
    truth = np.zeros(400, dtype=int)
    scores = np.where((np.arange(400) // 20 % 4 == 0)[:, None], [0.1, 0.9], [0.9, 0.1])
    alone = bootstrap.single_label_intervals(truth, scores, seed=0)["accuracy"]
    grouped = bootstrap.single_label_intervals(truth, scores, seed=0, groups=np.arange(400) // 20)["accuracy"]
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_the_interval_of_accuracy_is_that_of_the_binomial() -> None:
    truth = np.zeros(400, dtype=int)
    scores = np.tile([0.9, 0.1], (400, 1))
    scores[:80] = [0.1, 0.9]
    found = bootstrap.single_label_intervals(truth, scores, seed=0)["accuracy"]
    assert found.value == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.006)
    assert found.high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.006)


def test_ninety_five_in_a_hundred_intervals_hold_the_truth() -> None:
    random, held = np.random.default_rng(0), 0
    for seed in range(100):
        right = random.random((200, 1)) < 0.7
        scores = np.where(right, [0.9, 0.1], [0.1, 0.9])
        found = bootstrap.single_label_intervals(np.zeros(200, dtype=int), scores, seed=seed, resamples=300)
        held += found["accuracy"].low <= 0.7 <= found["accuracy"].high
    assert 88 <= held <= 99


def test_a_higher_confidence_widens_the_interval() -> None:
    arrays = made(100, 3, 0)
    wide, narrow = (
        bootstrap.single_label_intervals(*arrays, seed=0, resamples=200, confidence=confidence)["macro_f1"]
        for confidence in (0.99, 0.8)
    )
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_one_seed_gives_one_interval_and_another_seed_another() -> None:
    arrays = made(100, 3, 0)
    first, again, other = (bootstrap.single_label_intervals(*arrays, seed=seed, resamples=100) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_more_blocks_of_weights_give_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = made(50, 3, 0)
    whole = bootstrap.single_label_intervals(*arrays, seed=0, resamples=100)
    monkeypatch.setattr(resampling, "MOST_WEIGHTS", 333)
    assert_same(bootstrap.single_label_intervals(*arrays, seed=0, resamples=100), whole)


def test_a_metric_is_left_out_of_the_resamples_where_it_is_undefined() -> None:
    truth, predicted = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.1, 0.3, 0.2, 0.9])
    found = bootstrap.regression_intervals(truth, predicted, seed=0, resamples=200)
    assert np.isfinite([found["pearson"].low, found["pearson"].high]).all()


def test_one_row_has_an_interval_without_width() -> None:
    found = bootstrap.single_label_intervals(np.array([1]), np.array([[0.2, 0.8]]), seed=0, resamples=20)
    assert found["accuracy"] == Interval(1.0, 1.0, 1.0)
    assert "auroc" not in found


@settings(deadline=None, max_examples=10)
@given(rows=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_model_does_not_differ_from_itself(rows: int, seed: int) -> None:
    truth, scores = made(rows, 3, seed)
    for name in ("accuracy", "macro_f1", "auroc"):
        found = bootstrap.paired_difference(
            classification.single_label, name, truth, scores, scores, seed=seed, resamples=20
        )
        assert found == Interval(0.0, 0.0, 0.0)


def test_the_difference_changes_its_sign_with_the_order_of_the_models() -> None:
    truth, first = made(80, 3, 0)
    second = made(80, 3, 1)[1]
    one, other = (
        bootstrap.paired_difference(classification.single_label, "accuracy", truth, *pair, seed=0, resamples=100)
        for pair in ((first, second), (second, first))
    )
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


def test_pairing_by_row_tells_two_models_apart_that_intervals_do_not() -> None:
    random = np.random.default_rng(0)
    first = random.random(300) < 0.7
    second = first & (random.random(300) < 0.95)
    found = bootstrap.paired_mean_difference(first, second, seed=0)
    assert found.low > 0
    assert found.high - found.low < 0.06  # of either mean: 0.10


def test_a_constant_answer_counts_as_no_correlation_and_a_constant_truth_as_no_difference() -> None:
    truth = np.arange(30.0)
    how = {"seed": 0, "resamples": 50}
    found = bootstrap.paired_difference(regression.regression, "pearson", truth, truth, np.zeros(30), **how)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    found = bootstrap.paired_difference(regression.regression, "pearson", np.zeros(30), truth, truth, **how)
    assert found == Interval(0.0, 0.0, 0.0)


def test_arrays_that_cannot_be_measured_are_refused() -> None:
    truth, scores = made(5, 3, 0)
    with pytest.raises(DataError, match="not finite"):
        bootstrap.single_label_intervals(truth, scores * np.nan, seed=0)
    with pytest.raises(DataError, match="5 and 4 rows"):
        bootstrap.single_label_intervals(truth, scores, seed=0, groups=np.arange(4))
    with pytest.raises(DataError, match="5 and 5 and 4 rows"):
        bootstrap.paired_difference(classification.single_label, "accuracy", truth, scores, scores[:4], seed=0)
    with pytest.raises(DataError, match="1 of 2 differences are not finite"):
        bootstrap.paired_mean_difference(np.array([np.nan, 1.0]), np.zeros(2), seed=0)


def test_a_thousand_resamples_of_three_thousand_rows_of_77_classes_take_less_than_three_seconds() -> None:
    truth, scores = made(3000, 77, 0)
    start = time.process_time()
    bootstrap.single_label_intervals(truth, scores, seed=0, groups=np.arange(3000) // 2)
    assert time.process_time() - start < 3  # 0.4 s measured on two cores
