"""All tensors of a network by name, each once: taking, copying and putting them back."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith.run import writing

Tensors = dict[str, torch.Tensor]


def of(module: nn.Module) -> Tensors:
    """Parameters and buffers, not copied; shared ones under their first name."""
    return {name: tensor.detach() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def copy_of(tensors: Tensors) -> Tensors:
    """The same tensors with memory of their own."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def load_into(module: nn.Module, tensors: Tensors) -> None:
    """Put `tensors` back, every one of them: weights, head and statistics alike."""
    own = of(module)
    if own.keys() != tensors.keys():
        raise AssertionError("the stored tensors are not those of this network")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def write(module: nn.Module, path: Path) -> None:
    """Keep all tensors of `module` in a file."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in of(module).items()}, path)


def read(module: nn.Module, path: Path) -> None:
    """Put the tensors that `write` kept back into `module`."""
    load_into(module, load_file(path))
