"""Which batches, and which norms, tell running statistics for weights that no training step has seen: averages, mixtures."""

from __future__ import annotations

from torch import nn

from tunesmith.contracts import Indices
from tunesmith.data import batches
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
