"""How well hidden tokens are told: the perplexity over all of them, and the share that is told right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError
from tunesmith.metrics import perplexity
from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.perplexity import LONGER, NO_TOKEN
from tunesmith.metrics.resampling import Groups, percentiles, weigh

PERPLEXITY, ACCURACY = "masked_perplexity", "masked_accuracy"
Array = npt.NDArray[np.float64]


def intervals(
    losses: Array,
    right: Array,
    tokens: Array,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Mapping[str, Interval]:
    """Perplexity and accuracy of hidden tokens with their intervals, drawn by row.

    Args:
        losses: (rows,) minus the logarithm of the probability that the hidden tokens were given, summed over each row.
        right: (rows,) how many of them were told.
        tokens: (rows,) how many there are; a row may have none.

    Raises:
        DataError: there is no row or no token, lengths differ, or a loss is not finite.
    """
    check_rows(right, tokens)
    how = {"seed": seed, "resamples": resamples, "confidence": confidence}
    found = perplexity.interval(losses, tokens, groups=groups, **how)  # type: ignore[arg-type]
    kept = tokens > 0
    hits, counts, groups = right[kept], tokens[kept], None if groups is None else groups[kept]

    def share(weights: Array) -> dict[str, Array]:
        return {ACCURACY: (weights @ hits) / (weights @ counts)}

    drawn = weigh(share, len(counts), seed, groups, resamples)
    whole = {ACCURACY: float(share(np.ones((1, len(counts))))[ACCURACY][0])}
    return {PERPLEXITY: found, **percentiles(whole, drawn, confidence)}


def insist(tokens: Array) -> None:
    """Raise DataError where no row has a token to tell."""
    if not tokens.sum() > 0:
        raise DataError(NO_TOKEN, LONGER)
