"""What a phase of the plan means for the network: which parameters take gradients, which parts run in eval mode."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tunesmith.contracts import Stage
from tunesmith.plans import HEAD, Phase

FOLLOWING = 0.1
"""The share of each batch in running statistics that follow the batches: torch's own. Some networks come with others; of
MobileNet's 0.997, once the share that is kept, nothing stays but the last batch, and what is then measured is noise."""


def apply_phase(module: nn.Module, stages: Sequence[Stage], phase: Phase) -> None:
    """Set `requires_grad` and the mode of every part of `module` as `phase` says.

    A module whose own parameters are all frozen, and that holds no trained one further down, is in eval mode: no
    dropout, no update of batch-norm statistics. Batch-norm that trains keeps its statistics too, unless `phase` says
    otherwise.
    """
    rows = {row.stage: row for row in phase.rows}
    parameters = dict(module.named_parameters())
    for stage in stages:
        row = rows[stage.name]
        trained = {member.name for member in stage.chosen(row.part)} if row.learning_rate is not None else set()
        for name in stage.parameters:
            parameters[name].requires_grad_(name in trained)
    set_modes(module)
    head = [stage.parameters for stage in stages if stage.name == HEAD and phase.statistics == "head"]
    owners = {name.rpartition(".")[0] for names in head for name in names}
    for name, child in module.named_modules():
        if not isinstance(child, _BatchNorm) or not child.track_running_stats:
            continue
        if phase.statistics != "all" and name not in owners:
            child.eval()
        elif child.momentum is not None:  # None weighs all batches alike
            child.momentum = FOLLOWING
    for stage in stages:
        if rows[stage.name].learning_rate is None:
            for name in stage.bare:
                module.get_submodule(name).eval()


def set_modes(module: nn.Module) -> None:
    """Train mode where something trains, eval mode elsewhere; modules without parameters follow what holds them."""
    for child in module.modules():
        held = list(child.parameters())
        if held:
            child.training = any(parameter.requires_grad for parameter in held)
    _inherit(module, module.training)


def _inherit(module: nn.Module, mode: bool) -> None:
    for child in module.children():
        if next(child.parameters(), None) is None:
            child.train(mode)
        else:
            _inherit(child, child.training)
