"""Which way a metric gets better."""

from __future__ import annotations

LOWER_IS_BETTER = frozenset({"perplexity", "pseudo_perplexity", "masked_perplexity"})
"""Metrics of which less is better; of all others more is."""


def sign(metric: str) -> int:
    """1 where more of `metric` is better, -1 where less is: what its values are multiplied by to be ordered."""
    return -1 if metric in LOWER_IS_BETTER else 1


def share_kept(metric: str, before: float, after: float) -> float:
    """How much of the quality `before` is left: 1 for all of it, more for a gain, and 1 where there was nothing to lose."""
    if metric in LOWER_IS_BETTER:
        before, after = after, before
    return after / before if before > 0 else 1.0
