"""Entering a network midway: what a block receives is kept, and later handed to it without computing what lies before.

Nothing here knows an architecture. The model's own forward pass runs, so that masks and positions are its own; modules
before the entry are told to return at once. Whether that gives the same logits is tried on real rows before it is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.contracts import Batch, Model
from tunesmith.models.forward import evaluated

Hand = Callable[[torch.Tensor], None]


class _Reached(Exception):
    pass


@dataclass(frozen=True)
class Way:
    """The way through a network, as one forward pass showed it."""

    blocks: tuple[str, ...]
    """In depth order; each is passed once. Those of a decoder are not among them: what they receive is not of the rows'
    inputs alone."""
    over: tuple[tuple[str, ...], ...]
    """For each number of blocks that are passed, from none to all: the modules that are over by then, the outermost ones."""
    beside: Mapping[str, tuple[Any, ...] | None]
    """What each of these returns beside the first tensor; None for a tensor alone."""


@dataclass
class _Passed:
    """When a module began and ended, what it returned, and how often."""

    began: int
    ended: int = 0
    times: int = 0
    output: Any = None


def find_way(model: Model, batch: Batch) -> Way | None:
    """The way of `batch` (of three rows or more), or None where a block is passed more than once, so cannot be skipped."""
    rows, blocks = len(next(iter(batch.values()))), model.reading
    passed = _pass(model, batch)
    if any(name not in passed or passed[name].times != 1 for name in blocks):
        return None
    if [*blocks] != sorted(blocks, key=lambda name: passed[name].began):
        return None
    if not all(_skippable(passed[name], rows) for name in blocks):
        return None
    ends = [*(passed[name].began for name in blocks), passed[blocks[-1]].ended + 1]
    over = []
    for end in ends:
        done = [name for name, one in passed.items() if one.ended < end]
        outer = [name for name in done if not any(name.startswith(f"{other}.") for other in done)]
        over.append(tuple(name for name in outer if _skippable(passed[name], rows)))
    needed = {name for names in over for name in names}
    return Way(blocks, tuple(over), {name: _beside(passed[name].output) for name in needed})


def _pass(model: Model, batch: Batch) -> dict[str, _Passed]:
    """What a forward pass does in the modules of the backbone, those inside blocks left out."""
    clock = itertools.count()
    passed: dict[str, _Passed] = {}

    def begin(name: str) -> Callable[..., None]:
        return lambda *_: passed.__setitem__(name, passed.get(name) or _Passed(next(clock)))

    def end(name: str) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            one = passed[name]
            one.ended, one.times, one.output = next(clock), one.times + 1, output

        return hook

    handles = []
    for name, child in model.module.named_modules():
        inside = any(name.startswith(f"{block}.") for block in model.blocks)
        if name and name.startswith(model.start) and not inside and next(child.parameters(), None) is not None:
            handles += [child.register_forward_pre_hook(begin(name)), child.register_forward_hook(end(name))]
    try:
        with evaluated(model.module), torch.no_grad():
            model.module(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return passed


def _skippable(one: _Passed, rows: int) -> bool:
    """Whether a module was passed once and returned something for each row.

    What has another number of rows is no input but a table of positions, which later blocks may need.
    """
    first = _first(one.output)
    known = isinstance(one.output, torch.Tensor) or type(one.output) in (tuple, list)
    return one.times == 1 and known and isinstance(first, torch.Tensor) and first.ndim > 2 and len(first) == rows


def _beside(output: Any) -> tuple[Any, ...] | None:
    """Sizes stay, as all rows have the same; tensors do not."""
    if isinstance(output, torch.Tensor):
        return None
    return tuple(value if _is_size(value) else None for value in output[1:])


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(part, int) for part in value)


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
    """While it lasts, forward passes may skip the first `count` blocks and all that comes before them.

    What is yielded takes, before such a pass, what these would have given: the activations that `captured` found. They
    serve for one pass; without them the next one computes everything.
    """
    handed: list[torch.Tensor] = []

    def skip(own: Callable[..., Any], beside: tuple[Any, ...] | None) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not handed:
                return own(*args, **kwargs)
            return handed[0] if beside is None else (handed[0], *beside)

        return forward

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if not handed:
            return None
        return ((handed[0], *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": handed[0]})

    names = way.over[count]
    skipped = [model.module.get_submodule(name) for name in names]
    before = [vars(child).get("forward") for child in skipped]
    backbone = model.module.get_submodule(model.backbone)
    handles = [backbone.register_forward_hook(lambda *_: handed.clear())]
    if count < len(way.blocks):
        block = model.module.get_submodule(way.blocks[count])
        handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
    try:
        for child, name in zip(skipped, names, strict=True):
            child.forward = skip(child.forward, way.beside[name])
        yield lambda value: handed.__setitem__(slice(None), [value])
    finally:
        for child, own in zip(skipped, before, strict=True):
            del child.forward
            if own is not None:
                child.forward = own
        for handle in handles:
            handle.remove()


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple | list) else output
