"""A network of one's own: a module that nobody else knows, and a function that builds it."""

from __future__ import annotations

import itertools

import torch
from torch import nn


class House(nn.Module):
    """Three blocks of convolutions, and a linear layer on their means."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(wide, out, 3, 2, 1), nn.BatchNorm2d(out), nn.ReLU())
                for wide, out in itertools.pairwise(widths)
            )
        )
        self.linear = nn.Linear(widths[-1], 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(self.blocks(pixels).mean(dim=(2, 3)))


def build() -> House:
    """What `model: {python: "house:build"}` calls."""
    return House()
