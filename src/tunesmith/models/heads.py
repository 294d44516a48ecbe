"""The last linear layer of a network's own head: finding it, seeing what it receives, and putting a solution into it.

Solving for exactly what that layer receives makes one rule serve every architecture, whatever the class does between
the backbone and its last layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tunesmith.contracts import Model
from tunesmith.errors import ModelError


def outputs_of(model: Model) -> int:
    """How many logits the network gives a row."""
    config: Any = model.module.config
    return int(config.num_labels)


def last_linear(model: Model) -> nn.Linear:
    """The linear layer of the head whose output is the logits.

    Raises:
        ModelError: the head has no such layer.
    """
    outputs = outputs_of(model)
    found = [
        child
        for name, child in model.module.named_modules()
        if isinstance(child, nn.Linear) and child.out_features == outputs and not name.startswith(f"{model.backbone}.")
    ]
    if not found:
        raise ModelError(f"{type(model.module).__name__} has no final linear layer with {outputs} outputs.")
    return found[-1]


def reads_last_token(model: Model) -> bool:
    """Whether the head is the decoders' one: a single layer named `score` over every token, read at the last one."""
    children = [name for name, child in model.module.named_children() if any(True for _ in child.parameters())]
    return children == [model.backbone, "score"]


def install(layer: nn.Linear, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> None:
    """Copy a solution, `weight` (outputs, width) and `bias` (outputs,), into `layer`."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))
