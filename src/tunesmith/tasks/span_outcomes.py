"""What is kept of a network's answers to a question: the loss, how likely no answer is, and the best span.

A row of numbers for each piece, and for each row: LOSS, NONE, BEST, START, END.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from tunesmith.contracts import Array, Indices
from tunesmith.data.passages import Passages

LOSS, NONE, BEST, START, END = range(5)
"""The loss; the logit of no answer; that of the best span; where that starts and ends in the passage, in characters."""
NEVER = -1e9
"""A logit that nothing takes."""


def losses(logits: torch.Tensor, examples: Passages, indices: Indices) -> torch.Tensor:
    """(len(indices),): the mean of the two cross-entropies, of where the answer starts and ends (Devlin et al. 2019, section
    4.2), over the places where it may.

    Args:
        logits: (len(indices), tokens, 2).
    """
    assert examples.answer is not None
    allowed = torch.from_numpy(examples.spans_at(indices)[..., 0] >= 0).to(logits.device)
    allowed[:, 0] = True  # the first token stands for no answer in this piece
    masked = logits.masked_fill(~allowed[..., None], NEVER)
    truth = torch.from_numpy(examples.answer[indices]).to(logits.device)
    return functional.cross_entropy(masked, truth, reduction="none").mean(dim=1)


def outcomes(logits: torch.Tensor, examples: Passages, indices: Indices, longest: int) -> torch.Tensor:
    """(len(indices), 5): what is kept of `logits`, (len(indices), tokens, 2); spans are of at most `longest` tokens."""
    spans = torch.from_numpy(examples.spans_at(indices)).to(logits.device)
    usable = spans[..., 0] >= 0
    longest = min(longest, logits.shape[1])
    start, end = (logits[..., side].masked_fill(~usable, NEVER) for side in (0, 1))
    ahead = functional.pad(end, (0, longest - 1), value=NEVER).unfold(1, longest, 1)  # of each place, those after it
    best_end, steps = ahead.max(dim=2)
    best, first = (start + best_end).max(dim=1)
    rows = torch.arange(len(indices), device=logits.device)
    last = first + steps[rows, first]
    loss = losses(logits, examples, indices) if examples.answer is not None else torch.zeros_like(best)
    found = [loss, logits[:, 0].sum(dim=1), best, spans[rows, first, 0], spans[rows, last, 1]]
    return torch.stack([one.float() for one in found], dim=1)


def by_row(examples: Passages, found: Array) -> Array:
    """(rows, 5) of (pieces, 5): the best span of all pieces, and no answer as unlikely as in the piece where it is least so
    (as SQuAD 2.0's baselines have it)."""
    order = np.lexsort((-found[:, BEST], examples.owner))
    first = np.searchsorted(examples.owner[order], np.arange(examples.rows))
    rows = found[order[first]].copy()
    rows[:, LOSS] = np.bincount(examples.owner, weights=found[:, LOSS] * examples.weights, minlength=examples.rows)
    np.minimum.at(none := np.full(examples.rows, np.inf), examples.owner, found[:, NONE])
    rows[:, NONE] = none
    return rows


def margins(found: Array) -> Array:
    """(rows,): by how much no answer is likelier than the best span."""
    return np.asarray(found[:, NONE].astype(np.float64) - found[:, BEST])


def answers(found: Array, passages: list[str], threshold: float) -> list[str]:
    """What is answered to each question; nothing where its margin is above `threshold`."""
    return [
        "" if margin > threshold else text[int(start) : int(end)]
        for text, margin, start, end in zip(passages, margins(found), found[:, START], found[:, END], strict=True)
    ]


def span_of(found: Array) -> tuple[int, int]:
    """Where the best span of a row's outcome starts and ends in its passage."""
    return int(found[START]), int(found[END])
