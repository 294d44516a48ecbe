"""How images and the weights of networks that read them lie in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

LAYOUT = torch.channels_last
"""Channels last: on the CPU, convolutions in bf16 take half the time so (docs/benchmarks.md)."""


def laid_out(module: Any) -> Any:
    """`module` with its weights in LAYOUT, but for dilated depthwise convolutions, which are given and give plain tensors.

    For those alone, in bf16 and channels last on the CPU, torch 2.13 computes the weights' gradient from memory that it has
    not set: it is now right, now wrong, now no number.
    """
    module.to(memory_format=LAYOUT)
    for child in module.modules():
        if isinstance(child, nn.Conv2d) and child.groups == child.in_channels > 1 and max(child.dilation) > 1:
            # `contiguous` does nothing: with one channel a group, either layout may call itself plain.
            child.weight.data = child.weight.data.clone(memory_format=torch.contiguous_format)
            child.register_forward_pre_hook(_plainly)
    return module


def _plainly(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (args[0].contiguous(), *args[1:]) if args[0].device.type == "cpu" else args
