"""The dropout rate of a network while it trains; the configuration that is saved keeps the model's own."""

from __future__ import annotations

from torch import nn


def set_dropout(module: nn.Module, rate: float) -> None:
    """Give every dropout of `module` the rate `rate`, those inside attention functions too."""
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = rate
        for name, value in vars(child).items():
            if "dropout" in name and isinstance(value, float):
                setattr(child, name, rate)
