"""The stages of a network in depth order: embeddings, each block, final, head. Every parameter in exactly one.

Nothing here knows an architecture. The blocks are those of `models/blocks.py`; which other parameters come before, between
and after them is read off one small forward pass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tunesmith.contracts import Model, Parameter, Stage
from tunesmith.models.forward import evaluated
from tunesmith.plans import HEAD

EMBEDDINGS = "embeddings"
FINAL = "final"
ADAPTERS = ("lora_", "ia3_", "vera_lambda_", "prompt_encoder")
"""How PEFT's parameters begin, and those of models/prompts.py."""


def find_stages(
    module: nn.Module,
    backbone_name: str,
    blocks: Sequence[str],
    example: Mapping[str, torch.Tensor],
    head_inside: Sequence[str] = (),
    decoder: str = "",
) -> tuple[Stage, ...]:
    """Split `module` into stages.

    Args:
        module: the network, its head included.
        backbone_name: the attribute that holds the pre-trained part; the rest is the head. Empty for `module` itself.
        blocks: as `blocks.find_blocks` gives them.
        example: a batch that the network accepts, as small as may be.
        head_inside: modules of the backbone that belong to the head all the same.
        decoder: the half that reads what it has written so far; what it does before its first block is embedding, too.

    Returns:
        embeddings, "block 0" …, final (when it has parameters), head. A parameter that several modules share belongs
        to the stage that uses it first.
    """
    names = [EMBEDDINGS, *[f"block {index}" for index in range(len(blocks))], FINAL, HEAD]
    block_stage = {name: 1 + index for index, name in enumerate(blocks)}
    start = f"{backbone_name}." if backbone_name else ""
    reached = _execution_order(module, start, block_stage, example)
    if decoder:
        first = min(stage for name, stage in block_stage.items() if name.startswith(f"{decoder}."))
        own = [name for name, stage in reached.items() if name.startswith(f"{decoder}.") and stage < first]
        reached |= dict.fromkeys(own, 0)
    owned: dict[int, list[Parameter]] = {index: [] for index in range(len(names))}

    def stage_of(name: str) -> int:
        inside = any(name.startswith(f"{one}.") for one in head_inside)
        return len(names) - 1 if inside else _stage_of(name, start, block_stage, reached, len(names))

    places = _first_use(module, stage_of)
    for name, parameter in module.named_parameters():  # shared parameters are listed once, under their first name
        owner = type(module.get_submodule(name.rpartition(".")[0])).__name__
        norm = "norm" in owner.lower()
        member = Parameter(name, _numbers(parameter), name.endswith("bias"), norm, is_adapter(name))
        owned[places[id(parameter)]].append(member)
    bare: dict[int, list[str]] = {index: [] for index in owned}
    for name, index in reached.items():
        if next(module.get_submodule(name).parameters(), None) is None:
            bare[index].append(name)
    return tuple(Stage(names[index], tuple(held), tuple(bare[index])) for index, held in owned.items() if held)


def with_stages(model: Model) -> Model:
    """`model` with its stages found anew, after parameters came or went."""
    return replace(
        model,
        stages=find_stages(model.module, model.backbone, model.blocks, model.example, model.head_inside, model.decoder),
    )


def is_adapter(name: str) -> bool:
    """Whether a parameter was added beside a weight; it changes nothing before it is trained."""
    return any(part.startswith(ADAPTERS) for part in name.split("."))


def _first_use(module: nn.Module, stage_of: Callable[[str], int]) -> dict[int, int]:
    """By identity of each parameter, the first stage of those that one of its names belongs to."""
    found: dict[int, int] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        found[id(parameter)] = min(found.get(id(parameter), sys.maxsize), stage_of(name))
    return found


def _numbers(parameter: nn.Parameter) -> int:
    """How many weights a parameter holds; those of 4 bits lie in pairs in bytes."""
    return parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)


def _execution_order(
    module: nn.Module, start: str, block_stage: Mapping[str, int], example: Mapping[str, torch.Tensor]
) -> dict[str, int]:
    """For each module of the backbone outside the blocks that is called: the stage that was reached by then."""
    current = 0
    reached: dict[str, int] = {}
    final = len(block_stage) + 1

    def enter(name: str) -> Any:
        def hook(*_: Any) -> None:
            nonlocal current
            if name in block_stage:
                current = max(current, block_stage[name])
            elif name not in reached:
                reached[name] = current

        return hook

    def leave(name: str) -> Any:
        def hook(*_: Any) -> None:
            nonlocal current
            if block_stage[name] == final - 1:
                current = final

        return hook

    handles = []
    for name, child in module.named_modules():
        if not name or not name.startswith(start):
            continue
        inside = any(name.startswith(f"{block}.") for block in block_stage)
        if not inside:
            handles.append(child.register_forward_pre_hook(enter(name)))
        if name in block_stage:
            handles.append(child.register_forward_hook(leave(name)))
    try:
        with evaluated(module), torch.no_grad():
            device = next(module.parameters()).device
            module(**{name: value.to(device) for name, value in example.items()})
    finally:
        for handle in handles:
            handle.remove()
    return reached


def _stage_of(name: str, start: str, block_stage: Mapping[str, int], reached: Mapping[str, int], count: int) -> int:
    if not name.startswith(start):
        return count - 1
    for block, stage in block_stage.items():
        if name.startswith(f"{block}."):
            return stage
    owner = name.rpartition(".")[0]
    # What no forward pass enters is read directly by some block (relative position tables): it must not be frozen
    # later than the first block that may read it, so it counts as embeddings.
    return reached.get(owner, 0)
