"""Scores: agreement with scikit-learn and scipy, and absence where a metric is not defined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from tunesmith.errors import DataError
from tunesmith.metrics.regression import regression


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(3, 60), seed=st.integers(0, 1000))
def test_metrics_of_scores_agree_with_scikit_learn_and_scipy(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth = np.r_[0.0, 1.0, random.normal(size=rows - 2).round(1)]
    predicted = truth + random.normal(size=rows)
    found = regression(truth, predicted)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth, predicted))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, predicted))
    assert found["r2"] == pytest.approx(sk.r2_score(truth, predicted))
    assert found["pearson"] == pytest.approx(stats.pearsonr(truth, predicted).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(truth, predicted).statistic)


def test_figures_by_hand_for_three_rows() -> None:
    found = regression(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 5.0]))
    assert found["mae"] == pytest.approx(4 / 3)
    assert found["rmse"] == pytest.approx(np.sqrt(8 / 3))
    assert found["r2"] == pytest.approx(1 - 8 / 2)
    assert found["spearman"] == pytest.approx(1.0)


def test_correlations_ignore_scale_and_shift_of_the_prediction() -> None:
    truth, predicted = np.random.default_rng(0).normal(size=(2, 30))
    one, other = regression(truth, predicted), regression(truth, 5 * predicted - 3)
    assert (one["pearson"], one["spearman"]) == pytest.approx((other["pearson"], other["spearman"]))


@pytest.mark.parametrize("truth", [[2.0], [0.1] * 7, [3.0, 3.0]])
def test_a_constant_truth_has_errors_only(truth: list[float]) -> None:
    """0.1 seven times: its mean is not 0.1, so that a test of the variance would let it pass."""
    assert set(regression(np.array(truth), np.arange(len(truth)))) == {"mae", "rmse"}


def test_a_constant_prediction_has_no_correlation() -> None:
    found = regression(np.arange(7), np.full(7, 0.1))
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 targets are not finite"):
        regression(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    with pytest.raises(DataError, match="1 of 2 predictions are not finite"):
        regression(np.array([1.0, 2.0]), np.array([1.0, np.inf]))
    with pytest.raises(DataError, match="no rows"):
        regression(np.zeros(0), np.zeros(0))
