"""Work whose result nobody reads: where the head looks at the first token alone, the last block finishes only that one.

All tokens still meet in the last block's attention; what comes after it works on each token by itself, and is two thirds
of a block. Nothing here knows an architecture: the place is found by trying, and kept only where the logits stay the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.contracts import Batch, Model
from tunesmith.models import heads
from tunesmith.models.forward import device_of, evaluated, to
from tunesmith.models.heads import reads_last_token

SAME = 1e-4
"""Logits, as a share of their size: both ways compute in fp32, in sums of other order."""


@contextmanager
def unread_skipped(model: Model, batch: Batch) -> Iterator[bool]:
    """While the block lasts, spare the work that the logits do not depend on; whether there is any is what is yielded.

    Args:
        batch: rows of several lengths, to try it on.
    """
    place = _place(model, to(batch, device_of(model.module)))
    if place is None:
        yield False
        return
    handle = place.register_forward_hook(_first_token)
    try:
        yield True
    finally:
        handle.remove()


def _place(model: Model, batch: dict[str, torch.Tensor]) -> nn.Module | None:
    """The first child of the last block after which the other tokens are not read."""
    few = "attention_mask" not in batch or batch["attention_mask"].shape[1] < 2
    if few or model.language or model.decoder or reads_last_token(model):  # what tells tokens reads them all
        return None
    block = model.module.get_submodule(model.blocks[-1])
    with evaluated(model.module):
        whole = _tried(model, block, batch, None)
        for child in block.children():
            found = _tried(model, block, batch, child)
            if whole is None or found is None or found[1] != [1] or found[0].shape != whole[0].shape:
                continue
            if heads.agree(model, found[0], whole[0], SAME):
                return child
    return None


def _tried(
    model: Model, block: nn.Module, batch: dict[str, torch.Tensor], child: nn.Module | None
) -> tuple[torch.Tensor, list[int]] | None:
    """Logits with only the first token of `child`'s output, and how many tokens leave the block, each time it is called."""
    lengths: list[int] = []

    def measure(_: Any, __: Any, output: Any) -> None:
        lengths.append(_tensor(output).shape[1])

    handles = [block.register_forward_hook(measure)]
    if child is not None:
        handles.append(child.register_forward_hook(_first_token))
    try:
        with torch.no_grad():
            found: Callable[..., Any] = model.module
            return found(**batch).logits, lengths
    except (RuntimeError, IndexError):  # what follows needs all tokens: not the place
        return None
    finally:
        for handle in handles:
            handle.remove()


def _first_token(_: Any, __: Any, output: Any) -> Any:
    first = _tensor(output)
    if first.ndim != 3:
        return output
    return type(output)((first[:, :1], *output[1:])) if isinstance(output, tuple | list) else first[:, :1]


def _tensor(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return found
