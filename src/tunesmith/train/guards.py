"""What keeps weights near where they began, or steady: combined with any method, read from the plan's `guards`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tunesmith.contracts import Stage
from tunesmith.plans import HEAD
from tunesmith.train.weights import Tensors


class Pull:
    """L2-SP (Li et al. 2018, equation 3): the penalty strength / 2 · ‖w − w₀‖² on the backbone's weights.

    With an importance F of each weight, EWC (Kirkpatrick et al. 2017, equation 3): strength / 2 · Σ F (w − w₀)².
    The gradient joins the loss's before clipping. The head has no w₀ worth the name, and is left to weight decay.
    """

    def __init__(self, module: nn.Module, origin: Tensors, strength: float, importance: Tensors | None = None) -> None:
        """`origin`: the pre-trained weights by name; `importance`: the same names, of the same shapes."""
        self.strength = strength
        self.held = [
            (one, origin[name], importance[name] if importance is not None else None)
            for name, one in module.named_parameters()
            if name in origin and (importance is None or name in importance)
        ]

    def add(self) -> None:
        """Add the penalty's gradient where there is one of the loss."""
        with torch.no_grad():
            for parameter, start, weight in self.held:
                if parameter.grad is not None:
                    away = parameter - start
                    parameter.grad.add_(away if weight is None else away.mul_(weight), alpha=self.strength)


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
        mix(self.tensors, now, share)


def mix(tensors: Tensors, other: Tensors, share: float) -> None:
    """Move `tensors` towards `other` by `share` of the way, in place; what is no float is copied."""
    for name, value in other.items():
        if value.is_floating_point():
            tensors[name].lerp_(value, share)
        else:
            tensors[name].copy_(value)
