"""Which weights matter for what a network can do: the diagonal of the Fisher information, for EWC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tunesmith import seeds
from tunesmith.contracts import Examples, Model, Scoring
from tunesmith.errors import SettingsError
from tunesmith.models.forward import device_of, evaluated, to
from tunesmith.train.weights import Tensors

MOST_ROWS = 128
"""Examples of each reference that are passed one by one."""


def importance(task: Scoring, model: Model, examples: Examples, seed: int, most: int = MOST_ROWS) -> Tensors:
    """Mean over examples of the squared gradient of each one's loss, by the parameter's name inside the backbone.

    With the loss of the labels as given this is the empirical Fisher information, which stands in for the one of
    labels drawn from the network's own answers (Kunstner et al. 2019, section 2).

    Args:
        model: the pre-trained network with a head for `task`; all is left as it was.

    Raises:
        SettingsError: the loss of a row by itself says nothing.
    """
    if task.compares:
        raise SettingsError(
            f"train.ewc asks for the loss of each row by itself, but {task.name} compares rows.",
            "Take another guard, or a loss of each row.",
        )
    device, module = device_of(model.module), model.module
    held = dict(module.get_submodule(model.backbone).named_parameters())
    wanted = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    total = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in held.items()}
    chosen = np.sort(seeds.generator(seed, "fisher").permutation(len(examples))[:most])
    try:
        module.requires_grad_(requires_grad=True)
        with evaluated(module):
            for index in chosen:
                one = np.array([index])
                # In fp32: casting all weights for one row would take longer than its products.
                logits = task.read(module(**to(task.inputs(examples, one, model), device)))
                found = torch.autograd.grad(
                    task.loss(logits, examples, one).sum, list(held.values()), allow_unused=True
                )
                for name, gradient in zip(held, found, strict=True):
                    if gradient is not None:
                        total[name].addcmul_(gradient, gradient, value=1 / len(chosen))
    finally:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(wanted[name])
    return total


def normalised(found: Sequence[Tensors]) -> Tensors:
    """The mean over references, each first divided by its mean over all weights, so that 1 is usual."""
    scaled = [_scaled(one) for one in found]
    return {name: sum((one[name] for one in scaled), torch.zeros(())) / len(scaled) for name in scaled[0]}


def _scaled(found: Tensors) -> Tensors:
    total = sum(float(tensor.double().sum()) for tensor in found.values())
    mean = total / sum(tensor.numel() for tensor in found.values())
    return {name: tensor / mean if mean else tensor for name, tensor in found.items()}
