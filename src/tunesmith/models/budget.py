"""AdaLoRA's rank budget: every layer starts with more ranks than it may keep, and the least important ones go.

Zhang et al. 2023. Updates are P Λ Q; a rank is a triplet of a singular value and its two vectors. Equation numbers are
the paper's. All that is remembered from step to step lies in buffers of the network, so that checkpoints hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tunesmith.plans import RankBudget

SMOOTHING = 0.85
"""β₁ and β₂ of equations 8 and 9, as in the paper's appendix."""
ALLOCATIONS = 100
"""How often the budget is spent anew, over all steps; the paper has every hundredth step of some ten thousand."""
PARTS = ("lora_A", "lora_E", "lora_B")
"""Q (rank, in), the diagonal of Λ (rank, 1), P (out, rank)."""


class _Remembered(nn.Module):
    """Of one layer: sensitivity and its uncertainty, smoothed, for each number; and which ranks are settled."""

    def __init__(self, layer: Any, name: str) -> None:
        super().__init__()
        for part in PARTS:
            held: torch.Tensor = getattr(layer, part)[name]
            self.register_buffer(f"{part}_sensitivity", torch.zeros_like(held))
            self.register_buffer(f"{part}_uncertainty", torch.zeros_like(held))
        self.register_buffer("kept", torch.ones(len(layer.lora_E[name]), dtype=torch.bool))


def begin(module: nn.Module, name: str) -> None:
    """Let the vectors of every layer's triplets start orthogonal, as the penalty wants them, and give it its memory.

    The paper starts from small random vectors, which a few hundred steps would not make orthogonal.
    """
    for layer in _layers(module):
        nn.init.orthogonal_(layer.lora_A[name])
        nn.init.orthogonal_(layer.lora_B[name])
        layer.rank_memory = _Remembered(layer, name).to(layer.lora_E[name].device)


def penalty(module: nn.Module, name: str, budget: RankBudget) -> torch.Tensor:
    """How far P and Q are from orthogonal: the mean over them of ‖PᵀP − I‖, times its weight.

    Equation 4 has the squared norm; the authors' code has this one, whose gradient does not grow with the distance.
    """
    found: list[torch.Tensor] = []
    for layer in _layers(module):
        q, p = layer.lora_A[name], layer.lora_B[name]
        found += [_from_orthogonal(q @ q.T), _from_orthogonal(p.T @ p)]
    return budget.orthogonality * torch.stack(found).mean()


def _from_orthogonal(gram: torch.Tensor) -> torch.Tensor:
    return (gram - torch.eye(len(gram), device=gram.device)).square().sum().sqrt()


def after_step(module: nn.Module, name: str, budget: RankBudget, rank: int, step: int, steps: int) -> None:
    """Follow importance, and set the singular values of the ranks that go to zero.

    Called after the optimiser's step `step` (from 0) of `steps`, while the gradients are still there. Until the ranks are
    settled, one that went may come back, as its vectors still learn.
    """
    layers = list(_layers(module))
    first, last = round(budget.before * steps), steps - max(1, round(budget.after * steps))
    if step > last:
        for layer in layers:
            _keep(layer, name)
        return
    for layer in layers:
        _follow(layer, name)
    every = max(1, steps // ALLOCATIONS)
    if step == last or (step > first and step % every == 0):
        total = spent(budget.initial * len(layers), rank * len(layers), step, first, last)
        _allocate(layers, name, total)


def spent(initial: int, final: int, step: int, first: int, last: int) -> int:
    """The budget, in ranks over all layers, after `step`: from `initial` down to `final` along a cubic (equation 12)."""
    left = 1 - min(1.0, max(0.0, (step - first) / max(1, last - first)))
    return final + int((initial - final) * left**3)


def _follow(layer: Any, name: str) -> None:
    """Sensitivity |w · ∂L/∂w| (equation 8) and its uncertainty (equation 9), each smoothed."""
    memory = layer.rank_memory
    for part in PARTS:
        held = getattr(layer, part)[name]
        if held.grad is None:
            continue
        now = (held * held.grad).abs().detach()
        sensitivity = getattr(memory, f"{part}_sensitivity")
        uncertainty = getattr(memory, f"{part}_uncertainty")
        sensitivity.mul_(SMOOTHING).add_(now, alpha=1 - SMOOTHING)
        uncertainty.mul_(SMOOTHING).add_((now - sensitivity).abs(), alpha=1 - SMOOTHING)


def importance(layer: Any) -> torch.Tensor:
    """(rank,) of each triplet: its value's, and the means of its vectors' (equations 7 and 10)."""
    memory = layer.rank_memory
    q, value, p = (getattr(memory, f"{part}_sensitivity") * getattr(memory, f"{part}_uncertainty") for part in PARTS)
    found: torch.Tensor = value.view(-1) + q.mean(dim=1) + p.mean(dim=0)
    return found


def _allocate(layers: list[Any], name: str, total: int) -> None:
    """Keep the `total` most important triplets of all layers (equation 6)."""
    scores = torch.cat([importance(layer) for layer in layers])
    kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    kept[scores.sort(descending=True, stable=True).indices[:total]] = True
    sizes = [len(layer.rank_memory.kept) for layer in layers]
    for layer, own in zip(layers, torch.split(kept, sizes), strict=True):
        layer.rank_memory.kept.copy_(own)
        _keep(layer, name)


def _keep(layer: Any, name: str) -> None:
    with torch.no_grad():
        layer.lora_E[name].mul_(layer.rank_memory.kept.view(-1, 1))


def _layers(module: nn.Module) -> Iterator[Any]:
    for child in module.modules():
        if "lora_E" in dict(child.named_children()):
            yield child
