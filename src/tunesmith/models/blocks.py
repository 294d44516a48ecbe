"""The blocks of a network: the smallest steps, in depth order, through which everything passes.

Nothing here knows an architecture. Blocks are the members of the backbone's longest outermost list of modules. Where each
of them is itself a chain of modules, as the stages of a ResNet or a Swin are, the links of the chains are the blocks, so that
each can be frozen, thawed and entered by itself. A network without any list is taken apart by the order in which it calls its
parts. Whether everything passes through a part is tried, not read off names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError
from tunesmith.models.forward import evaluated

HELD = 1e-3
"""Share of the difference between two inputs' logits that counts as none."""


def find_blocks(module: nn.Module, backbone_name: str, example: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Full names of the blocks of `module`, in depth order.

    Args:
        example: a batch that the network accepts; turned back to front, it must be another input.

    Raises:
        ModelError: the backbone cannot be taken apart.
    """
    blocks = outermost(module.get_submodule(backbone_name), backbone_name)
    if not blocks:
        return _by_order(module, backbone_name, example)
    while chains := _chains(module, blocks):
        deepest = next(chain for chain in reversed(chains) if len(chain) > 1)
        if not _passes_all(module, deepest[0], example):
            break
        blocks = [name for chain in chains for name in chain]
    return tuple(blocks)


def normalise(module: nn.Module, blocks: Sequence[str]) -> bool:
    """Whether anything in `blocks` normalises what it puts out, with parameters or without."""
    inside = (child for name in blocks for child in module.get_submodule(name).modules())
    return any("norm" in type(child).__name__.lower() for child in inside)


def outermost(backbone: nn.Module, backbone_name: str) -> list[str]:
    """Full names of the members of the backbone's longest outermost list of modules; nothing where it has none."""
    lists: list[tuple[str, nn.ModuleList]] = []
    for name, child in backbone.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in lists)
        if isinstance(child, nn.ModuleList) and len(child) and not inside and _weighs(child):
            lists.append((name, child))
    if not lists:
        return []
    longest = max(lists, key=lambda entry: (len(entry[1]), _weighs(entry[1])))
    return [f"{backbone_name}.{longest[0]}.{index}" for index in range(len(longest[1]))]


def _by_order(module: nn.Module, backbone_name: str, example: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """The blocks of a network without any list: what it calls one after the other, single layers left out if it can be."""
    name = backbone_name
    while True:
        parts = _series(module, name, example)
        blocks = [part for part in parts if _made_up(module, part)] or parts
        if len(blocks) != 1 or not _series(module, blocks[0], example):
            break
        name = blocks[0]  # one part that holds all others
    if not blocks:
        raise ModelError(
            f"No part of {type(module.get_submodule(backbone_name)).__name__} was found through which everything passes, so "
            "its stages cannot be told apart.",
            "Let its layers stand one after the other, as in a torch ModuleList or Sequential.",
        )
    return tuple(blocks)


def _chains(module: nn.Module, blocks: Sequence[str]) -> list[list[str]]:
    """For each block the modules in its list of one kind of modules; nothing where one has none, or all have one link."""
    chains = []
    for block in blocks:
        lists = [
            (name, child)
            for name, child in module.get_submodule(block).named_children()
            if isinstance(child, nn.ModuleList | nn.Sequential) and _weighs(child) and len({*map(type, child)}) == 1
        ]
        if not lists:
            return []
        name, chain = max(lists, key=lambda entry: _weighs(entry[1]))
        chains.append([f"{block}.{name}.{index}" for index in range(len(chain))])
    return chains if any(len(chain) > 1 for chain in chains) else []


def _passes_all(module: nn.Module, name: str, example: Mapping[str, torch.Tensor]) -> bool:
    """Whether the logits depend on what the module `name` puts out and on nothing that goes around it.

    Tried with another input: where the module puts out what it did before, the logits must be what they were before.
    """
    device = next(module.parameters()).device
    batch = {key: value.to(device) for key, value in example.items()}
    other = {key: value.flip(-1) for key, value in batch.items()}
    place = module.get_submodule(name)
    kept: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        kept.append(
            (output[0] if isinstance(output, tuple | list) else output).clone()
        )  # later layers may work in place

    def put(_: Any, __: Any, output: Any) -> Any:
        return type(output)((kept[0], *output[1:])) if isinstance(output, tuple | list) else kept[0]

    def logits(given: Mapping[str, torch.Tensor], hook: Any) -> torch.Tensor:
        handle = place.register_forward_hook(hook)
        try:
            found: torch.Tensor = module(**given).logits
            return found
        finally:
            handle.remove()

    with evaluated(module), torch.no_grad():
        first, second, held = logits(batch, keep), logits(other, lambda *_: None), logits(other, put)
    return bool((held - first).abs().max() < HELD * (second - first).abs().max())


def _series(module: nn.Module, name: str, example: Mapping[str, torch.Tensor]) -> list[str]:
    """Full names of the parts of `name`, in the order in which they are called, through each of which everything passes.

    Chains (torch's Sequential) are taken apart; other modules are kept whole.
    """
    found: list[str] = []
    for child in _called(module, name, example):
        held = module.get_submodule(child)
        if isinstance(held, nn.Sequential):
            found += _series(module, child, example)
        elif _weighs(held) and _passes_all(module, child, example):
            found.append(child)
    return found


def _called(module: nn.Module, name: str, example: Mapping[str, torch.Tensor]) -> list[str]:
    """Full names of the children of `name`, in the order in which they are first called; of a chain, as they stand in it."""
    parent = module.get_submodule(name)
    children = [f"{name}.{child}" for child, _ in parent.named_children()]
    if isinstance(parent, nn.Sequential):
        return children
    order: list[str] = []
    handles = [
        module.get_submodule(child).register_forward_pre_hook(lambda *_, child=child: order.append(child))
        for child in children
    ]
    try:
        with evaluated(module), torch.no_grad():
            device = next(module.parameters()).device
            module(**{key: value.to(device) for key, value in example.items()})
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))


def _made_up(module: nn.Module, name: str) -> bool:
    """Whether `name` is made of several layers with weights."""
    layers = [
        child for child in module.get_submodule(name).modules() if any(True for _ in child.parameters(recurse=False))
    ]
    return len(layers) > 1


def _weighs(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
