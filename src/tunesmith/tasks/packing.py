"""Several rows in one sequence, in which none sees another: whether a network can, and what it would save."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tunesmith.contracts import Indices, Model
from tunesmith.data import batches
from tunesmith.data.dialogue import Dialogue
from tunesmith.models.forward import device_of, evaluated, to
from tunesmith.plans import BatchShape

TRIED = 3
"""Rows."""
SAME = 1e-4
"""Share of a loss by which two ways to compute it in fp32 may differ: sums are taken in another order."""


def keeps_apart(task: Any, examples: Dialogue, model: Model) -> bool:
    """Whether rows have the same losses packed as they have alone; networks that take no positions, or look back by other
    means, do not.

    Args:
        task: makes batches of `examples`, and losses of logits.
    """
    few = np.argsort(examples.lengths, kind="stable")[:TRIED]
    losses = []
    for given in (examples, examples.packed(int(examples.lengths[few].sum()))):
        batch = to(task.inputs(given, few, model), device_of(model.module))
        with evaluated(model.module), torch.inference_mode():
            try:
                losses.append(task.outcome(task.read(model.module(**batch)), given, few))
            except TypeError:  # it takes no positions
                return False
    alone, packed = losses
    return bool(torch.allclose(alone, packed, rtol=SAME, atol=SAME))


def padding(lengths: Indices, shape: BatchShape, seed: int) -> float:
    """The share of what an epoch passes forward in such batches that is padding, where each row is a sequence of its own.

    Args:
        lengths: (rows,) tokens.
    """
    parts = [
        part
        for step in batches.steps(lengths, shape.rows, seed, 0)
        for part in batches.micro_batches(step, lengths, shape.micro_batch_tokens)
    ]
    return 1 - float(lengths.sum()) / sum(len(part) * int(lengths[part].max()) for part in parts)
