"""Centred kernel alignment and the nearest-neighbour vote, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.errors import DataError
from tunesmith.metrics.cka import linear_cka
from tunesmith.metrics.neighbours import votes

RANDOM = np.random.default_rng(0)


def test_cka_is_the_normalised_hsic_of_linear_kernels() -> None:
    """Kornblith et al. 2019, equations 3 and 4, with centring matrices written out."""
    x, y = RANDOM.normal(size=(9, 4)), RANDOM.normal(size=(9, 6)) + 3
    centring = np.eye(9) - 1 / 9

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        return float(np.trace(k @ centring @ m @ centring)) / 8**2

    k, m = x @ x.T, y @ y.T
    assert linear_cka(x, y) == pytest.approx(hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


def test_cka_is_one_for_the_same_up_to_turning_scale_and_shift_and_small_for_chance() -> None:
    x = RANDOM.normal(size=(400, 5)).astype(np.float32)
    turn, _ = np.linalg.qr(RANDOM.normal(size=(5, 5)))
    assert linear_cka(x, 7 * x @ turn + 2) == pytest.approx(1.0, abs=1e-6)
    chance = linear_cka(x, RANDOM.normal(size=(400, 5)))
    assert chance is not None
    assert chance < 0.1
    assert linear_cka(x, np.ones((400, 2))) is None
    with pytest.raises(DataError):
        linear_cka(x, x[:-1])


def test_neighbours_vote_by_cosine() -> None:
    known, asked = RANDOM.normal(size=(30, 4)), RANDOM.normal(size=(1_003, 4))
    targets = np.eye(3)[RANDOM.integers(3, size=30)]
    found = votes(known, targets, asked, 5)
    for row in (0, 500, 1_002):
        likeness = [float(one @ asked[row] / np.linalg.norm(one) / np.linalg.norm(asked[row])) for one in known]
        nearest = np.argsort(likeness)[::-1][:5]
        assert found[row] == pytest.approx(targets[nearest].mean(axis=0), abs=1e-3)
    assert found.sum(axis=1) == pytest.approx(np.ones(len(asked)))


def test_of_two_classes_with_as_many_neighbours_the_nearer_wins() -> None:
    known = np.array([[1.0, 0.0], [0.9, 0.5]])
    said = votes(known, np.eye(2), np.array([[1.0, 0.1], [0.9, 0.4]]), 2)
    assert said.argmax(axis=1).tolist() == [0, 1]
