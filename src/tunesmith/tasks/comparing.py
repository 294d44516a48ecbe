"""Losses that compare the vectors of a step with each other: which belong together, and how much.

Shared by all functions:
    vectors, anchors, positives, negatives: (rows, width) of length 1.
    target: (rows,) whole numbers; rows of one number belong together.
    scale: of cosines, one over the temperature.
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
    """Of all other rows those of its own must be the likely ones (Khosla et al. 2020, equation 2)."""
    same, other = _pairs(target)
    scores = scale * vectors @ vectors.T
    likely = scores - scores.masked_fill(~(same | other), -torch.inf).logsumexp(dim=1, keepdim=True)
    own = same.sum(dim=1)
    found = -(likely * same).sum(dim=1) / own.clamp(min=1)
    return found[(own > 0) & other.any(dim=1)].sum()


def cosent(cosines: torch.Tensor, scores: torch.Tensor, scale: float) -> torch.Tensor:
    """Of any two pairs the one with the higher score must be the more alike (CoSENT, Su 2022; sentence-transformers has it
    under this name). The loss is one of the whole step; each row has the same share of it.

    Args:
        cosines: (rows,) of the two texts of each row.
        scores: (rows,).
    """
    wrong = scale * (cosines[None, :] - cosines[:, None])
    ordered = scores[:, None] > scores[None, :]
    nothing = cosines.new_zeros(1)
    return len(cosines) * torch.cat([nothing, wrong[ordered]]).logsumexp(dim=0)


def cosine(cosines: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The squared distance of cosines from scores, (rows,) each (Reimers & Gurevych 2019, section 3: regression)."""
    return (cosines - scores).square().sum()


def ranking(anchors: torch.Tensor, candidates: torch.Tensor, allowed: torch.Tensor, scale: float) -> torch.Tensor:
    """Of all candidates of the step, each row's own must be the likely one (Henderson et al. 2017, section 4.4).

    Args:
        candidates: (rows or more, width); that of row i is the i-th.
        allowed: (rows, candidates): which of them count for a row; its own does.
    """
    scores = (scale * anchors @ candidates.T).masked_fill(~allowed, -torch.inf)
    own = torch.arange(len(anchors), device=anchors.device)
    found = torch.nn.functional.cross_entropy(scores, own, reduction="none")
    return found[allowed.sum(dim=1) > 1].sum()


def _pairs(target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, rows) each: which pairs of different rows belong together, and which do not."""
    same = target[:, None] == target
    return same & ~torch.eye(len(target), dtype=torch.bool, device=target.device), ~same
