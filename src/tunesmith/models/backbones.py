"""The pre-trained part of a network apart from its head: taken out, and put behind another head for a while."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from tunesmith.contracts import Model
from tunesmith.errors import ModelError
from tunesmith.models import adapters

Tensors = Mapping[str, torch.Tensor]


def merged_copy(model: Model) -> Model:
    """`model` once more, in memory of its own, with adapters folded into the weights where there are any."""
    again = replace(model, module=copy.deepcopy(model.module))
    return again if model.adapter is None else adapters.merge(again)


def keep_their_heads(model: Model, other: Model) -> bool:
    """Whether both are networks of one kind that go on with the head of their files, for the same answers in the same order:
    one can stand for the other whole."""
    configs: list[Any] = [held.module.config for held in (model, other)]
    same = model.opens == other.opens and configs[0].id2label == configs[1].id2label
    return model.head == other.head == "kept" and same


def weights_of(model: Model, *, whole: bool) -> dict[str, torch.Tensor]:
    """A copy of the parameters and buffers of the backbone, or of all, by their names; adapters folded in."""
    held = model if model.adapter is None else merged_copy(model)
    return {name: tensor.detach().clone() for name, tensor in _tensors(held, whole=whole).items()}


@contextmanager
def borrowed(model: Model, tensors: Tensors, *, whole: bool = False) -> Iterator[None]:
    """While it lasts, the backbone of `model`, or all of it, has the weights `tensors`; afterwards all is as it was.

    Raises:
        ModelError: a block of `model` has a weight that is not among them, or one of another shape.
    """
    own = _tensors(model, whole=whole)
    blocks = [f"{name if whole else name.removeprefix(f'{model.backbone}.')}." for name in model.blocks]
    for name, tensor in own.items():
        given = tensors.get(name)
        inside = any(name.startswith(block) for block in blocks)
        if (given is None and inside) or (given is not None and given.shape != tensor.shape):
            raise ModelError(
                f"The fine-tuned backbone does not fit the pre-trained one: {name} is missing or has another shape."
            )
    everything = _tensors(model, whole=True)
    before = {name: tensor.clone() for name, tensor in everything.items()}
    _put(own, tensors)
    try:
        yield
    finally:
        _put(everything, before)


def _tensors(model: Model, *, whole: bool) -> dict[str, torch.Tensor]:
    if whole:  # a matrix that is shared stands under each of its names, as another network may have two
        given = [*model.module.named_parameters(remove_duplicate=False), *model.module.named_buffers()]
        return {name: tensor.detach() for name, tensor in given}
    held = model.module.get_submodule(model.backbone)
    head = tuple(f"{name.removeprefix(f'{model.backbone}.')}." for name in model.head_inside)
    everything = [*held.named_parameters(), *held.named_buffers()]
    return {name: tensor.detach() for name, tensor in everything if not name.startswith(head)}


def _put(own: Tensors, given: Tensors) -> None:
    for name, tensor in own.items():
        if name in given:
            tensor.copy_(given[name])
