"""Forward passes in the plan's precision, with and without gradients, and the features that a probe needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from tunesmith.contracts import Array, Batch, Collate, Examples, Indices, Model, Scoring, Task
from tunesmith.data import batches

INFERENCE_TOKENS = 4096
"""Padded tokens of a forward pass that keeps no activations."""


@contextmanager
def precision(device: torch.device, name: str) -> Iterator[None]:
    """Matrix products in bf16 where the plan says so; weights, sums and the loss stay fp32."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=name == "bf16"):
        yield


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """`module` in eval mode while the block lasts; afterwards every part is in the mode that it had."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode


def device_of(module: nn.Module) -> torch.device:
    """Where the weights of `module` are."""
    return next(module.parameters()).device


def to(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """`batch` on `device`."""
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


Take = Callable[[Any, dict[str, torch.Tensor], Indices], dict[str, torch.Tensor]]


def outputs(module: nn.Module, lengths: Indices, collate: Collate, take: Take, precision_name: str) -> dict[str, Array]:
    """One pass in eval mode; what `take` picks from each (network output, batch, indices), in the order of the examples.

    Args:
        lengths: (pieces,) tokens of each example.
        collate: indices to a batch.
        take: named tensors (batch, …) from an output and its batch.
    """
    device = device_of(module)
    kept: dict[str, Array] = {}
    with evaluated(module), torch.inference_mode(), precision(device, precision_name):
        for indices in batches.in_length_order(lengths, INFERENCE_TOKENS):
            batch = to(collate(indices), device)
            for name, value in take(module(**batch), batch, indices).items():
                found = value.float().cpu().numpy()
                if name not in kept:
                    kept[name] = np.empty((len(lengths), *found.shape[1:]), dtype=np.float32)
                kept[name][indices] = found
    return kept


def logits(
    task: Scoring, model: Model, examples: Examples, precision_name: str, collate: Collate | None = None
) -> Array:
    """(rows, outputs): what the task keeps of the model's logits for each row, pieces of one row brought together.

    Args:
        collate: makes the batches where the task's own inputs are not all that the network is given.
    """
    found = outputs(
        model.module,
        examples.lengths,
        collate or (lambda indices: task.inputs(examples, indices, model)),
        lambda output, _, indices: {"outcome": task.outcome(task.read(output), examples, indices)},
        precision_name,
    )
    return task.decode(examples, found["outcome"])


def sampled(task: Task, model: Model, examples: Examples, precision_name: str, collate: Collate | None = None) -> Array:
    """`logits`, with what the task lets the network write of a few rows, by which models are chosen."""
    found = logits(task, model, examples, precision_name, collate)
    return task.sampled(model, examples, found, precision_name)


def scores(
    task: Task, model: Model, examples: Examples, precision_name: str, collate: Collate | None = None
) -> Mapping[str, float]:
    """What the task's `score` says of the model on `examples`, which a learning curve and a choice are made of."""
    return task.score(examples, sampled(task, model, examples, precision_name, collate))


def answers(task: Task, model: Model, examples: Examples, precision_name: str, *, every: bool = False) -> Array:
    """`logits`, with what the task lets the network write beside them, for `every` row or for as many as it measures by."""
    return task.answered(model, examples, logits(task, model, examples, precision_name), precision_name, every=every)
