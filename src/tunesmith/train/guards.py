"""What keeps training near where it began, or steady: combined with any method, read from the plan's `guards`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tunesmith.contracts import Stage
from tunesmith.plans import HEAD
from tunesmith.train.weights import Tensors


class Pull:
    """L2-SP (Li et al. 2018, equation 3): the penalty strength / 2 · ‖w − w₀‖² on the backbone's weights.

    Its gradient joins the loss's before clipping. The head has no w₀ worth the name, and is left to weight decay.
    """

    def __init__(self, module: nn.Module, origin: Tensors, strength: float) -> None:
        """`origin`: the pre-trained weights by name."""
        self.strength = strength
        self.pairs = [(one, origin[name]) for name, one in module.named_parameters() if name in origin]

    def add(self) -> None:
        """Add the penalty's gradient where there is one of the loss."""
        with torch.no_grad():
            for parameter, start in self.pairs:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter - start, alpha=self.strength)


def origin_of(module: nn.Module, stages: Sequence[Stage]) -> Tensors:
    """A copy of the backbone's weights, as they are before training."""
    names = {name for stage in stages if stage.name != HEAD for name in stage.parameters}
    return {name: one.detach().clone() for name, one in module.named_parameters() if name in names}


class Average:
    """An exponential moving average of the weights (Polyak & Juditsky 1992; Izmailov et al. 2018 for its use in deep nets).

    Early steps count less long: the decay is at most (1 + step) / (10 + step), so that the start is soon forgotten.
    """

    def __init__(self, decay: float, tensors: Tensors) -> None:
        self.decay, self.tensors = decay, tensors

    def take(self, now: Tensors, step: int) -> None:
        """Let the weights `now`, after `step` steps, into the average; what is no float is copied."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in now.items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value, share)
            else:
                self.tensors[name].copy_(value)
