"""Running statistics of batch normalisation for weights that no training step has seen: averages and mixtures."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from tunesmith.contracts import Batch, Indices
from tunesmith.data import batches
from tunesmith.models.forward import device_of, evaluated, precision, to
from tunesmith.plans import BatchShape

MOST_BATCHES = 64


def parts(lengths: Indices, batch: BatchShape, seed: int) -> list[Indices]:
    """Examples of some training batches, drawn as steps are."""
    chosen = batches.steps(lengths, batch.rows, seed, 0)[:MOST_BATCHES]
    return [part for step in chosen for part in batches.micro_batches(step, lengths, batch.micro_batch_tokens)]


def training_norms(module: nn.Module) -> list[nn.Module]:
    """The normalisations of `module` that keep running statistics and are in train mode."""
    return [
        child
        for child in module.modules()
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.track_running_stats and child.training
    ]


def reestimate(module: nn.Module, norms: Iterable[nn.Module], given: Iterable[Batch], precision_name: str) -> None:
    """Let `norms` take mean and variance over the batches `given`, all counting alike (Izmailov et al. 2018, section 3.2).

    Everything else is in eval mode for that long: no dropout is drawn.
    """
    device = device_of(module)
    chosen = list(norms)
    momenta = [child.momentum for child in chosen]
    for child in chosen:
        child.reset_running_stats()  # type: ignore[operator]
        child.momentum = None  # type: ignore[assignment]  # the mean over all batches
    try:
        with evaluated(module), torch.no_grad(), precision(device, precision_name):
            for child in chosen:
                child.training = True
            for batch in given:
                module(**to(batch, device))
    finally:
        for child, momentum in zip(chosen, momenta, strict=True):
            child.momentum = momentum
