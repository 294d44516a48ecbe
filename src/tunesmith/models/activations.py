"""What stages put out, one vector a row: for comparing two networks, and for holding one near another.

Nothing here knows an architecture or a kind of input: positions (tokens, patches, pixels) are averaged, padding left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.contracts import Array, Batch, Collate, Indices, Model
from tunesmith.models import heads
from tunesmith.models.forward import outputs
from tunesmith.models.stages import EMBEDDINGS, FINAL

HEAD_INPUT = "head input"
"""What the head's last layer receives."""
VIEWS = (FINAL, HEAD_INPUT)
"""What is held near the pre-trained network: all that the backbone gives, and what this head reads of it."""


def pooled(value: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(rows, width), fp32: the mean over positions of (rows, width), (rows, positions, width) or (rows, width, height, …)."""
    value = value.float()
    if value.ndim == 2:
        return value
    if value.ndim > 3:
        return value.flatten(2).mean(dim=2)
    mask = batch.get("attention_mask")
    if mask is None or mask.ndim != 2 or mask.shape[1] > value.shape[1]:
        return value.mean(dim=1)
    value = value[:, -mask.shape[1] :]  # virtual tokens stand before those of the row
    weights = mask.unsqueeze(-1).to(value)
    return (value * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


@contextmanager
def watched(model: Model, wanted: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """While it lasts, each forward pass leaves what the stages `wanted` put out in the mapping that is yielded.

    Args:
        wanted: "embeddings" (what enters the first block), "block 0" …, "final" (what the backbone gives), "head input".
    """
    found: dict[str, torch.Tensor] = {}

    def before(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found[name] = args[0] if args else kwargs["hidden_states"]

        return hook

    def after(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            found[name] = output if isinstance(output, torch.Tensor) else output[0]

        return hook

    with ExitStack() as stack:
        for name in wanted:
            if name == HEAD_INPUT:
                handle = heads.last_layer(model).register_forward_pre_hook(before(name), with_kwargs=True)
            elif name == EMBEDDINGS:
                first = model.module.get_submodule(model.blocks[0])
                handle = first.register_forward_pre_hook(before(name), with_kwargs=True)
            elif name == FINAL:
                handle = model.module.get_submodule(model.backbone).register_forward_hook(after(name))
            else:
                block = model.module.get_submodule(model.blocks[int(name.removeprefix("block "))])
                handle = block.register_forward_hook(after(name))
            stack.callback(handle.remove)
        yield found


def features(
    model: Model, wanted: Sequence[str], lengths: Indices, collate: Collate, precision: str
) -> dict[str, Array]:
    """(examples, width) of each of the stages `wanted`, from one pass in eval mode; see `watched`."""
    with watched(model, wanted) as found:
        return outputs(
            model.module,
            lengths,
            collate,
            lambda _, batch, __: {name: pooled(found[name], batch) for name in wanted},
            precision,
        )


def depths(model: Model) -> list[str]:
    """The stages of `model` that `watched` knows, in depth order, without the head; of two halves those that read."""
    blocks = [f"block {number}" for number in range(len(model.reading))]
    return [EMBEDDINGS, *blocks, *([] if model.decoder else [FINAL])]
