"""Running statistics of batch normalisation, taken from data where no training step did."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tunesmith.contracts import Batch, Model
from tunesmith.models.forward import device_of, evaluated, precision, to
from tunesmith.models.heads import outside


def fresh_norms(model: Model) -> list[nn.Module]:
    """The normalisations of the head that have seen nothing yet, as those of a new head."""
    return [child for child in outside(model) if isinstance(child, _BatchNorm) and _blank(child)]


def _blank(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and not mean.any() and bool((variance == 1).all())


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
