"""Sharpness-aware minimisation: each gradient is taken where, within a small radius, the loss is highest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def climbed(module: nn.Module, parameters: Sequence[nn.Parameter], radius: float) -> Iterator[None]:
    """While it lasts, the weights stand a step of length `radius` up their gradient (Foret et al. 2021, equation 2).

    Gradients are cleared on the way up; afterwards the weights are what they were, to the bit. Running statistics of
    normalisation stay as the pass before left them.
    """
    moved = [one for one in parameters if one.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one.grad) for one in moved]))
    before = [one.detach().clone() for one in moved]
    statistics = [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
    momenta = [child.momentum for child in statistics]
    with torch.no_grad():
        for one in moved:
            assert one.grad is not None
            one.add_(one.grad, alpha=radius / max(float(norm), 1e-12))
            one.grad = None
    for child in statistics:
        child.momentum = 0.0
    try:
        yield
    finally:
        for child, momentum in zip(statistics, momenta, strict=True):
            child.momentum = momentum
        with torch.no_grad():
            for one, value in zip(moved, before, strict=True):
                one.copy_(value)
