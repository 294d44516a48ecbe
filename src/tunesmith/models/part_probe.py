"""The linear probe of parts of inputs, pixels or words: what a last layer on frozen features can do, solved for on some parts
of every input."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.contracts import Array, Batched, Features, Head, Model
from tunesmith.models import heads
from tunesmith.models.pooling import OWN
from tunesmith.models.probes import MOST_ROWS, START_STRENGTH
from tunesmith.models.solver import STRENGTHS, Solution, solve

LEAST_PARTS = 16
"""Of an input, however many inputs there are."""
TARGET = "target"
Drawn = Callable[[Batched], dict[str, Array]]
"""Inputs to what the last layer receives at some parts of each, under OWN (parts, width), and their classes, under TARGET."""


def find(
    model: Model,
    train: Batched,
    validation: Batched,
    score: Callable[[Array, Array], float],
    drawn: Drawn,
    *,
    gentle: bool,
    kept: Features,
    weights: Array | None = None,
) -> tuple[Head, Head, dict[str, float]]:
    """Solve for the last layer.

    Args:
        score: quality of logits (parts, classes) for the truth (parts,), higher is better.
        gentle: whether training goes on from the head, so that it has a strong penalty.
        kept: features of this very network from before; filled here where they are missing.
        weights: (classes,) what a part of each class counts; all alike when it is None.

    Returns:
        The best head, the head to go on with, and the best one's score.
    """
    if not kept.by_split:
        for name, given in (("train", train), ("validation", validation)):
            kept.by_split[name] = drawn(given)
    own, others = kept.by_split["train"], kept.by_split["validation"]
    solutions: dict[tuple[str, tuple[float, ...]], Solution] = kept.solved
    bias = heads.last_layer(model).bias is not None

    def solved(strengths: tuple[float, ...]) -> Solution:
        if (OWN, strengths) not in solutions:
            solutions[OWN, strengths] = solve(
                own[OWN],
                own[TARGET],
                others[OWN],
                lambda logits: score(others[TARGET], logits),
                heads.outputs_of(model),
                bias=bias,
                strengths=strengths,
                weights=None if weights is None else weights[own[TARGET]],
            )
        return solutions[OWN, strengths]

    best = solved(STRENGTHS)
    start = solved((START_STRENGTH,)) if gentle else best
    probe, first = (Head(OWN, one.weight, one.bias) for one in (best, start))
    return probe, first, {OWN: best.score}


def drawn_of(inputs: int) -> int:
    """How many parts are drawn from each of so many inputs."""
    return max(LEAST_PARTS, MOST_ROWS // max(1, inputs))
