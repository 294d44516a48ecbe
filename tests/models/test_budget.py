"""AdaLoRA: its update, its penalty, its budget, and which ranks go, against the paper and PEFT's own allocator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.adalora.layer import RankAllocator

from tiny import write_model
from tunesmith import methods
from tunesmith.contracts import Model
from tunesmith.errors import SettingsError
from tunesmith.models import adapters, budget
from tunesmith.models.load import load_classifier
from tunesmith.plans import Adapter, RankBudget
from tunesmith.registry import make
from tunesmith.settings import Named

BUDGET = RankBudget(initial=6, before=0.2, after=0.3)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    found = load_classifier(str(write_model(tmp_path / "model")), ("a", "b"), "single-label", seed=0)
    adapter = Adapter("adalora", ("block 0", "block 1"), rank=4, alpha=12, budget=BUDGET)
    return adapters.inject(found, adapter, 0)


def triplets(model: Model) -> dict[str, Any]:
    return {name: child for name, child in model.module.named_modules() if hasattr(child, "rank_memory")}


def test_the_update_is_p_lambda_q(model: Model) -> None:
    layer = next(iter(triplets(model).values()))
    q, value, p = (layer.get_parameter(f"{part}.default") for part in budget.PARTS)
    assert not value.any()
    with torch.no_grad():
        value.normal_()
    x = torch.randn(3, 32)
    change = x @ (p @ torch.diag(value[:, 0]) @ q).T * 12 / 6
    assert torch.allclose(layer(x), layer.base_layer(x) + change, atol=1e-4)


def test_the_penalty_is_the_mean_distance_from_orthogonal(model: Model) -> None:
    expected = []
    for layer in triplets(model).values():
        q, p = layer.lora_A["default"], layer.lora_B["default"]
        expected += [torch.linalg.norm(gram - torch.eye(6)).item() for gram in (q @ q.T, p.T @ p)]
    found = adapters.penalty(model)
    assert found is not None
    assert found.item() == pytest.approx(0.5 * sum(expected) / len(expected))


def test_the_budget_falls_along_a_cubic_between_its_ends() -> None:
    """Zhang et al. 2023, equation 12, by hand: half-way, an eighth of what is to go is still there."""
    course = [budget.spent(80, 40, step, first=10, last=50) for step in (0, 10, 30, 50, 90)]
    assert course == [80, 80, 45, 40, 40]


def test_the_ranks_that_go_are_those_of_pefts_allocator(model: Model) -> None:
    """Step by step, from the same gradients; the first and the last steps of the budget as PEFT counts them."""
    steps, module = 20, model.module
    config = module.peft_config["default"]  # type: ignore[index,union-attr]
    config.init_r, config.target_r, config.total_step = 6, 4, steps
    config.tinit, config.tfinal, config.deltaT = 4, 6, 1
    theirs = RankAllocator(module, config, "default")  # type: ignore[no-untyped-call]
    held = {name: one for name, one in module.named_parameters() if "lora_" in name}
    for one in held.values():
        one.requires_grad_(True)
    torch.manual_seed(0)
    seen = set()
    for step in range(steps - 6 + 1):
        for one in held.values():
            one.grad = torch.randn(one.shape)
            with torch.no_grad():
                one.add_(0.05 * torch.randn(one.shape))
        before = {name: one.detach().clone() for name, one in held.items()}
        adapters.after_step(model, step, steps)
        ours = {name: one.detach().clone() for name, one in held.items() if "lora_E" in name}
        with torch.no_grad():
            for name, one in held.items():
                one.copy_(before[name])
        theirs.update_ipt(module)  # type: ignore[no-untyped-call]
        spend, due = theirs.budget_schedule(step)
        if due and step > 4:
            theirs.mask_to_budget(module, spend)  # type: ignore[no-untyped-call]
        for name, one in ours.items():
            assert torch.equal(one, held[name].detach()), (step, name)
        seen.add(sum(int(one.count_nonzero()) for one in ours.values()))
    layers = len(triplets(model))
    assert max(seen) == 6 * layers
    assert min(seen) == 4 * layers
    assert len(seen) > 3


def test_settled_ranks_stay_gone(model: Model) -> None:
    layers = triplets(model)
    for layer in layers.values():
        for part in budget.PARTS:
            one = layer.get_parameter(f"{part}.default")
            one.grad = torch.randn(one.shape)
    adapters.after_step(model, 7, 10)  # the last in which ranks go
    with torch.no_grad():
        for layer in layers.values():
            layer.lora_E["default"].fill_(1.0)  # as the optimiser's momentum would
    adapters.after_step(model, 8, 10)
    assert sum(int(layer.lora_E["default"].count_nonzero()) for layer in layers.values()) == 4 * len(layers)


def test_a_budget_without_a_course_is_refused() -> None:
    with pytest.raises(SettingsError, match="less than the rank 8"):
        make("method", methods.TABLE, Named(name="adalora", initial_rank=4))  # type: ignore[call-arg]
    with pytest.raises(SettingsError, match="leave no steps"):
        make("method", methods.TABLE, Named(name="adalora", before=0.6, after=0.4))  # type: ignore[call-arg]
