"""Several rows in one sequence, in which none sees another: whether a network can, and what it would save."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from tunesmith.contracts import Indices, Model
from tunesmith.data import batches
from tunesmith.data.dialogue import Dialogue, together
from tunesmith.models.forward import device_of, evaluated, to
from tunesmith.plans import BatchShape

TRIED = 64
"""Rows that are tried, at most, in one sequence: shorter ones would fit into windows and chunks that longer ones do not."""
SAME = 1e-4
"""Share of a loss by which two ways to compute it in fp32 may differ: sums are taken in another order."""


def _surprises(record: logging.LogRecord) -> bool:
    """Whether a warning of transformers is more than that a batch has no mask: packed ones have none, and need none."""
    return "passing in an `attention_mask`" not in record.getMessage()


def keeps_apart(task: Any, examples: Dialogue, model: Model) -> bool:
    """Whether rows have the same losses packed as they have alone, and none hangs on what stands in another; networks that
    take no positions, or look back by other means, do not keep them apart.

    Args:
        task: makes batches of `examples`, and losses of logits.
    """
    logging.getLogger("transformers.modeling_utils").addFilter(_surprises)  # the same filter again changes nothing
    order = np.argsort(examples.lengths, kind="stable")
    few = order[: max(2, min(TRIED, int((np.cumsum(examples.lengths[order]) <= model.limit).sum())))]
    packed = examples.packed(int(examples.lengths[few].sum()))
    try:
        alone, side_by_side = (_losses(task, given, few, model) for given in (examples, packed))
    except TypeError:  # it takes no positions
        return False
    return bool(torch.allclose(alone, side_by_side, rtol=SAME, atol=SAME)) and not _leaks(task, packed, few, model)


def _losses(task: Any, examples: Dialogue, few: Indices, model: Model) -> torch.Tensor:
    batch = to(task.inputs(examples, few, model), device_of(model.module))
    with evaluated(model.module), torch.inference_mode():
        return task.outcome(task.read(model.module(**batch)), examples, few)  # type: ignore[no-any-return]


def _leaks(task: Any, packed: Dialogue, few: Indices, model: Model) -> bool:
    """Whether the loss of every other row has a gradient in the vectors of the rows between: in a network whose weights are
    small, or are yet to train, losses alone would hardly show that rows see each other."""
    network: Any = model.module
    vectors: list[torch.Tensor] = []

    def held(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        vectors.append(output.detach().requires_grad_())
        return vectors[-1].clone()  # some networks scale it in place

    batch = to(task.inputs(packed, few, model), device_of(network))
    lengths = packed.lengths[few]
    _, start = together(lengths, packed.room)
    even, odd = np.argsort(start)[::2], np.argsort(start)[1::2]
    others = np.concatenate([np.arange(start[piece], start[piece] + lengths[piece]) for piece in even])
    hook = network.get_input_embeddings().register_forward_hook(held)
    try:
        with evaluated(network), torch.enable_grad():
            losses = task.outcome(task.read(network(**batch)), packed, few)
            (found,) = torch.autograd.grad(losses[odd].sum(), vectors)
    finally:
        hook.remove()
    return bool(found[0, others].any())


def padding(lengths: Indices, shape: BatchShape, seed: int) -> float:
    """The share of what an epoch passes forward in such batches that is padding, where each row is a sequence of its own.

    Args:
        lengths: (rows,) tokens.
    """
    parts = [
        part
        for step in batches.steps(lengths, shape.rows, seed, 0, alike=False)
        for part in batches.micro_batches(step, lengths, shape.micro_batch_tokens, spare=True)
    ]
    return 1 - float(lengths.sum()) / sum(len(part) * int(lengths[part].max()) for part in parts)
