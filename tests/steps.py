"""A step of training taken apart, for tests that write its gradient out by hand."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tunesmith import prepare, settings
from tunesmith.contracts import Batched
from tunesmith.models.dropout import set_dropout
from tunesmith.models.freezing import apply_phase
from tunesmith.plans import Guards
from tunesmith.prepare import Prepared
from tunesmith.train import optimiser
from tunesmith.train.anchors import anchors
from tunesmith.train.course import Job
from tunesmith.train.rehearsal import Rehearsal
from tunesmith.train.step import Stepper

ROWS = np.arange(13)


def prepared(given: dict[str, Any], folder: Path) -> Prepared:
    return prepare.prepare(settings.parse(given), folder / "cache", torch.device("cpu"), lambda _: None)


def rehearsal(ready: Prepared) -> Rehearsal:
    """The validation rows, as if they were another task's."""
    model = dataclasses.replace(ready.model, module=copy.deepcopy(ready.model.module))
    return Rehearsal("other", ready.task, model, ready.validation)


def stepper(ready: Prepared, guards: Guards, tokens: int = 10_000, *, dropout: float = 0.0) -> Stepper:
    """On weights a little away from those that the guards know."""
    plan = ready.frontier.candidates[0]
    plan = dataclasses.replace(plan, batch=dataclasses.replace(plan.batch, micro_batch_tokens=tokens), guards=guards)
    kept = anchors(ready.task, ready.model, plan, ready.train, ready.train, (rehearsal(ready),), 0)
    module = ready.model.module
    with torch.no_grad():
        noise = torch.Generator().manual_seed(1)
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.02)
    set_dropout(module, dropout)
    apply_phase(module, ready.model.stages, plan.phases[-1])
    adamw = optimiser.build(module, ready.model.stages, plan.phases[-1])
    collate = partial(ready.task.inputs, ready.train, model=ready.model)
    return Stepper(ready.task, ready.model, Batched(ready.train, collate), adamw, plan, 0, 10, kept)


def gradients(one: Stepper) -> dict[str, torch.Tensor]:
    """What the optimiser would be given, before clipping."""
    one._gradient(ROWS, 3)
    named = one.model.module.named_parameters()
    found = {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}
    one.optimiser.zero_grad()
    return found


def by_hand(ready: Prepared, objective: Callable[[], torch.Tensor]) -> dict[str, torch.Tensor]:
    named = {name: one for name, one in ready.model.module.named_parameters() if one.requires_grad}
    found = torch.autograd.grad(objective(), list(named.values()), allow_unused=True)
    return {name: one for name, one in zip(named, found, strict=True) if one is not None}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        size = float(other[name].abs().max())
        # Some gradients cancel, those of the keys' biases: what is left of them is rounding, of any size up to this.
        torch.testing.assert_close(
            value, other[name], atol=1e-5 + 1e-4 * size, rtol=0, msg=lambda text, at=name: at + text
        )


def mean_loss(ready: Prepared, rows: np.ndarray = ROWS) -> torch.Tensor:
    output = ready.model.module(**ready.task.inputs(ready.train, rows, ready.model))
    return functional.cross_entropy(output.logits, torch.from_numpy(ready.train.targets[rows]))


def seen(ready: Prepared, module: nn.Module, examples: Any, rows: np.ndarray) -> list[torch.Tensor]:
    """The mean of a BERT's last hidden states, and what its classifier receives."""
    batch = ready.task.inputs(examples, rows, ready.model)
    output = module.bert(**batch)  # type: ignore[operator,union-attr]
    mask = batch["attention_mask"].unsqueeze(-1).float()
    return [(output.last_hidden_state * mask).sum(1) / mask.sum(1), output.pooler_output]


def job_of(ready: Prepared, folder: Path) -> Job:
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / "steps")
    return dataclasses.replace(job, references=(rehearsal(ready),))
