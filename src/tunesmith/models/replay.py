"""Entering a network midway: what a block receives is kept, and later handed to it without computing what lies before.

Nothing here knows an architecture. The model's own forward pass runs, so that masks and positions are its own; modules
before the entry are told to return at once. Whether that gives the same logits is tried on real rows before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunesmith.contracts import Batch, Model
from tunesmith.models.forward import evaluated
from tunesmith.models.stages import blocks_of

Hand = Callable[[torch.Tensor], None]


class _Reached(Exception):
    pass


@dataclass(frozen=True)
class Way:
    """The way through a network, as one forward pass showed it."""

    before: tuple[str, ...]
    """Modules before the first block that turn the input into what the blocks pass on: the embeddings."""
    blocks: tuple[str, ...]
    """In depth order; each is passed once."""
    widths: Mapping[str, int]
    """How many values each of these modules returns: 0 for a tensor alone, otherwise the length of its tuple."""


def find_way(model: Model, batch: Batch) -> Way | None:
    """The way of `batch` (of three rows or more), or None where a block is passed more than once, so cannot be skipped."""
    module, rows = model.module, len(next(iter(batch.values())))
    blocks = blocks_of(module.get_submodule(model.backbone), model.backbone)
    passed: list[str] = []
    outputs: dict[str, Any] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            passed.append(name)
            outputs[name] = output

        return hook

    watched = [name for name, child in module.named_modules() if _watched(name, child, model.backbone, blocks)]
    handles = [module.get_submodule(name).register_forward_hook(note(name)) for name in watched]
    try:
        with evaluated(module), torch.no_grad():
            module(**batch)
    finally:
        for handle in handles:
            handle.remove()
    if [name for name in passed if name in blocks] != blocks:
        return None
    early = passed[: passed.index(blocks[0])]
    outer = [name for name in early if not any(name.startswith(f"{other}.") for other in early)]
    # What has another number of rows is no input but a table of positions, which later blocks may need.
    before = [name for name in outer if isinstance(_first(outputs[name]), torch.Tensor)]
    before = [name for name in before if _first(outputs[name]).ndim > 2 and len(_first(outputs[name])) == rows]
    kinds = {name: type(outputs[name]) for name in (*before, *blocks)}
    if not all(kind in (tuple, list) or issubclass(kind, torch.Tensor) for kind in kinds.values()):
        return None
    widths = {name: len(outputs[name]) if kind in (tuple, list) else 0 for name, kind in kinds.items()}
    return Way(tuple(before), tuple(blocks), widths)


@contextmanager
def captured(model: Model, way: Way, cuts: Sequence[int]) -> Iterator[Callable[[Batch], dict[int, torch.Tensor]]]:
    """A function from a batch to what leaves the first n blocks, for each n of `cuts`; nothing behind is computed."""
    found: dict[int, torch.Tensor] = {}
    deepest = max(cuts)

    def keep(count: int, value: torch.Tensor) -> None:
        found[count] = value
        if count == deepest:
            raise _Reached

    def entering(count: int) -> Callable[..., None]:
        return lambda _, args, kwargs: keep(count, args[0] if args else kwargs["hidden_states"])

    def leaving(count: int) -> Callable[..., None]:
        return lambda _, __, output: keep(count, _first(output))

    handles = []
    for count in cuts:
        last = count == len(way.blocks)
        block = model.module.get_submodule(way.blocks[count - 1 if last else count])
        handles.append(
            block.register_forward_hook(leaving(count))
            if last
            else block.register_forward_pre_hook(entering(count), with_kwargs=True)
        )

    def passing(batch: Batch) -> dict[int, torch.Tensor]:
        found.clear()
        with suppress(_Reached):
            model.module(**batch)
        return dict(found)

    try:
        with evaluated(model.module):
            yield passing
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def entered(model: Model, way: Way, count: int) -> Iterator[Hand]:
    """While it lasts, forward passes may skip the embeddings and the first `count` blocks.

    What is yielded takes, before such a pass, what these would have given: the activations that `captured` found. They
    serve for one pass; without them the next one computes everything.
    """
    handed: list[torch.Tensor] = []

    def skip(own: Callable[..., Any], width: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not handed:
                return own(*args, **kwargs)
            return (handed[0], *[None] * (width - 1)) if width else handed[0]

        return forward

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if not handed:
            return None
        return ((handed[0], *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": handed[0]})

    names = (*way.before, *way.blocks[:count])
    skipped = [model.module.get_submodule(name) for name in names]
    before = [vars(child).get("forward") for child in skipped]
    backbone = model.module.get_submodule(model.backbone)
    handles = [backbone.register_forward_hook(lambda *_: handed.clear())]
    if count < len(way.blocks):
        block = model.module.get_submodule(way.blocks[count])
        handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
    try:
        for child, name in zip(skipped, names, strict=True):
            child.forward = skip(child.forward, way.widths[name])
        yield lambda value: handed.__setitem__(slice(None), [value])
    finally:
        for child, own in zip(skipped, before, strict=True):
            del child.forward
            if own is not None:
                child.forward = own
        for handle in handles:
            handle.remove()


def _watched(name: str, child: nn.Module, backbone: str, blocks: Sequence[str]) -> bool:
    if name in blocks:
        return True
    holds = any(block.startswith(f"{name}.") for block in blocks)
    inside = any(name.startswith(f"{block}.") for block in blocks)
    return name.startswith(f"{backbone}.") and not holds and not inside and next(child.parameters(), None) is not None


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) else output
