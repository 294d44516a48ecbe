"""The pre-trained part of a network apart from its head: taken out, and put behind another head for a while."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch

from tunesmith.contracts import Model
from tunesmith.errors import ModelError
from tunesmith.models import adapters

Tensors = Mapping[str, torch.Tensor]


def merged_copy(model: Model) -> Model:
    """`model` once more, in memory of its own, with adapters folded into the weights where there are any."""
    again = replace(model, module=copy.deepcopy(model.module))
    return again if model.adapter is None else adapters.merge(again)


def backbone_of(model: Model) -> dict[str, torch.Tensor]:
    """A copy of the backbone's parameters and buffers, by their names inside it; adapters folded in."""
    held = model.module if model.adapter is None else merged_copy(model).module
    return {name: tensor.detach().clone() for name, tensor in _tensors(held, model.backbone).items()}


@contextmanager
def borrowed(model: Model, tensors: Tensors) -> Iterator[None]:
    """While it lasts, the backbone of `model` has the weights `tensors`; afterwards all, the head too, is as it was.

    Raises:
        ModelError: a block of `model` has a weight that is not among them, or one of another shape.
    """
    own = _tensors(model.module, model.backbone)
    blocks = [f"{name.removeprefix(f'{model.backbone}.')}." for name in model.blocks]
    for name, tensor in own.items():
        given = tensors.get(name)
        inside = any(name.startswith(block) for block in blocks)
        if (given is None and inside) or (given is not None and given.shape != tensor.shape):
            raise ModelError(
                f"The fine-tuned backbone does not fit the pre-trained one: {name} is missing or has another shape."
            )
    whole = {name: one.detach() for name, one in [*model.module.named_parameters(), *model.module.named_buffers()]}
    before = {name: tensor.clone() for name, tensor in whole.items()}
    _put(own, tensors)
    try:
        yield
    finally:
        _put(whole, before)


def _tensors(module: torch.nn.Module, backbone: str) -> dict[str, torch.Tensor]:
    held = module.get_submodule(backbone)
    return {name: tensor.detach() for name, tensor in [*held.named_parameters(), *held.named_buffers()]}


def _put(own: Tensors, given: Tensors) -> None:
    for name, tensor in own.items():
        if name in given:
            tensor.copy_(given[name])
