"""Metrics agree with scikit-learn; intervals and calibration keep their rules."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tunesmith.errors import DataError
from tunesmith.metrics import bootstrap, calibration, classification, multilabel, regression


def made(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=rows)
    scores = random.random((rows, classes))
    scores[np.arange(rows), truth] += random.random(rows)
    return truth, scores / scores.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 80), classes=st.integers(2, 6), seed=st.integers(0, 50))
def test_metrics_of_classes_agree_with_scikit_learn(rows: int, classes: int, seed: int) -> None:
    truth, scores = made(rows, classes, seed)
    found, predicted = classification.single_label(truth, scores), scores.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert found["weighted_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="weighted"))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, predicted))
    if classes == 2 and len(set(truth)) == 2:
        assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, scores[:, 1]))
    if len(set(truth)) == 1:
        assert "auroc" not in found


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(2, 60), seed=st.integers(0, 50))
def test_metrics_of_several_labels_agree_with_scikit_learn(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, scores = random.random((rows, 4)) < 0.4, random.random((rows, 4))
    found, chosen = multilabel.multi_label(truth, scores), scores >= 0.5
    assert found["micro_f1"] == pytest.approx(sk.f1_score(truth, chosen, average="micro", zero_division=0))
    assert found["hamming_loss"] == pytest.approx(sk.hamming_loss(truth, chosen))
    assert found["exact_match"] == pytest.approx(sk.accuracy_score(truth, chosen))
    assert found["samples_f1"] == pytest.approx(sk.f1_score(truth, chosen, average="samples", zero_division=1.0))


def test_metrics_of_scores_agree_with_their_definitions() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=50)
    predicted = truth + random.normal(size=50)
    found = regression.regression(truth, predicted)
    assert found["r2"] == pytest.approx(sk.r2_score(truth, predicted))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, predicted))
    assert "pearson" not in regression.regression(truth, np.zeros(50))


def test_a_prediction_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        classification.single_label(np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 1.0]]))


def test_the_resampled_values_are_those_of_the_resampled_rows() -> None:
    """The fast paths over weights give what the plain metric gives on the rows themselves."""
    truth, scores = made(60, 3, 1)
    weights = next(bootstrap._weights(60, 0, None, bootstrap.RANKING_RESAMPLES))
    ranked = bootstrap._ranking(truth[:, None] == np.arange(3), scores, 0, None)
    for index in range(5):
        rows = np.repeat(np.arange(60), weights[index].astype(int))
        plain = classification.ranking(truth[rows], scores[rows])
        assert ranked["auroc"][index] == pytest.approx(plain["auroc"])
        assert ranked["average_precision"][index] == pytest.approx(plain["average_precision"])


def test_the_interval_of_accuracy_is_that_of_the_binomial() -> None:
    truth = np.zeros(400, dtype=int)
    scores = np.tile([0.9, 0.1], (400, 1))
    scores[:80] = [0.1, 0.9]
    found = bootstrap.single_label_intervals(truth, scores, seed=0)["accuracy"]
    assert found.value == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.006)
    assert found.high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.006)


def test_rows_that_belong_together_widen_the_interval() -> None:
    truth = np.zeros(400, dtype=int)
    scores = np.where((np.arange(400) // 20 % 4 == 0)[:, None], [0.1, 0.9], [0.9, 0.1])
    alone = bootstrap.single_label_intervals(truth, scores, seed=0)["accuracy"]
    grouped = bootstrap.single_label_intervals(truth, scores, seed=0, groups=np.arange(400) // 20)["accuracy"]
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_a_model_does_not_differ_from_itself() -> None:
    truth, scores = made(100, 3, 0)
    found = bootstrap.paired_difference(
        classification.single_label, "accuracy", truth, scores, scores, seed=0, resamples=100
    )
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_temperature_undoes_a_scaling_of_the_logits() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 3)) * 2
    truth = np.array([random.choice(3, p=row) for row in calibration.softmax(logits)])
    assert calibration.fit_temperature(logits, truth) == pytest.approx(1.0, abs=0.1)
    assert calibration.fit_temperature(logits * 3, truth) == pytest.approx(3.0, abs=0.3)
    raw, scaled = calibration.softmax(logits * 3), calibration.softmax(logits * 3, 3.0)
    assert calibration.expected_calibration_error(truth, scaled) < calibration.expected_calibration_error(truth, raw)


def test_brier_is_zero_for_certainty_and_two_for_certain_error() -> None:
    sure = np.array([[1.0, 0.0]])
    assert calibration.brier(np.array([0]), sure) == 0.0
    assert calibration.brier(np.array([1]), sure) == 2.0
