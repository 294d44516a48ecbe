"""The dropout rate of a network while it trains; the configuration that is saved keeps the model's own."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd


def set_dropout(module: nn.Module, rate: float) -> None:
    """Give every dropout of the network itself the rate `rate`, those inside attention functions too."""
    for place, child in module.named_modules():
        if "lora_dropout" in place or "vera_dropout" in place:  # the adapters' own, which their method sets
            continue
        if isinstance(child, _DropoutNd):
            child.p = rate
        for name, value in vars(child).items():
            if "dropout" in name and isinstance(value, float):
                setattr(child, name, rate)


def drops(module: nn.Module) -> bool:
    """Whether any part of `module` that is in train mode has dropout."""
    for child in module.modules():
        if not child.training:
            continue
        rates = [value for name, value in vars(child).items() if "dropout" in name and isinstance(value, float)]
        if any(rates) or (isinstance(child, _DropoutNd) and child.p > 0):
            return True
    return False
