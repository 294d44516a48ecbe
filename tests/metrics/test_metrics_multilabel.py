"""Several labels a row: agreement with scikit-learn and with figures by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tunesmith.errors import DataError
from tunesmith.metrics import multilabel


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(2, 60), seed=st.integers(0, 1000), threshold=st.sampled_from([0.3, 0.5, 0.8]))
def test_metrics_of_several_labels_agree_with_scikit_learn(rows: int, seed: int, threshold: float) -> None:
    random = np.random.default_rng(seed)
    truth, scores = random.random((rows, 4)) < 0.4, random.random((rows, 4)).round(1)
    truth[:2] = [[True] * 4, [False] * 4]
    found, chosen = multilabel.multi_label(truth, scores, threshold), scores >= threshold
    assert found["micro_f1"] == pytest.approx(sk.f1_score(truth, chosen, average="micro", zero_division=0))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, chosen, average="macro", zero_division=0))
    assert found["samples_f1"] == pytest.approx(sk.f1_score(truth, chosen, average="samples", zero_division=1.0))
    assert found["exact_match"] == pytest.approx(sk.accuracy_score(truth, chosen))
    assert found["hamming_loss"] == pytest.approx(sk.hamming_loss(truth, chosen))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(truth, scores, average="macro"))
    expected = sk.average_precision_score(truth, scores, average="macro")
    assert found["average_precision"] == pytest.approx(expected)


def test_figures_by_hand_for_two_rows_of_three_labels() -> None:
    truth = np.array([[True, False, True], [False, True, False]])
    scores = np.array([[0.9, 0.6, 0.1], [0.2, 0.7, 0.3]])
    found = multilabel.multi_label(truth, scores)
    assert found["micro_f1"] == pytest.approx(2 * 2 / 6)
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["samples_f1"] == pytest.approx((0.5 + 1) / 2)
    assert found["exact_match"] == 0.5
    assert found["hamming_loss"] == pytest.approx(2 / 6)
    assert found["auroc"] == pytest.approx((1 + 1 + 0) / 3)


def test_a_label_that_never_occurs_counts_in_no_mean() -> None:
    truth, scores = np.array([[True, False], [False, False]]), np.array([[0.9, 0.1], [0.2, 0.2]])
    found = multilabel.multi_label(truth, scores)
    assert found["macro_f1"] == 1.0
    assert found["macro_f1"] == sk.f1_score(truth, scores >= 0.5, average="macro", zero_division=np.nan)
    assert found["auroc"] == 1.0


def test_a_row_without_labels_for_which_none_is_chosen_is_right() -> None:
    found = multilabel.multi_label(np.zeros((1, 3), dtype=bool), np.full((1, 3), 0.1))
    assert (found["samples_f1"], found["exact_match"], found["hamming_loss"]) == (1.0, 1.0, 0.0)
    assert "auroc" not in found


def test_the_order_of_the_rows_does_not_matter() -> None:
    random = np.random.default_rng(0)
    truth, scores, order = random.random((30, 5)) < 0.3, random.random((30, 5)), random.permutation(30)
    shuffled = multilabel.multi_label(truth[order], scores[order])
    assert shuffled == pytest.approx(multilabel.multi_label(truth, scores))


def test_the_table_of_labels_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth, scores = random.random((30, 4)) < 0.3, random.random((30, 4))
    scores[:, 3] = 0.0  # never chosen
    expected = sk.precision_recall_fscore_support(truth, scores >= 0.5, zero_division=0)
    for index, row in enumerate(multilabel.per_label(truth, scores)):
        assert list(row.values()) == pytest.approx([column[index] for column in expected])


def test_arrays_that_cannot_be_measured_are_refused() -> None:
    truth = np.array([[True, False]])
    with pytest.raises(DataError, match="1 of 2 probabilities are not finite"):
        multilabel.multi_label(truth, np.array([[0.5, np.nan]]))
    with pytest.raises(DataError, match="shapes must agree"):
        multilabel.multi_label(truth, np.array([[0.5, 0.5, 0.5]]))
    with pytest.raises(DataError, match="no rows"):
        multilabel.multi_label(truth[:0], np.zeros((0, 2)))
