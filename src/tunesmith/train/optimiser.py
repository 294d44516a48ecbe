"""From the plan's rows to AdamW's parameter groups: one rate a stage, no decay on norms and biases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from tunesmith.contracts import Stage
from tunesmith.plans import Phase

BETAS = (0.9, 0.98)
"""AdamW's usual second value, 0.999, averages squared gradients over a thousand steps; fine-tuning often has two hundred.
Measured on SST-2 (216 steps): see docs/benchmarks.md."""


def build(module: nn.Module, stages: Sequence[Stage], phase: Phase) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over what `phase` trains; each group knows its stage and its full rate."""
    parameters = dict(module.named_parameters())
    rows = {row.stage: row for row in phase.rows}
    groups: list[dict[str, Any]] = []
    for stage in stages:
        row = rows[stage.name]
        if row.learning_rate is None:
            continue
        sorts: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for member in stage.chosen(row.part):
            parameter = parameters[member.name]
            decays = sum(side > 1 for side in parameter.shape) > 1  # kernels of 1 × 1 too, but no single token
            sorts.setdefault((decays, ".lora_B." in member.name), []).append(parameter)
        for (decays, upper), members in sorts.items():
            rate = row.learning_rate * (row.upper_factor if upper else 1.0)
            groups.append(
                {
                    "params": members,
                    "lr": rate,
                    # Vectors are biases and scales of norms; pulling them to zero helps nothing (BERT, appendix A.2).
                    "weight_decay": row.weight_decay if decays else 0.0,
                    "stage": stage.name,
                    "full": rate,
                }
            )
    return torch.optim.AdamW(groups, betas=BETAS, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Give each group its full rate times `factor`; return the rates by stage."""
    for group in optimiser.param_groups:
        group["lr"] = group["full"] * factor
    return {group["stage"]: group["lr"] for group in optimiser.param_groups}


def state_tensors(optimiser: torch.optim.Optimizer, module: nn.Module) -> dict[str, torch.Tensor]:
    """The optimiser's state by parameter name: "exp_avg/encoder.…" and so on."""
    return {
        f"{key}/{name}": value
        for name, parameter in _held(optimiser, module)
        for key, value in optimiser.state.get(parameter, {}).items()
    }


def restore_state(optimiser: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """The reverse of `state_tensors`."""
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        by_name.setdefault(name, {})[kind] = value
    for name, parameter in _held(optimiser, module):
        if name in by_name:
            # The fused step goes through memory, so that the state has to lie there as its parameter does.
            optimiser.state[parameter] = {
                kind: torch.empty_like(parameter).copy_(value)
                if value.shape == parameter.shape
                else value.clone().to(parameter.device)
                for kind, value in by_name[name].items()
            }


def _held(optimiser: torch.optim.Optimizer, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            yield names[id(parameter)], parameter
