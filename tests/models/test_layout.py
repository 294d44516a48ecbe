"""How weights and images lie in memory changes nothing but the time that it takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tunesmith.models.layout import LAYOUT, laid_out
from tunesmith.train import memory


def _fouled() -> None:
    """Freed memory that holds no numbers, as that of a long training may."""
    for size in (10**3, 10**4, 10**5, 10**6, 3 * 10**6):
        _ = [torch.full((size,), float("nan")) for _ in range(6)]
        _ = [torch.full((size,), float("nan"), dtype=torch.bfloat16) for _ in range(6)]


@pytest.mark.parametrize("dilation", [1, 2])
def test_depthwise_convolutions_have_the_gradients_that_they_should(dilation: int) -> None:
    """Found on DeepLab: of dilated ones in bf16, torch's gradient came from memory that nobody had set."""
    memory.tune()
    for seed in range(3):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(96, 96, 3, groups=96, bias=False, dilation=dilation, padding=dilation), nn.ReLU()
        )
        plain = network[0].weight.detach().clone()
        images = torch.randn(6, 96, 23, 30)
        laid_out(network)
        _fouled()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network(images.contiguous(memory_format=LAYOUT))
        found.float().square().sum().backward()
        own = network[0].weight.grad.clone()
        weight = plain.clone().requires_grad_()
        wanted = torch.relu(
            nn.functional.conv2d(images, weight, padding=dilation, dilation=dilation, groups=96)
        ).square()
        wanted.sum().backward()
        torch.testing.assert_close(own, weight.grad, rtol=0.05, atol=0.02 * float(weight.grad.abs().max()))
