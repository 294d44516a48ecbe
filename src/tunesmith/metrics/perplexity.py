"""Perplexity: the exponential of the mean loss a token, over all tokens of all rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError
from tunesmith.metrics.checks import check_finite, check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

NO_TOKEN, LONGER = "No text has a token that a language model could be asked for.", "Give longer texts."
Array = npt.NDArray[np.float64]


def perplexity(losses: Array, tokens: Array) -> float:
    """exp(sum of losses / sum of tokens).

    Args:
        losses: (rows,) the sum over the tokens of each row of minus the logarithm of the probability that they were given.
        tokens: (rows,) how many there are; a row may have none.

    Raises:
        DataError: there is no row or no token, lengths differ, or a loss is not finite.
    """
    _check(losses, tokens)
    return float(np.exp(losses.sum() / tokens.sum()))


def by_frequency(told: npt.NDArray[np.int32], vocabulary: int) -> Array:
    """(vocabulary,) the loss of telling each token by how often it is among `told`, each counted once more than it is."""
    counts = np.ones(vocabulary)
    np.add.at(counts, told, 1)
    return np.asarray(-np.log(counts / counts.sum()), dtype=np.float64)


def interval(
    losses: Array, tokens: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """`perplexity` with its interval, drawn by row; see `bootstrap` for the other arguments."""
    return difference(losses, None, tokens, seed=seed, groups=groups, resamples=resamples, confidence=confidence)


def difference(
    first: Array,
    second: Array | None,
    tokens: Array,
    others: Array | None = None,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Perplexity of the losses `first` minus that of `second` (0 when it is None), on the same resampled rows.

    Args:
        others: (rows,) the tokens that `second` is summed over, where they are not `tokens`.
    """
    sides = [(first, tokens)] if second is None else [(first, tokens), (second, tokens if others is None else others)]
    for losses, counts in sides:
        _check(losses, counts)
    # Rows without a token say nothing, and a resample of nothing else has no perplexity.
    kept = np.all([counts > 0 for _, counts in sides], axis=0)
    sides = [(losses[kept], counts[kept]) for losses, counts in sides]
    groups = None if groups is None else groups[kept]

    def gap(weights: Array) -> dict[str, Array]:
        values = [np.exp(weights @ losses / (weights @ counts)) for losses, counts in sides]
        return {"gap": values[0] - values[1] if second is not None else values[0]}

    rows = int(kept.sum())
    drawn = weigh(gap, rows, seed, groups, resamples)
    value = float(gap(np.ones((1, rows)))["gap"][0])
    return percentiles({"gap": value}, drawn, confidence)["gap"]


def _check(losses: Array, tokens: Array) -> None:
    check_rows(losses, tokens)
    check_finite(losses, "losses")
    if not tokens.sum() > 0:
        raise DataError(NO_TOKEN, LONGER)
