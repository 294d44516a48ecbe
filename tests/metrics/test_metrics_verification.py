"""Same or not: against brute force, bounds, and what must not matter."""

from __future__ import annotations

import itertools
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from tunesmith.errors import DataError
from tunesmith.metrics import verification
from tunesmith.metrics.verification import (
    Compared,
    compare,
    confused,
    difference,
    intervals,
    loss,
    mistaken,
    most_like,
    roc,
    threshold,
    values,
)


def some(seed: int, rows: int = 60, identities: int = 12, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    identity = random.integers(0, identities, rows)
    found = random.normal(size=(identities, width))[identity] + random.normal(size=(rows, width))
    return found / np.linalg.norm(found, axis=1, keepdims=True), identity


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_all_pairs(seed: int) -> None:
    vectors, identity = some(seed)
    near = vectors @ vectors.T
    first, fifth, precision = [], [], []
    for row in range(len(vectors)):
        order = [int(other) for other in np.argsort(-near[row], kind="stable") if other != row]
        hits = identity[order] == identity[row]
        if not hits.any():
            continue
        first.append(hits[0])
        fifth.append(hits[:5].any())
        wanted = int(hits.sum())
        precision.append(sum(hits[: k + 1].mean() for k in range(wanted) if hits[k]) / wanted)
    pairs = np.triu_indices(len(vectors), 1)
    same, score = identity[pairs[0]] == identity[pairs[1]], near[pairs]
    false, accepted, _ = roc_curve(same, score)
    found = values(compare(vectors, identity))
    assert found["recall_at_1"] == pytest.approx(np.mean(first))
    assert found["recall_at_5"] == pytest.approx(np.mean(fifth))
    assert found["map_at_r"] == pytest.approx(np.mean(precision))
    assert found["auroc"] == pytest.approx(roc_auc_score(same, score), abs=2e-3)
    assert found["eer"] == pytest.approx(false[np.abs(false - (1 - accepted)).argmin()], abs=0.02)
    assert found["verification_accuracy"] == pytest.approx(((accepted + 1 - false) / 2).max(), abs=0.01)
    assert found["tar_at_far_1"] == pytest.approx(np.interp(0.01, false, accepted), abs=0.05)
    at = threshold(compare(vectors, identity))
    assert at is not None
    assert (score[same] < at).mean() == pytest.approx((score[~same] >= at).mean(), abs=0.03)


@pytest.mark.parametrize("mean", [0, 10, 30])
@pytest.mark.parametrize(("rows", "identities"), [(400, 80), (1500, 300)])
def test_vectors_that_all_point_nearly_one_way_are_measured_as_well(mean: int, rows: int, identities: int) -> None:
    random = np.random.default_rng(mean)
    identity = random.integers(0, identities, rows)
    vectors = random.normal(size=(identities, 16))[identity] + 0.7 * random.normal(size=(rows, 16)) + mean
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    pairs = np.triu_indices(rows, 1)
    score = (vectors.astype(np.float64) @ vectors.T.astype(np.float64))[pairs]
    same = identity[pairs[0]] == identity[pairs[1]]
    false, accepted, _ = roc_curve(same, score, drop_intermediate=False)
    compared = compare(vectors, identity)
    found = values(compared)
    rate = found["eer"]
    assert found["auroc"] == pytest.approx(roc_auc_score(same, score), abs=0.003)
    assert rate == pytest.approx(false[np.abs(false - (1 - accepted)).argmin()], abs=0.003)
    assert found["verification_accuracy"] == pytest.approx(((accepted + 1 - false) / 2).max(), abs=0.003)
    assert found["tar_at_far_1"] == pytest.approx(np.interp(0.01, false, accepted), abs=0.003)
    at = threshold(compared)
    assert at is not None
    assert mistaken(vectors, identity, at) == pytest.approx((rate, rate), abs=0.003)
    assert (score[~same] >= at).mean() == pytest.approx(rate, abs=0.003)
    assert (score[same] < at).mean() == pytest.approx(rate, abs=0.003)


def test_two_readings_are_compared_each_by_its_own_similarities() -> None:
    vectors, identity = some(1, rows=200, identities=40)
    crowded = vectors + 10 * np.ones(6) / 6**0.5
    crowded /= np.linalg.norm(crowded, axis=1, keepdims=True)
    first, second = compare(vectors, identity), compare(crowded, identity)
    assert second.edges[0] > first.edges[-1] - 0.2
    for name in ("auroc", "eer", "tar_at_far_1"):
        found = difference(name, first, second, seed=0, groups=identity, resamples=50)
        assert found.value == pytest.approx(values(first)[name] - values(second)[name])


@pytest.mark.parametrize("block", [50, 4_000_000])
def test_what_becomes_of_pairs_at_a_similarity_is_counted(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(verification, "BLOCK", block)
    vectors, identity = some(2)
    near, same = vectors @ vectors.T, identity[:, None] == identity[None]
    apart = ~np.eye(len(vectors), dtype=bool)
    false, refused = mistaken(vectors, identity, 0.3)
    assert false == pytest.approx((near[~same] >= 0.3).mean())
    assert refused == pytest.approx((near[same & apart] < 0.3).mean())
    assert mistaken(np.eye(4), np.arange(4), 0.5) == (0, None)
    assert mistaken(np.eye(4), np.zeros(4, dtype=int), 0.5) == (None, 1)
    which, similarity = most_like(vectors, vectors[:7])
    np.testing.assert_array_equal(which, near[:, :7].argmax(axis=1))
    np.testing.assert_allclose(similarity, near[:, :7].max(axis=1))


def test_rows_are_confused_with_others_only_where_one_of_their_own_is_there() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]])
    assert confused(vectors, np.array([0, 1, 0, 2])) == [
        (pytest.approx(0.96), 2, 1, 0, pytest.approx(0.6)),
        (pytest.approx(0.8), 0, 1, 2, pytest.approx(0.6)),
    ]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, identity = some(5)
    whole, wanted = values(compare(vectors, identity)), loss(vectors, identity)
    monkeypatch.setattr(verification, "BLOCK", 130)
    assert values(compare(vectors, identity)) == whole
    assert loss(vectors, identity) == pytest.approx(wanted)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_figures_are_shares_and_turning_all_vectors_changes_nothing(seed: int) -> None:
    vectors, identity = some(seed, rows=30, identities=8)
    found = values(compare(vectors, identity))
    assert all(0 <= value <= 1 for value in found.values())
    assert found["recall_at_5"] >= found["recall_at_1"]
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    turned = values(compare(vectors @ turn, identity))
    for name in ("recall_at_1", "recall_at_5", "map_at_r"):
        assert turned[name] == pytest.approx(found[name], abs=0.04)
    points = roc(compare(vectors, identity))
    assert points[-1] == (1, 1)
    assert all(later[1] >= earlier[1] for earlier, later in itertools.pairwise(points))


