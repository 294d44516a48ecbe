"""Losses of pairs: how far the chosen answer has moved away from the rejected one, from where both were before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

Name = Literal["dpo", "ipo", "hinge"]


@dataclass(frozen=True)
class Wanted:
    """Which loss, and its numbers."""

    loss: Name
    beta: float
    label_smoothing: float
    sft: float


def losses(now: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor, wanted: Wanted) -> torch.Tensor:
    """(rows,) the loss of each pair.

    With `sft`, the mean loss a token of the chosen answer is added so many times, after Pang et al. 2024.

    Args:
        now: (rows, 2) log-probabilities of the chosen and of the rejected answer.
        reference: (rows, 2) the same before training.
        tokens: (rows, 2) of both; at least 1.
    """
    found = _LOSSES[wanted.loss](now - reference, tokens, wanted)
    if wanted.sft:
        found = found - wanted.sft * now[:, 0] / tokens[:, 0]
    return found


def _dpo(grown: torch.Tensor, _: torch.Tensor, wanted: Wanted) -> torch.Tensor:
    """Rafailov et al. 2023, equation 7; where a share of the labels is taken to be wrong, Mitchell 2023."""
    margins = wanted.beta * (grown[:, 0] - grown[:, 1])
    right, wrong = functional.logsigmoid(margins), functional.logsigmoid(-margins)
    return -(1 - wanted.label_smoothing) * right - wanted.label_smoothing * wrong


def _ipo(grown: torch.Tensor, tokens: torch.Tensor, wanted: Wanted) -> torch.Tensor:
    """Azar et al. 2023, equation 17, of means over tokens, without which the loss would grow with the length."""
    means = grown / tokens
    return (means[:, 0] - means[:, 1] - 1 / (2 * wanted.beta)).square()


def _hinge(grown: torch.Tensor, _: torch.Tensor, wanted: Wanted) -> torch.Tensor:
    """Zhao et al. 2023 (SLiC), with the growth of log-probabilities in their place, as Liu et al. 2023 (RSO) have it."""
    return (1 - wanted.beta * (grown[:, 0] - grown[:, 1])).relu()


_LOSSES: Mapping[str, Callable[[torch.Tensor, torch.Tensor, Wanted], torch.Tensor]] = {
    "dpo": _dpo,
    "ipo": _ipo,
    "hinge": _hinge,
}
