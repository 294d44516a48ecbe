"""Guards, each against its equation, and that they do in a run what they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import tunesmith
from tunesmith.errors import SettingsError
from tunesmith.tasks.problems import MultiLabel, SingleLabel
from tunesmith.train.guards import Average, Pull


def test_the_pull_is_the_gradient_of_its_penalty() -> None:
    module = nn.Linear(3, 2)
    start = {"weight": torch.randn(2, 3)}
    x = torch.randn(5, 3)
    module(x).square().sum().backward()
    assert module.weight.grad is not None
    assert module.bias.grad is not None
    own, bias = module.weight.grad.clone(), module.bias.grad.clone()
    Pull(module, start, 0.7).add()
    penalty = 0.7 / 2 * (module.weight - start["weight"]).square().sum()
    (expected,) = torch.autograd.grad(penalty, module.weight)
    assert torch.allclose(module.weight.grad, own + expected)
    assert torch.equal(module.bias.grad, bias)  # not among what was pre-trained


def test_the_average_is_its_sum() -> None:
    steps = [torch.full((2,), float(value)) for value in (1, 2, 3)]
    average = Average(0.9, {"w": torch.zeros(2), "n": torch.zeros((), dtype=torch.long)})
    expected = 0.0
    for number, step in enumerate(steps, 1):
        average.take({"w": step, "n": torch.tensor(number)}, number)
        decay = min(0.9, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * float(step[0])
    assert average.tensors["w"].tolist() == pytest.approx([expected] * 2)
    assert int(average.tensors["n"]) == 3


@pytest.mark.usefixtures("start_is_no_candidate")
def test_a_strong_pull_keeps_the_backbone_where_it_was(settings: dict[str, Any], tmp_path: Path) -> None:
    before = load_file(Path(settings["model"]) / "model.safetensors")
    moved = []
    for strength in (0.0, 100.0):
        settings["train"] |= {"l2_sp": strength}
        place = tunesmith.finetune(settings, run=tmp_path / str(strength))
        after = load_file(place.model / "model.safetensors")
        moved.append(sum(float((after[f"bert.{name}"] - value).square().sum()) for name, value in before.items()))
    assert moved[1] < 0.7 * moved[0]


@pytest.mark.usefixtures("start_is_no_candidate")
def test_the_average_is_what_is_validated_and_kept(settings: dict[str, Any], tmp_path: Path) -> None:
    """The run itself measures the kept weights again and fails where their loss is not the validated one."""
    settings["train"] |= {"ema": 0.9}
    averaged = tunesmith.finetune(settings, run=tmp_path / "averaged")
    settings["train"] |= {"ema": None}
    plain = tunesmith.finetune(settings, run=tmp_path / "plain")
    one, other = (load_file(place.model / "model.safetensors") for place in (averaged, plain))
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_smoothed_losses_are_those_of_softer_targets() -> None:
    logits = torch.randn(4, 3)
    targets = torch.tensor([0, 2, 1, 1])
    soft = 0.9 * functional.one_hot(targets, 3) + 0.1 / 3
    expected = -(soft * logits.log_softmax(1)).sum(1)
    assert torch.allclose(SingleLabel("accuracy").loss(logits, targets, 0.1), expected, atol=1e-6)
    several = torch.tensor(np.eye(3)[[0, 1, 2, 0]], dtype=torch.float32)
    expected = functional.binary_cross_entropy_with_logits(logits, 0.9 * several + 0.05, reduction="none").mean(1)
    assert torch.allclose(MultiLabel("micro_f1").loss(logits, several, 0.1), expected)


def test_scores_cannot_be_smoothed(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,score\n" + "\n".join(f"word{n},{n / 7:.2f}" for n in range(40)) + "\n")
    task = {"name": "text-classification", "label_smoothing": 0.1}
    with pytest.raises(SettingsError, match="the target is a score"):
        tunesmith.plan(settings | {"data": str(tmp_path / "rows.csv"), "task": task})
