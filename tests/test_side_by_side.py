"""What benchmarks say of two contestants."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
side_by_side = pytest.importorskip("side_by_side")


def mean(rows: np.ndarray) -> float:
    return float(rows[:, 0].mean())


def test_the_interval_is_of_the_difference_row_by_row() -> None:
    """What is hard for both says nothing about which is better."""
    hard = np.random.default_rng(0).normal(0, 10, 200)
    rows = np.arange(200.0)
    ours = [np.stack([hard + 1, rows], 1), np.stack([hard + 3, rows], 1)]
    theirs = [np.stack([hard, rows], 1)]
    gain, low, high = side_by_side.apart(ours, theirs, mean, 1)
    assert (gain, low, high) == pytest.approx((2, 2, 2))


def test_rows_in_another_order_are_not_compared() -> None:
    rows = np.stack([np.zeros(5), np.arange(5.0)], 1)
    with pytest.raises(SystemExit, match="not in the same order"):
        side_by_side.apart([rows], [rows[::-1]], mean, 1)
