"""A linear head as the solution of a regularised problem on frozen features; strength chosen on validation.

Logistic regression with an L2 penalty for one label a row (softmax) and for several (one sigmoid each), ridge
regression for scores: Bishop 2006, sections 4.3 and 3.1.4. Features and scores are standardised inside, so that one
list of strengths fits every backbone and every unit; the solution is given back for both as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tunesmith import seeds

Features = npt.NDArray[np.float32]
Score = Callable[[npt.NDArray[Any]], float]
STRENGTHS = (10.0, 1.0, 0.1, 0.01)
"""Penalty on the squared weights of standardised features, times the width, beside the mean loss; strong to weak."""

GRADIENT = 1e-4
"""The largest slope of the mean loss, by a weight of standardised features, at which a solution is good enough. Tags of words
take half as many passes over the rows as with a tenth of it, and 0.3 % of the answers differ, at the weakest penalty."""


SEARCHED = 20_000
"""Rows on which the penalty is chosen, at most."""


@dataclass(frozen=True)
class Solution:
    """A linear map from features to logits, and how good it is on validation (higher is better)."""

    weight: npt.NDArray[np.float64]
    """(outputs, width)."""
    bias: npt.NDArray[np.float64]
    """(outputs,)."""
    strength: float
    score: float

    def logits(self, features: Features) -> npt.NDArray[np.float64]:
        """(rows, outputs)."""
        return np.asarray(features @ self.weight.T + self.bias)


def solve(
    features: Features,
    targets: npt.NDArray[Any],
    validation: Features,
    score: Score,
    outputs: int,
    *,
    bias: bool = True,
    strengths: tuple[float, ...] = STRENGTHS,
    weights: npt.NDArray[Any] | None = None,
) -> Solution:
    """The best of the solutions over `strengths`, each started from the one before.

    Args:
        features: (rows, width) of the training rows.
        targets: (rows,) class indices, (rows, outputs) of 0 and 1, or (rows,) scores (floats).
        validation: (rows, width) of the validation rows.
        score: quality of logits (validation rows, outputs), higher is better.
        outputs: number of logits.
        bias: whether the layer that takes the solution has a bias.
        strengths: penalties, strong to weak.
        weights: (rows,) what each row counts, 1 on average; all alike when it is None.

    Returns:
        The solution with the best score; the stronger penalty where two are equal. Of more than SEARCHED rows so many choose,
        and all are solved for from where that ended.
    """
    centre = features.mean(axis=0, dtype=np.float64) if bias else np.zeros(features.shape[1])
    scale = np.sqrt(np.square(features - centre).mean(axis=0, dtype=np.float64)) + 1e-6
    x = torch.from_numpy(((features - centre) / scale).astype(np.float32))
    scores = targets.ndim == 1 and np.issubdtype(targets.dtype, np.floating)
    middle = float(targets.mean()) if scores and bias else 0.0
    spread = float(targets.std()) or 1.0 if scores else 1.0
    goal = torch.from_numpy((targets - middle) / spread if scores else targets)
    each = None if weights is None else torch.from_numpy(weights.astype(np.float32))
    parts: list[Any] = [slice(None)]
    if len(x) > SEARCHED and len(strengths) > 1:
        parts = [_some(len(x)), slice(None)]

    def solved(start: torch.Tensor, strength: float, rows: Any) -> tuple[torch.Tensor, Solution]:
        own = None if each is None else each[rows]
        found = _minimise(x[rows], goal[rows], own, start, strength / features.shape[1], bias)
        weight = spread * found[:, :-1].double().numpy() / scale
        offset = spread * found[:, -1].double().numpy() + middle - weight @ centre
        candidate = Solution(weight, offset, strength, 0.0)
        return found, replace(candidate, score=score(candidate.logits(validation)))

    start = torch.zeros(outputs, features.shape[1] + 1)
    path = []
    for strength in strengths:
        start, found = solved(start, strength, parts[0])
        path.append((start, found))
    start, best = max(path, key=lambda one: one[1].score)  # of equals the first
    return best if len(parts) == 1 else solved(start, best.strength, parts[1])[1]


def _some(rows: int) -> torch.Tensor:
    """SEARCHED of so many rows, always the same."""
    return torch.from_numpy(np.sort(seeds.generator(0, "rows of a search").permutation(rows)[:SEARCHED]))


def _minimise(
    x: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    start: torch.Tensor,
    strength: float,
    bias: bool,
) -> torch.Tensor:
    """Weights and bias, (outputs, width + 1), of least mean loss plus penalty; L-BFGS from `start`."""
    parameters = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [parameters],
        max_iter=100,
        tolerance_grad=GRADIENT,
        tolerance_change=1e-7,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> torch.Tensor:
        optimiser.zero_grad()
        logits = x @ parameters[:, :-1].T
        if bias:
            logits = logits + parameters[:, -1]
        losses = _losses(logits, targets)
        mean = losses.mean() if weights is None else (losses * weights).mean()
        value = mean + 0.5 * strength * parameters[:, :-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(objective)  # type: ignore[no-untyped-call]
    return parameters.detach()


def _losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(rows,)."""
    if targets.ndim == 2:
        each = functional.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none")
        return each.sum(1)
    if targets.is_floating_point():
        return (logits[:, 0] - targets.float()).square() / 2
    return functional.cross_entropy(logits, targets.long(), reduction="none")
