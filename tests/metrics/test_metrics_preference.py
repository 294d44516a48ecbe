"""Figures of preferences, against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.errors import DataError
from tunesmith.metrics.preference import PRIMARY, by_row, hits, intervals

MARGINS, CHOSEN = np.array([2.0, -1.0, 0.0]), np.array([1.0, -2.0, 0.5])
BEFORE, TOKENS = np.array([[-10.0, -8.0], [-6.0, -6.0], [-4.0, -8.0]]), np.array([[5.0, 4.0], [2.0, 3.0], [4.0, 8.0]])


def test_a_tie_counts_half() -> None:
    assert hits(np.array([3.0, -0.1, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_rewards_are_beta_times_what_was_gained() -> None:
    found = by_row(MARGINS, CHOSEN, BEFORE, TOKENS, 0.1)
    assert found[PRIMARY].tolist() == [1.0, 0.0, 0.5]
    assert found["reward_chosen"] == pytest.approx([0.1, -0.2, 0.05])
    assert found["reward_rejected"] == pytest.approx([-0.1, -0.1, 0.05])
    assert found["reward_margin"] == pytest.approx([0.2, -0.1, 0.0])
    assert found["drift_chosen"] == pytest.approx([0.2, -1.0, 0.125])
    assert found["drift_rejected"] == pytest.approx([-0.25, -1 / 3, 0.0625])
    # Means a token: -9 / 5 and -9 / 4; -8 / 2 and -7 / 3; -3.5 / 4 and -7.5 / 8.
    assert found["likelihood_accuracy"].tolist() == [1.0, 0.0, 1.0]


def test_where_only_margins_are_known_there_is_the_accuracy_alone() -> None:
    assert set(by_row(MARGINS, np.full(3, np.nan), BEFORE, TOKENS, 0.1)) == {PRIMARY}


def test_intervals_hold_the_mean_and_groups_are_drawn_whole() -> None:
    values = {PRIMARY: np.array([1.0, 0.0] * 50), "reward_margin": np.linspace(-1, 1, 100)}
    found = intervals(values, seed=0)
    assert found[PRIMARY].value == 0.5
    assert found[PRIMARY].low < 0.5 < found[PRIMARY].high
    assert found["reward_margin"].value == pytest.approx(0)
    grouped = intervals(values, seed=0, groups=np.repeat(np.arange(50), 2))
    assert grouped[PRIMARY].low == grouped[PRIMARY].high == 0.5  # each group has one of both


def test_no_pair_and_no_number_are_refused() -> None:
    with pytest.raises(DataError, match="No pair is left"):
        by_row(MARGINS[:0], CHOSEN[:0], BEFORE[:0], TOKENS[:0], 0.1)
    with pytest.raises(DataError, match="1 of 3 margins are not finite"):
        by_row(np.array([1.0, np.nan, 2.0]), CHOSEN, BEFORE, TOKENS, 0.1)
