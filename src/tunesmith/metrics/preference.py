"""How well a network prefers what people preferred, from the log-probabilities of both answers, now and before training.

The reward that a network gives an answer is beta times how much likelier it became (Rafailov et al. 2023, equation 5, up to
what is the same for all answers to a prompt).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError
from tunesmith.metrics.checks import check_finite, check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

Array = npt.NDArray[Any]
PRIMARY = "preference_accuracy"


def hits(margins: Array) -> Array:
    """(rows,) 1 where the chosen answer is ahead, 0 where the rejected one is, ½ where neither."""
    return np.heaviside(margins, 0.5)


def by_row(margins: Array, chosen: Array, reference: Array, tokens: Array, beta: float) -> dict[str, Array]:
    """The metrics of each row, (rows,) by name; where only margins are known, the accuracy alone.

    Args:
        margins: (rows,) by how much more the log-probability of the chosen answer grew than that of the rejected one.
        chosen: (rows,) by how much that of the chosen answer grew; not a number where only margins are known.
        reference: (rows, 2) log-probabilities before training.
        tokens: (rows, 2) of both answers.

    Raises:
        DataError: there is no row, or a margin is not finite.
    """
    if not len(margins):
        raise DataError("No pair is left to measure.", "Raise task.max_length, or give shorter prompts and answers.")
    check_rows(margins, chosen, reference, tokens)
    check_finite(margins, "margins")
    found = {PRIMARY: hits(margins)}
    if np.isnan(chosen).all():
        return found
    grown = np.stack([chosen, chosen - margins], axis=1)
    mean = (reference + grown) / tokens
    return found | {
        "reward_margin": beta * margins,
        "reward_chosen": beta * grown[:, 0],
        "reward_rejected": beta * grown[:, 1],
        "likelihood_accuracy": hits(mean[:, 0] - mean[:, 1]),
        "drift_chosen": grown[:, 0] / tokens[:, 0],
        "drift_rejected": grown[:, 1] / tokens[:, 1],
    }


def intervals(
    values: Mapping[str, Array], *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """The mean of each of `values`, (rows,) by name, with its interval."""
    table = np.stack(list(values.values()), axis=1)

    def means(weights: Array) -> dict[str, Array]:
        found = weights @ table / weights.sum(axis=1, keepdims=True)
        return {name: found[:, column] for column, name in enumerate(values)}

    whole = {name: float(one.mean()) for name, one in values.items()}
    return percentiles(whole, weigh(means, len(table), seed, groups, resamples), confidence)
