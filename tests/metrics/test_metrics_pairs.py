"""Pairs by their similarity, and texts that look for their own: against figures that are worked out by hand or elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tunesmith.errors import DataError
from tunesmith.metrics import pairs, retrieval

HOW = {"seed": 0, "groups": None, "resamples": 200, "confidence": 0.95}


def drawn(rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    truth = (draw.random(rows) > 0.6).astype(np.float32)
    return truth, truth * 0.3 + draw.normal(size=rows) * 0.3


def unit(rows: int, width: int = 4, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, width))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_ranking_of_pairs_is_that_of_scikit_learn() -> None:
    truth, alike = drawn()
    found = pairs.same_or_not(truth, alike, 0.1)
    assert found["average_precision"] == pytest.approx(sklearn_metrics.average_precision_score(truth, alike))
    assert found["auroc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, alike))
    assert found["accuracy"] == pytest.approx(((alike >= 0.1) == (truth > 0)).mean())
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(truth, alike >= 0.1))


def test_the_threshold_is_right_most_often() -> None:
    truth, alike = drawn()
    best = max(((alike >= one) == (truth > 0)).mean() for one in [*alike, alike.max() + 1])
    assert ((alike >= pairs.threshold(truth, alike)) == (truth > 0)).mean() == pytest.approx(best)


@pytest.mark.parametrize(("truth", "right"), [([1, 1, 1], 3), ([0, 0, 0], 3), ([1, 0, 1, 0], 2)])
def test_a_threshold_of_one_kind_or_of_equal_similarities_is_beyond_all_or_below(truth: list[int], right: int) -> None:
    alike = np.full(len(truth), 0.5)
    said = alike >= pairs.threshold(np.array(truth, dtype=np.float32), alike)
    assert (said == np.array(truth)).sum() == right


@pytest.mark.parametrize("name", ["average_precision", "auroc", "accuracy", "f1"])
def test_a_difference_of_pairs_is_that_of_the_figures_and_none_from_itself(name: str) -> None:
    truth, alike = drawn()
    other = drawn()[1][::-1].copy()
    found = pairs.same_or_not_difference(name, truth, alike, other, (0.1, 0.2), **HOW)
    figures = [pairs.same_or_not(truth, one, at)[name] for one, at in ((alike, 0.1), (other, 0.2))]
    assert found.value == pytest.approx(figures[0] - figures[1])
    assert found.low <= found.value <= found.high
    same = pairs.same_or_not_difference(name, truth, alike, alike, (0.1, 0.1), **HOW)
    assert (same.low, same.value, same.high) == (0, 0, 0)
    assert pairs.same_or_not_intervals(truth, alike, 0.1, **HOW)[name].value == pytest.approx(figures[0])


def test_similarities_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        pairs.correlations(np.array([1.0, 2.0]), np.array([0.1, np.nan]))
    with pytest.raises(DataError, match="no rows"):
        pairs.same_or_not(np.zeros(0), np.zeros(0), 0.5)


def test_each_row_looks_for_its_own_among_all_but_what_answers_the_same() -> None:
    asking, candidates = unit(5), unit(7, seed=1)
    candidates[6] = asking[3]
    own, questions = np.array([0, 1, 2, 3, 4]), np.array([0, 1, 0, 2, 3])
    itself = np.array([-1, -1, -1, 6, -1])
    found = retrieval.search(asking, candidates, own, questions, itself)
    for row in range(5):
        left = [
            at
            for at in range(7)
            if at not in (own[row], itself[row])
            and not (at in own and questions[list(own).index(at)] == questions[row])
        ]
        near = candidates @ asking[row]
        assert found.ranks[row] == 1 + sum(near[at] > near[own[row]] for at in left)
        assert found.first[row] == max(left, key=lambda at: near[at])


def test_vectors_that_are_all_one_find_their_own_in_the_middle() -> None:
    same = np.tile(unit(1), (5, 1))
    found = retrieval.search(same, same, np.arange(5), np.arange(5), np.full(5, -1))
    assert found.ranks.tolist() == [3.0] * 5
    assert retrieval.values(found.ranks, None)["recall_at_1"] == 0


def test_figures_of_ranks_are_their_means() -> None:
    ranks, nearer = np.array([1.0, 2.0, 6.0, 20.0]), np.array([True, True, False, True])
    found = retrieval.values(ranks, nearer)
    assert found == {
        "mrr": pytest.approx((1 + 1 / 2 + 1 / 6 + 1 / 20) / 4), "recall_at_1": 0.25, "recall_at_5": 0.5, "recall_at_10": 0.75,
        "triplet_accuracy": 0.75,
    }  # fmt: skip
    assert retrieval.intervals(ranks, nearer, **HOW)["mrr"].value == found["mrr"]
    gap = retrieval.difference("mrr", (ranks, nearer), (ranks + 1, nearer), **HOW)
    assert gap.value == pytest.approx(found["mrr"] - retrieval.values(ranks + 1, nearer)["mrr"])
    assert "triplet_accuracy" not in retrieval.values(ranks, None)
