"""Guards that change how a batch becomes a loss, each against its equation written out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence
from torch.nn import functional

from steps import (
    ROWS,
    by_hand,
    gradients,
    job_of,
    mean_loss,
    prepared,
    same,
    seen,
    stepper,
)
from tiny import write_image_model, write_images, write_model
from tunesmith import prepare, seeds
from tunesmith.contracts import Batched
from tunesmith.errors import SettingsError
from tunesmith.plans import Guards
from tunesmith.prepare import Prepared
from tunesmith.train import cache, passes, range_test, trial
from tunesmith.train.events import StepDone, Trained
from tunesmith.train.loop import train
from tunesmith.train.sharpness import climbed
from tunesmith.train.weights import copy_of, of


def test_sam_takes_the_gradient_a_step_up_and_comes_back(ready: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stepper(ready, Guards(sam=0.3))
    before = copy_of(of(ready.model.module))
    first = by_hand(ready, lambda: mean_loss(ready))
    norm = torch.stack([gradient.square().sum() for gradient in first.values()]).sum().sqrt()
    with torch.no_grad():
        for name, parameter in ready.model.module.named_parameters():
            parameter.add_(0.3 * first[name] / norm)
    expected = by_hand(ready, lambda: mean_loss(ready))
    with torch.no_grad():
        for name, parameter in ready.model.module.named_parameters():
            parameter.copy_(before[name])
    given: dict[str, torch.Tensor] = {}

    def look() -> None:
        given.update({name: p.grad.clone() for name, p in ready.model.module.named_parameters()})

    monkeypatch.setattr(one.optimiser, "step", look)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.zeros(()))
    done = one.step(ROWS, 3)
    same(given, expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in of(ready.model.module).items())
    assert done.loss_sum == pytest.approx(13 * mean_loss(ready).item(), rel=1e-4)


def test_sam_leaves_running_statistics_to_the_first_pass() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    module(torch.randn(8, 3)).square().sum().backward()
    before = module[1].running_mean.clone()
    with climbed(module, list(module.parameters()), 0.1):
        module(torch.randn(8, 3) + 5)
    assert torch.equal(module[1].running_mean, before)
    module(torch.randn(8, 3) + 5)
    assert not torch.equal(module[1].running_mean, before)


def test_mixup_mixes_what_the_last_layer_receives_and_the_losses(ready: Prepared) -> None:
    found = gradients(stepper(ready, Guards(mixup=0.4)))
    random = seeds.generator(0, "mixup", 3, 0)
    share = random.beta(0.4, 0.4)
    rows = ROWS[np.argsort(ready.train.lengths[ROWS], kind="stable")]
    others = random.permutation(len(rows))

    def objective() -> torch.Tensor:
        module = ready.model.module
        hidden = seen(ready, module, ready.train, rows)[1]
        logits = module.classifier(share * hidden + (1 - share) * hidden[others])
        targets = torch.from_numpy(ready.train.targets[rows])
        return share * functional.cross_entropy(logits, targets) + (1 - share) * functional.cross_entropy(
            logits, targets[others]
        )

    assert 0 < share < 1
    same(found, by_hand(ready, objective))


def test_mixup_refuses_heads_that_read_each_token(settings: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared(settings | {"model": str(write_model(tmp_path / "gpt2", "gpt2"))}, tmp_path)
    with pytest.raises(SettingsError, match="reads each token by itself"):
        stepper(ready, Guards(mixup=0.4))


@pytest.fixture
def images(tmp_path: Path) -> Prepared:
    given = {
        "task": "image-classification",
        "model": str(write_image_model(tmp_path / "vit", "vit")),
        "data": str(write_images(tmp_path / "images", 60)),
        "method": "full",
        "train": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"},
    }
    return prepared(given, tmp_path)


def test_cutmix_pastes_a_box_and_mixes_the_losses_by_its_area(images: Prepared) -> None:
    one = stepper(images, Guards(cutmix=1.0))
    found = gradients(one)
    random = seeds.generator(0, "mixup", 3, 0)
    left, top, right, bottom = passes.pasted(float(random.beta(1.0, 1.0)), 16, 16, random)
    others = random.permutation(len(ROWS))
    area = (right - left) * (bottom - top) / 16**2

    def objective() -> torch.Tensor:
        pixels = images.task.inputs(images.train, ROWS, images.model)["pixel_values"]
        mixed = pixels.clone()
        for row, other in enumerate(others):
            mixed[row, :, top:bottom, left:right] = pixels[other, :, top:bottom, left:right]
        logits = images.model.module(pixel_values=mixed).logits
        targets = torch.from_numpy(images.train.targets[ROWS])
        first, second = (functional.cross_entropy(logits, truth) for truth in (targets, targets[others]))
        return (1 - area) * first + area * second

    assert 0 < area < 1
    same(found, by_hand(images, objective))


def test_mixup_of_inputs_mixes_images_and_their_losses(images: Prepared) -> None:
    found = gradients(stepper(images, Guards(mixup=0.4, mixup_of="inputs")))
    random = seeds.generator(0, "mixup", 3, 0)
    share = float(random.beta(0.4, 0.4))
    others = random.permutation(len(ROWS))

    def objective() -> torch.Tensor:
        pixels = images.task.inputs(images.train, ROWS, images.model)["pixel_values"]
        logits = images.model.module(pixel_values=share * pixels + (1 - share) * pixels[others]).logits
        targets = torch.from_numpy(images.train.targets[ROWS])
        first, second = (functional.cross_entropy(logits, truth) for truth in (targets, targets[others]))
        return share * first + (1 - share) * second

    assert 0 < share < 1
    same(found, by_hand(images, objective))


def test_boxes_lie_inside_and_have_the_area_that_is_drawn_where_they_fit() -> None:
    random = np.random.default_rng(0)
    areas = []
    for _ in range(300):
        left, top, right, bottom = passes.pasted(0.75, 40, 60, random)
        assert 0 <= left <= right <= 60
        assert 0 <= top <= bottom <= 40
        areas.append((right - left) * (bottom - top) / 2400)
    assert max(areas) == pytest.approx(0.25, abs=0.02)


def test_the_range_test_does_not_take_mixing_for_a_rise(images: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = images.frontier.candidates[0]
    plan = dataclasses.replace(plan, guards=Guards(cutmix=1.0, mixup=0.4))
    seen: list[Guards] = []

    class Noted(range_test.Stepper):
        def __init__(self, task: Any, model: Any, rows: Any, optimiser: Any, plan: Any, *more: Any) -> None:
            seen.append(plan.guards)
            super().__init__(task, model, rows, optimiser, plan, *more)

    monkeypatch.setattr(range_test, "Stepper", Noted)
    monkeypatch.setattr(range_test, "affordable", lambda _: 4)
    job = prepare.job(images, images.model, plan, Path("nowhere"))
    given = Batched(images.train, partial(images.task.inputs, images.train, model=images.model))
    range_test._losses(job, plan.phases[-1], given, [1.0, 2.0], 4)
    assert seen == [Guards()]


OF_INPUTS = [Guards(cutmix=1.0), Guards(mixup=0.4, mixup_of="inputs")]


@pytest.mark.parametrize("mixing", OF_INPUTS)
def test_mixed_images_leave_no_features_to_hold(mixing: Guards, images: Prepared) -> None:
    with pytest.raises(SettingsError, match="leaves none whole"):
        stepper(images, dataclasses.replace(mixing, distil=1.0))


@pytest.mark.parametrize("mixing", OF_INPUTS)
def test_images_alone_can_be_mixed(mixing: Guards, ready: Prepared) -> None:
    with pytest.raises(SettingsError, match=r"train\.\S+ mixes images"):
        stepper(ready, mixing)


@pytest.mark.parametrize(
    ("wanted", "kept"), [({}, True), ({"mixup": 0.4}, True), ({"mixup": 0.4, "mixup_of": "inputs"}, False)]
)
def test_nothing_is_kept_of_images_that_are_made_of_two(wanted: dict[str, Any], kept: bool, tmp_path: Path) -> None:
    given = {
        "task": "image-classification",
        "model": str(write_image_model(tmp_path / "vit", "vit")),
        "data": str(write_images(tmp_path / "images", 60)),
        "method": {"name": "partial", "last": 1},
        "train": {"epochs": 2, "learning_rate": 1e-3, "precision": "fp32"} | wanted,
    }
    assert prepared(given, tmp_path).frontier.candidates[0].cache is kept


def test_disagreement_is_the_mean_of_both_divergences() -> None:
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    kinds: dict[str, Callable[[torch.Tensor], Any]] = {
        "single-label": lambda logits: Categorical(logits=logits),
        "multi-label": lambda logits: Bernoulli(logits=logits),
        "regression": lambda logits: Normal(logits, 1.0),
    }
    for problem, kind in kinds.items():
        p, q = kind(one), kind(other)
        expected = (kl_divergence(p, q) + kl_divergence(q, p)) / 2
        expected = expected if expected.ndim == 1 else expected.mean(dim=1)
        torch.testing.assert_close(passes.disagreement(one, other, problem), expected, atol=1e-5, rtol=1e-4)


def test_r_drop_adds_the_disagreement_of_two_passes(ready: Prepared) -> None:
    found = gradients(stepper(ready, Guards(r_drop=2.0), dropout=0.2))
    rows = ROWS[np.argsort(ready.train.lengths[ROWS], kind="stable")]
    targets = torch.from_numpy(ready.train.targets[rows])

    def objective() -> torch.Tensor:
        torch.manual_seed(seeds.derive(0, "dropout", 3, 0))
        batch = ready.task.inputs(ready.train, rows, ready.model)
        one, other = (ready.model.module(**batch).logits for _ in range(2))
        assert not torch.allclose(one, other)
        p, q = Categorical(logits=one), Categorical(logits=other)
        both = (kl_divergence(p, q) + kl_divergence(q, p)) / 2
        # Liang et al. 2021, equation 4: the sum of the two losses and alpha times this; half of it.
        return (functional.cross_entropy(one, targets) + functional.cross_entropy(other, targets) + 2 * both.mean()) / 2

    same(found, by_hand(ready, objective))


def test_r_drop_without_any_dropout_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    path = write_model(tmp_path / "dry")
    config = json.loads((path / "config.json").read_text())
    dry = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (path / "config.json").write_text(json.dumps(config | dry))
    given = settings | {"model": str(path), "train": settings["train"] | {"r_drop": 1.0, "dropout": "model"}}
    job = job_of(prepared(given, tmp_path), tmp_path)
    for carry_out in (trial.predict, lambda job: list(train(job))):
        with pytest.raises(SettingsError, match="no part of the network that trains has any"):
            carry_out(job)


def test_r_drop_takes_one_pass_in_a_phase_that_drops_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    """The first stages that thaw may be a pooling and a head, neither of which has any dropout."""
    given = settings | {"method": "gradual", "train": settings["train"] | {"r_drop": 1.0, "dropout": 0.1}}
    job = job_of(prepared(given, tmp_path), tmp_path)
    assert [event for event in train(job) if isinstance(event, Trained)]


def test_r_drop_of_scores_is_the_same_in_every_unit(tmp_path: Path, tiny_model: Path) -> None:
    found = []
    for unit in (1.0, 1000.0):
        path = tmp_path / f"scores {unit:g}.csv"
        rows = [f"good word {number},{unit * (number % 7)}" for number in range(200)]
        path.write_text("text,score\n" + "\n".join(rows))
        given = {
            "model": str(tiny_model),
            "data": str(path),
            "train": {"r_drop": 1.0, "dropout": 0.1, "epochs": 1, "precision": "fp32", "learning_rate": 1e-3},
        }
        folder = tmp_path / f"{unit:g}"
        events = list(train(job_of(prepared(given, folder), folder)))
        found.append([event.loss for event in events if isinstance(event, StepDone)])
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize("guards", [Guards(distil=1.0, replay=0.3, ewc=0.5, l2_sp=0.1), Guards(sam=0.1, distil=0.5)])
@pytest.mark.parametrize("tokens", [1, 40])
def test_guards_are_the_same_however_the_step_is_cut(
    settings: dict[str, Any], tmp_path: Path, guards: Guards, tokens: int
) -> None:
    whole = gradients(stepper(prepared(settings, tmp_path / "a"), guards))
    same(gradients(stepper(prepared(settings, tmp_path / "b"), guards, tokens)), whole)


@pytest.mark.parametrize(
    "guard", [{"distil": 1.0, "sam": 0.05}, {"replay": 0.3, "mixup": 0.4}, {"r_drop": 1.0, "dropout": 0.1}]
)
def test_guards_are_the_same_with_kept_activations(
    settings: dict[str, Any], tmp_path: Path, guard: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_pays", lambda *_: True)
    losses = []
    for kept in ("off", "auto"):
        train_ = settings["train"] | guard | {"cache": kept}
        reference = {"retention": [{"name": "x", "data": "never read here"}]}
        given = settings | {"method": {"name": "partial", "last": 1}, "train": train_, "evaluate": reference}
        ready = prepared(given, tmp_path / kept)
        job = job_of(ready, tmp_path / kept)
        events = list(train(job))
        losses.append([event.loss for event in events if isinstance(event, StepDone)])
        assert (job.store.hits > 0) == (kept == "auto")
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_trial_takes_the_passes_that_guards_take(settings: dict[str, Any], tmp_path: Path) -> None:
    counts = []
    for number, guard in enumerate(({}, {"sam": 0.05}, {"replay": 0.3}, {"r_drop": 1.0, "dropout": 0.1})):
        reference = {"retention": [{"name": "x", "data": "never read here"}]}
        given = settings | {"train": settings["train"] | guard, "evaluate": reference}
        job = job_of(prepared(given, tmp_path / str(number)), tmp_path / str(number))
        training: list[int] = []
        job.model.module.register_forward_hook(lambda module, *_, seen=training: seen.append(int(module.training)))
        assert trial.predict(job).seconds > 0
        counts.append(sum(training))
    plain, sam, replay, r_drop = counts
    assert (sam, r_drop) == (2 * plain, 2 * plain)
    assert replay == 2 * plain  # one more pass a step, of fewer rows
