"""Guards that look back at the pre-trained network, each against its equation written out."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from steps import (
    ROWS,
    by_hand,
    gradients,
    mean_loss,
    prepared,
    rehearsal,
    same,
    seen,
    stepper,
)
from tunesmith.errors import SettingsError
from tunesmith.plans import Guards
from tunesmith.prepare import Prepared
from tunesmith.train import fisher
from tunesmith.train.anchors import Anchors, Kept
from tunesmith.train.guards import Pull
from tunesmith.train.rehearsal import drawn, rows_a_step
from tunesmith.train.weights import of


def far(ready: Prepared, before: nn.Module, examples: Any, rows: np.ndarray) -> torch.Tensor:
    """Mean over rows and views of the squared distance, over the mean squared distance from the mean of all rows."""
    with torch.no_grad():
        whole = seen(ready, before, examples, np.arange(len(examples)))
    now = seen(ready, ready.model.module, examples, rows)
    terms = [
        (one - kept[rows]).square().sum(1) / (kept - kept.mean(0)).square().sum(1).mean()
        for one, kept in zip(now, whole, strict=True)
    ]
    return torch.stack(terms).mean()


def test_distillation_adds_the_distance_from_the_features_before(ready: Prepared) -> None:
    before = copy.deepcopy(ready.model.module).eval()
    found = gradients(stepper(ready, Guards(distil=0.7)))
    same(found, by_hand(ready, lambda: mean_loss(ready) + 0.7 * far(ready, before, ready.train, ROWS)))


def test_replay_adds_the_distance_on_reference_rows(ready: Prepared) -> None:
    before = copy.deepcopy(ready.model.module).eval()
    found = gradients(stepper(ready, Guards(replay=0.3)))
    count = rows_a_step(0.3, ready.frontier.candidates[0].batch.rows)
    assert count == round(0.3 / 0.7 * 16)
    (rows,) = drawn([len(ready.validation)], count, 0, 3)
    assert len(set(rows)) == count
    same(found, by_hand(ready, lambda: mean_loss(ready) + far(ready, before, ready.validation, rows)))


def test_replayed_rows_come_from_every_reference_and_are_the_same_again() -> None:
    rows = drawn([1000, 7, 30], 30, seed=4, step=9)
    assert [len(one) for one in rows] == [10, 7, 10]
    assert all((one == other).all() for one, other in zip(rows, drawn([1000, 7, 30], 30, seed=4, step=9), strict=True))
    assert not np.array_equal(rows[0], drawn([1000, 7, 30], 30, seed=4, step=10)[0])


def test_the_importance_is_the_mean_square_of_each_rows_gradient(ready: Prepared) -> None:
    few = dataclasses.replace(ready.model, module=copy.deepcopy(ready.model.module).eval())
    found = fisher.importance(ready.task, few, ready.validation, 0)
    parameter = few.module.bert.encoder.layer[1].output.dense.weight
    expected = torch.zeros_like(parameter)
    for row in range(len(ready.validation)):
        output = few.module(**ready.task.inputs(ready.validation, np.array([row]), few))
        loss = functional.cross_entropy(output.logits, torch.from_numpy(ready.validation.targets[[row]]))
        (gradient,) = torch.autograd.grad(loss, parameter)
        expected += gradient.square() / len(ready.validation)
    torch.testing.assert_close(found["encoder.layer.1.output.dense.weight"], expected)
    scaled = fisher.normalised([found])
    assert sum(float(one.sum()) for one in scaled.values()) == pytest.approx(
        sum(one.numel() for one in scaled.values())
    )
    assert all(one.requires_grad for one in few.module.parameters())


def test_ewc_is_the_gradient_of_its_penalty() -> None:
    module = nn.Linear(3, 2)
    start, weight = {"weight": torch.randn(2, 3)}, {"weight": torch.rand(2, 3)}
    module.weight.grad = torch.zeros(2, 3)
    Pull(module, start, 0.7, weight).add()
    penalty = 0.7 / 2 * (weight["weight"] * (module.weight - start["weight"]).square()).sum()
    (expected,) = torch.autograd.grad(penalty, module.weight)
    torch.testing.assert_close(module.weight.grad, expected)


def test_ewc_pulls_by_what_matters_for_the_reference(ready: Prepared) -> None:
    before = of(copy.deepcopy(ready.model.module))
    other = rehearsal(ready)
    known = fisher.normalised([fisher.importance(other.task, other.model, other.examples, 0)])
    found = gradients(stepper(ready, Guards(ewc=0.5)))

    def objective() -> torch.Tensor:
        named = dict(ready.model.module.named_parameters())
        moved = [known[name] * (named[f"bert.{name}"] - before[f"bert.{name}"]).square() for name in known]
        return mean_loss(ready) + 0.25 * torch.stack([one.sum() for one in moved]).sum()

    same(found, by_hand(ready, objective))


@pytest.mark.parametrize(
    ("method", "train_", "message"),
    [("lora", {"ewc": 1.0}, "beside adapters"), ({"name": "lora", "merge": False}, {"wise_ft": True}, "stay apart")],
)
def test_guards_of_single_weights_are_refused_beside_adapters(
    settings: dict[str, Any], tmp_path: Path, method: Any, train_: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        prepared(settings | {"method": method, "train": settings["train"] | train_}, tmp_path)


def test_a_probe_drops_the_guards_and_says_so(settings: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared(settings | {"method": "probe", "train": settings["train"] | {"ewc": 1.0}}, tmp_path)
    plan = ready.frontier.candidates[0]
    assert plan.guards == Guards()
    assert any("nothing trains by gradient" in reason for reason in plan.reasons)


def test_distances_are_in_units_of_the_spread() -> None:
    kept = Kept({"final": torch.tensor([[0.0, 0.0], [2.0, 0.0]])}, {"final": 1.0})
    assert kept.distances({"final": torch.tensor([[2.0, 1.0]])}, np.array([1])).tolist() == [1.0]
    assert Anchors().train is None