def test_of_equals_the_first_rows_count_as_nearest() -> None:
    near = np.full((2, 3000), 0.5, dtype=np.float32)
    near[1, 2000] = 0.7
    assert verification._nearest(near, 3).tolist() == [[0, 1, 2], [2000, 0, 1]]
    identity = np.arange(3000) // 3
    all_one = values(compare(np.tile([1.0, 0.0], (3000, 1)), identity))
    assert all_one["recall_at_1"] == pytest.approx(3 / 3000)  # rows 0, 1 and 2 find 1, 0 and 0
    assert all_one["auroc"] == all_one["eer"] == 0.5


@given(st.lists(st.integers(0, 3), min_size=60, max_size=60).filter(any))
def test_weights_are_as_good_as_asking_again(times: list[int]) -> None:
    vectors, identity = some(6)
    whole = compare(vectors, identity)
    rows = np.repeat(np.arange(60), times)
    drawn = {one.name: getattr(whole, one.name)[rows] for one in fields(Compared) if one.name != "edges"}
    again = values(Compared(**drawn, edges=whole.edges))
    weighed = verification._figures(whole, np.array([times], dtype=np.float64))
    assert {name: value[0] for name, value in weighed.items() if not np.isnan(value[0])} == pytest.approx(again)


def test_the_threshold_lies_midway_where_pairs_are_told_apart() -> None:
    identity = np.repeat(np.arange(20), 5)
    vectors = np.eye(20)[identity] + 0.02 * np.random.default_rng(0).normal(size=(100, 20))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near, same = vectors @ vectors.T, identity[:, None] == identity
    middle = (near[same].min() + near[~same].max()) / 2
    assert threshold(compare(vectors, identity)) == pytest.approx(middle, abs=1e-4)


def test_what_is_perfect_what_is_alone_and_what_is_all_one() -> None:
    identity = np.repeat(np.arange(4), 3)
    perfect = values(compare(np.eye(4)[identity], identity))
    assert perfect.pop("eer") == 0
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1))
    assert len(perfect) == 6
    alone = compare(np.eye(4), np.arange(4))
    assert values(alone) == {}
    assert (threshold(alone), roc(alone), loss(np.eye(4), np.arange(4))) == (None, [], 0.0)
    one = values(compare(np.eye(4), np.zeros(4, dtype=int)))
    assert set(one) == {"recall_at_1", "recall_at_5", "map_at_r"}
    with pytest.raises(DataError):
        compare(np.zeros((0, 4)), np.zeros(0, dtype=int))


def test_intervals_hold_their_values_and_nothing_differs_from_itself() -> None:
    vectors, identity = some(7, rows=120, identities=20)
    compared = compare(vectors, identity)
    known = intervals(compared, seed=0, groups=identity, resamples=300)
    assert {name: one.value for name, one in known.items()} == values(compared)
    assert all(one.low <= one.value <= one.high for one in known.values())
    same = difference("recall_at_1", compared, compared, seed=0, resamples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    noise = np.random.default_rng(0).normal(size=vectors.shape)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert difference("map_at_r", compared, compare(noise, identity), seed=0, groups=identity, resamples=200).low > 0


def test_the_loss_is_that_of_the_neighbours() -> None:
    vectors, identity = some(3, rows=20, identities=5)
    near = np.exp(vectors @ vectors.T / 0.1)
    np.fill_diagonal(near, 0)
    same = identity[:, None] == identity[None]
    own, asks = (near * same).sum(axis=1), same.sum(axis=1) > 1
    assert loss(vectors, identity) == pytest.approx(-np.log(own[asks] / near.sum(axis=1)[asks]).mean(), rel=1e-4)
    far = np.eye(2)[[0, 1, 0, 1]], np.array([0, 0, 1, 1])
    assert loss(*far, temperature=0.001) == pytest.approx(1000)  # exp of it is no number
    with pytest.raises(DataError):
        loss(np.zeros((0, 4)), np.zeros(0, dtype=int))
