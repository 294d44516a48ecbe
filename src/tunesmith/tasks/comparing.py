"""Losses that compare the vectors of a step with each other: which belong together, and which do not.

Shared by all functions:
    vectors: (rows, width) of length 1.
    target: (rows,) whole numbers; rows of one number belong together.
Each gives the sum over rows, scalar; a row that has nothing to be compared with adds 0.
"""

from __future__ import annotations

import torch


def triplet(vectors: torch.Tensor, target: torch.Tensor, margin: float) -> torch.Tensor:
    """Each row must be nearer to the furthest row of its own than to the nearest other one, by `margin`.

    Hermans et al. 2017, equation 5 (batch hard), with the squared distances of Schroff et al. 2015, equation 1.
    """
    apart = 2 - 2 * vectors @ vectors.T
    same, other = _pairs(target)
    furthest = apart.masked_fill(~same, -torch.inf).amax(dim=1)
    nearest = apart.masked_fill(~other, torch.inf).amin(dim=1)
    known = same.any(dim=1) & other.any(dim=1)
    return (margin + furthest[known] - nearest[known]).clamp(min=0).sum()


def contrastive(vectors: torch.Tensor, target: torch.Tensor, scale: float) -> torch.Tensor:
    """Of all other rows those of its own must be the likely ones (Khosla et al. 2020, equation 2).

    Args:
        scale: of cosines, one over the temperature.
    """
    same, other = _pairs(target)
    scores = scale * vectors @ vectors.T
    likely = scores - scores.masked_fill(~(same | other), -torch.inf).logsumexp(dim=1, keepdim=True)
    own = same.sum(dim=1)
    found = -(likely * same).sum(dim=1) / own.clamp(min=1)
    return found[(own > 0) & other.any(dim=1)].sum()


def _pairs(target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, rows) each: which pairs of different rows belong together, and which do not."""
    same = target[:, None] == target
    return same & ~torch.eye(len(target), dtype=torch.bool, device=target.device), ~same
