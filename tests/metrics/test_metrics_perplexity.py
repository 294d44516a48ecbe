"""Perplexity: over all tokens, not the mean over rows; with intervals by row."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunesmith.errors import DataError
from tunesmith.metrics import perplexity
from tunesmith.metrics.direction import share_kept


def test_tokens_count_alike_whatever_row_they_stand_in() -> None:
    losses, tokens = np.array([2.0, 30.0]), np.array([1.0, 10.0])
    assert perplexity.perplexity(losses, tokens) == pytest.approx(math.exp(32 / 11))


def test_a_uniform_guess_over_a_vocabulary_has_its_size() -> None:
    tokens = np.arange(1.0, 50.0)
    found = perplexity.interval(tokens * math.log(1000), tokens, seed=0, resamples=200)
    assert (found.value, found.low, found.high) == pytest.approx((1000, 1000, 1000))


def test_the_difference_is_paired() -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(1, 50, size=300).astype(float)
    losses = tokens * random.uniform(1, 6, size=300)
    worse = losses + 0.05 * tokens
    gap = perplexity.difference(worse, losses, tokens, seed=0)
    alone = perplexity.interval(losses, tokens, seed=0)
    assert 0 < gap.low < gap.value < gap.high
    assert gap.high - gap.low < (alone.high - alone.low) / 5


def test_each_side_of_a_difference_is_a_mean_over_its_own_tokens() -> None:
    """As of other tokenizers, which make more tokens of the same text."""
    tokens, others = np.array([2.0, 4.0, 6.0]), np.array([3.0, 6.0, 9.0])
    gap = perplexity.difference(tokens * math.log(10), others * math.log(7), tokens, others, seed=0)
    assert (gap.value, gap.low, gap.high) == pytest.approx((3, 3, 3))


def test_rows_without_a_token_change_nothing() -> None:
    tokens = np.array([0.0, 4.0, 5.0, 0.0, 6.0])
    losses = tokens * np.array([0.0, 2.0, 3.0, 0.0, 1.0])
    found = perplexity.interval(losses, tokens, seed=0)
    bare = perplexity.interval(losses[tokens > 0], tokens[tokens > 0], seed=0)
    assert found == bare


def test_what_has_no_perplexity_is_refused() -> None:
    with pytest.raises(DataError, match="No text has a token"):
        perplexity.perplexity(np.zeros(3), np.zeros(3))
    with pytest.raises(DataError, match="not finite"):
        perplexity.interval(np.array([np.nan, 1.0]), np.ones(2), seed=0)


def test_what_is_kept_of_less_is_better() -> None:
    assert share_kept("perplexity", 100.0, 125.0) == pytest.approx(0.8)
    assert share_kept("accuracy", 0.8, 0.6) == pytest.approx(0.75)
    assert share_kept("accuracy", 0.0, 0.6) == 1.0
