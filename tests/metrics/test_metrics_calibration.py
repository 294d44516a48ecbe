"""Probabilities that mean what they say, and the temperature that makes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tunesmith.errors import DataError
from tunesmith.metrics import calibration


def drawn(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and truth drawn from their own probabilities: calibrated by construction."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(rows, classes)) * 2
    return logits, np.array([random.choice(classes, p=row) for row in calibration.softmax(logits)])


def test_softmax_sums_to_one_even_for_large_logits() -> None:
    found = calibration.softmax(np.array([[1e4, 0.0], [0.0, 0.0]], dtype=np.float32))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_a_higher_temperature_is_less_sure_of_the_same_class() -> None:
    logits = np.array([[2.0, 1.0, 0.0]])
    cold, hot = calibration.softmax(logits, 0.5), calibration.softmax(logits, 5.0)
    assert cold.argmax() == hot.argmax() == 0
    assert cold[0, 0] > hot[0, 0] > 1 / 3


def test_the_temperature_of_calibrated_logits_is_one() -> None:
    logits, truth = drawn(4000, 3)
    assert calibration.fit_temperature(logits, truth) == pytest.approx(1.0, abs=0.1)


@settings(deadline=None, max_examples=15)
@given(scale=st.floats(0.2, 8.0))
def test_the_temperature_undoes_a_scaling_of_the_logits(scale: float) -> None:
    logits, truth = drawn(300, 3)
    unscaled = calibration.fit_temperature(logits, truth)
    assert calibration.fit_temperature(logits * scale, truth) == pytest.approx(unscaled * scale, rel=1e-3)


def test_the_temperature_lowers_the_calibration_error() -> None:
    logits, truth = drawn(2000, 3)
    raw, scaled = calibration.softmax(logits * 3), calibration.softmax(logits * 3, 3.0)
    assert calibration.expected_calibration_error(truth, scaled) < 0.05
    assert calibration.expected_calibration_error(truth, raw) > 0.1


@pytest.mark.parametrize(("truth", "low", "high"), [(0, 1.0, 1.0), (1, 19.9, 20.0)])
def test_the_temperature_stays_within_its_bounds(truth: int, low: float, high: float) -> None:
    found = calibration.fit_temperature(np.array([[3.0, 0.0]]), np.array([truth]))
    assert low <= found <= high


def test_few_mistakes_do_not_make_a_model_surer() -> None:
    """It ended at 0.05, which made every answer a certain one, where validation happened to have no mistake."""
    logits = np.array([[1.0, 0.0]] * 30 + [[0.0, 1.0]] * 30)
    truth = np.array([0] * 30 + [1] * 30)
    assert calibration.fit_temperature(logits, truth) == 1.0
    truth[:10] = 1  # ten mistakes in sixty: enough to say that it is not sure enough
    assert calibration.fit_temperature(logits, truth) < 1.0


def test_bins_by_hand() -> None:
    truth = np.array([0, 1, 0, 0])
    scores = np.array([[0.9, 0.1], [0.95, 0.05], [0.55, 0.45], [1.0, 0.0]])
    low, high = calibration.reliability(truth, scores, bins=5)
    assert (low["confidence"], low["accuracy"], low["count"]) == pytest.approx((0.55, 1.0, 1))
    assert (high["confidence"], high["accuracy"], high["count"]) == pytest.approx((0.95, 2 / 3, 3))
    assert calibration.expected_calibration_error(truth, scores, bins=5) == pytest.approx(
        (0.45 + 3 * abs(2 / 3 - 0.95)) / 4
    )


def test_bins_hold_every_row_once_and_intervals_hold_the_accuracy() -> None:
    logits, truth = drawn(500, 4)
    found = calibration.reliability(truth, calibration.softmax(logits))
    assert sum(entry["count"] for entry in found) == 500
    assert len(found) <= 15
    assert all(0 <= entry["low"] <= entry["accuracy"] <= entry["high"] <= 1 for entry in found)


def test_brier_of_two_classes_is_scikit_learns() -> None:
    logits, truth = drawn(100, 2)
    scores = calibration.softmax(logits)
    assert calibration.brier(truth, scores) == pytest.approx(sk.brier_score_loss(truth, scores[:, 1]))


@pytest.mark.parametrize(("classes", "worst"), [(2, 1.0), (3, 2.0)])
def test_brier_is_zero_for_certainty_and_worst_for_certain_error(classes: int, worst: float) -> None:
    sure = np.eye(classes)[:1]
    assert calibration.brier(np.array([0]), sure) == 0.0
    assert calibration.brier(np.array([1]), sure) == worst


def test_numbers_that_are_none_are_refused() -> None:
    truth, broken = np.array([0]), np.array([[np.nan, 0.5]])
    for measure in (calibration.reliability, calibration.expected_calibration_error, calibration.brier):
        with pytest.raises(DataError, match="1 of 2 probabilities are not finite"):
            measure(truth, broken)
    with pytest.raises(DataError, match="1 of 2 logits are not finite"):
        calibration.fit_temperature(broken, truth)
