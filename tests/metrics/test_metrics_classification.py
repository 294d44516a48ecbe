"""One label a row: agreement with scikit-learn, and the corners where a metric is not defined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tunesmith.errors import DataError
from tunesmith.metrics import classification


def made(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities that are often right; scores are rounded, so that ties occur."""
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=rows)
    scores = random.random((rows, classes)).round(1) + 0.05
    scores[np.arange(rows), truth] += random.random(rows).round(1)
    return truth, scores / scores.sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(2, 80), classes=st.integers(2, 6), seed=st.integers(0, 1000))
def test_metrics_of_classes_agree_with_scikit_learn(rows: int, classes: int, seed: int) -> None:
    truth, scores = made(rows, classes, seed)
    truth[:2] = [0, 1]
    found, predicted = classification.single_label(truth, scores), scores.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert found["weighted_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="weighted"))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, predicted))
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, scores, labels=range(classes)))
    columns = [1] if classes == 2 else sorted(set(truth))
    hits = [(truth == column, scores[:, column]) for column in columns]
    assert found["auroc"] == pytest.approx(np.mean([sk.roc_auc_score(*pair) for pair in hits]))
    assert found["average_precision"] == pytest.approx(np.mean([sk.average_precision_score(*pair) for pair in hits]))


def test_figures_by_hand_for_four_rows_of_two_classes() -> None:
    truth = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    found = classification.single_label(truth, scores)
    assert found["accuracy"] == 0.5
    assert found["mcc"] == 0.0
    assert found["auroc"] == 0.75  # of four pairs, only 0.3 over 0.6 is the wrong way round
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.3]).mean())


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 40), classes=st.integers(2, 5), seed=st.integers(0, 1000))
def test_the_order_of_the_rows_does_not_matter(rows: int, classes: int, seed: int) -> None:
    truth, scores = made(rows, classes, seed)
    order = np.random.default_rng(seed).permutation(rows)
    shuffled = classification.single_label(truth[order], scores[order])
    assert shuffled == pytest.approx(classification.single_label(truth, scores))


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 40), classes=st.integers(2, 5), times=st.integers(2, 4), seed=st.integers(0, 1000))
def test_a_table_repeated_as_a_whole_has_the_same_metrics(rows: int, classes: int, times: int, seed: int) -> None:
    truth, scores = made(rows, classes, seed)
    repeated = classification.single_label(np.tile(truth, times), np.tile(scores, (times, 1)))
    assert repeated == pytest.approx(classification.single_label(truth, scores))


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 5])
def test_ranking_is_absent_where_all_rows_have_one_class(rows: int, classes: int) -> None:
    scores = np.full((rows, classes), 1 / classes)
    found = classification.single_label(np.zeros(rows, dtype=int), scores)
    assert set(found) == {"accuracy", "macro_f1", "weighted_f1", "mcc", "log_loss"}
    assert found["accuracy"] == 1.0
    assert found["mcc"] == 0.0


def test_classes_that_never_occur_in_truth_are_not_ranked() -> None:
    truth, scores = made(50, 3, 0)
    wider = np.c_[scores, np.random.default_rng(0).random(50) * 1e-3]
    assert classification.single_label(truth, wider)["auroc"] == classification.single_label(truth, scores)["auroc"]


def test_the_confusion_matrix_has_truth_in_its_rows() -> None:
    found = classification.confusion(np.array([0, 0, 2]), np.array([0, 1, 1]), 3)
    assert found.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_the_confusion_matrix_of_small_integers_does_not_overflow() -> None:
    truth = np.array([99, 98], dtype=np.uint8)
    assert classification.confusion(truth, truth, 100)[99, 99] == 1


def test_a_class_that_is_never_predicted_has_zeros_and_its_support() -> None:
    found = classification.per_class(np.array([0, 0, 1]), np.array([0, 0, 0]), 3)
    assert found[0] == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "support": 2})
    assert found[1] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert found[2] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 60), classes=st.integers(2, 5), seed=st.integers(0, 1000))
def test_the_table_of_classes_agrees_with_scikit_learn(rows: int, classes: int, seed: int) -> None:
    truth, scores = made(rows, classes, seed)
    predicted = scores.argmax(axis=1)
    expected = sk.precision_recall_fscore_support(truth, predicted, labels=range(classes), zero_division=0)
    for index, row in enumerate(classification.per_class(truth, predicted, classes)):
        assert list(row.values()) == pytest.approx([column[index] for column in expected])


def test_a_probability_of_zero_for_the_truth_costs_much_and_not_infinitely() -> None:
    found = classification.single_label(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert found["log_loss"] == pytest.approx(-np.log(1e-12) / 2)


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        ([0, 1], [[0.5, 0.5], [np.nan, 1.0]], "1 of 4 probabilities are not finite"),
        ([0, 1], [[0.5, 0.5], [np.inf, 1.0]], "1 of 4 probabilities are not finite"),
        ([0.0, np.nan], [[0.5, 0.5], [0.5, 0.5]], "not integers"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "class 2 is none of the 2 classes"),
        ([0, -1], [[0.5, 0.5], [0.5, 0.5]], "class -1 is none of the 2 classes"),
        ([0, 1, 1], [[0.5, 0.5], [0.5, 0.5]], "3 and 2 rows"),
    ],
)
def test_arrays_that_cannot_be_measured_are_refused(truth: list[float], scores: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification.single_label(np.array(truth), np.array(scores))


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        classification.single_label(np.zeros(0, dtype=int), np.zeros((0, 3)))
