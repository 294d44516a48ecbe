"""Guards that change the loss or look back at the pre-trained network, each against its equation written out."""

from __future__ import annotations

import copy
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

from tiny import write_model
from tunesmith import prepare, seeds, settings
from tunesmith.contracts import Batched
from tunesmith.errors import SettingsError
from tunesmith.evaluate import wise_ft
from tunesmith.evaluate.wise_ft import Point
from tunesmith.models.dropout import set_dropout
from tunesmith.models.freezing import apply_phase
from tunesmith.plans import Guards
from tunesmith.prepare import Prepared
from tunesmith.train import cache, checkpoint, fisher, optimiser, passes, statistics, trial
from tunesmith.train.anchors import Anchors, Kept, anchors
from tunesmith.train.course import Job
from tunesmith.train.events import StepDone, Trained
from tunesmith.train.guards import Pull, mix
from tunesmith.train.loop import train
from tunesmith.train.rehearsal import Rehearsal, drawn, rows_a_step
from tunesmith.train.sharpness import climbed
from tunesmith.train.step import Stepper
from tunesmith.train.weights import copy_of, of

ROWS = np.arange(13)


@pytest.fixture
def ready(settings: dict[str, Any], tmp_path: Path) -> Prepared:
    return prepared(settings, tmp_path)


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
    kept = anchors(ready.task, ready.model, plan, ready.train, (rehearsal(ready),), 0)
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
        torch.testing.assert_close(
            value, other[name], atol=2e-6 + 1e-4 * size, rtol=0, msg=lambda text, at=name: at + text
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


def job_of(ready: Prepared, folder: Path) -> Job:
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / "steps")
    return dataclasses.replace(job, references=(rehearsal(ready),))


def test_swa_keeps_the_plain_mean_of_the_last_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    given = settings | {"train": settings["train"] | {"swa": 0.25, "learning_rate": 1e-4}}
    job = job_of(prepared(given, tmp_path), tmp_path)
    passed = []
    for event in train(job):
        if isinstance(event, StepDone):
            assert event.steps == 12
            passed.append(copy_of(of(job.model.module)))
    found = checkpoint.newest(job.checkpoints)
    assert found is not None
    assert found.progress.averaged_steps == 3
    for name, tensor in found.averaged.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([one[name] for one in passed[-3:]]).mean(0))


def test_training_does_not_end_before_the_average_is_begun(settings: dict[str, Any], tmp_path: Path) -> None:
    """A rate of nearly zero improves nothing, so that patience alone would end it after the second epoch."""
    given = settings | {"train": settings["train"] | {"swa": 0.25, "learning_rate": 1e-12, "epochs": 4, "patience": 1}}
    last = list(train(job_of(prepared(given, tmp_path), tmp_path)))[-1]
    assert isinstance(last, Trained)
    assert last.epochs == 4


def test_running_statistics_are_those_of_the_batches() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    module[0].running_mean.fill_(9.0)
    module.config = None  # type: ignore[assignment]
    given = [torch.randn(6, 3) + number for number in range(4)]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)  # type: ignore[no-any-return]

    network = Network().train()
    norms = statistics.training_norms(network)
    assert norms == [module[0]]
    statistics.reestimate(network, norms, [{"x": one} for one in given], "fp32")
    torch.testing.assert_close(module[0].running_mean, torch.stack([one.mean(0) for one in given]).mean(0))
    torch.testing.assert_close(module[0].running_var, torch.stack([one.var(0) for one in given]).mean(0))
    assert (module[0].momentum, module[0].training, module[1].training) == (0.1, True, True)
    assert statistics.training_norms(network.eval()) == []


def test_a_mixture_of_weights_is_a_straight_line_between_them() -> None:
    start, end = ({"w": torch.randn(3), "n": torch.tensor(number)} for number in (1, 2))
    for alpha in (0.0, 0.3, 1.0):
        mixed = copy_of(start)
        mix(mixed, end, alpha)
        torch.testing.assert_close(mixed["w"], (1 - alpha) * start["w"] + alpha * end["w"])
    assert torch.equal(mixed["w"], end["w"])


@pytest.mark.parametrize("method", ["full", "lora", "pissa", "bitfit"])
def test_the_ends_of_the_curve_are_the_weights_before_and_after(
    settings: dict[str, Any], tmp_path: Path, method: str
) -> None:
    from tunesmith.models import adapters  # noqa: PLC0415
    from tunesmith.train.loop import START  # noqa: PLC0415

    given = settings | {"method": method, "train": settings["train"] | {"wise_ft": True}}
    job = job_of(prepared(given, tmp_path), tmp_path)
    before = {name: tensor.clone() for name, tensor in of(rehearsal_of(given, tmp_path).module).items()}
    trained = next(event for event in train(job) if isinstance(event, Trained)).model
    after = copy_of(of(trained.module))
    start = wise_ft.start_of(trained, job.checkpoints / START)
    assert all(torch.equal(after[name], tensor) for name, tensor in of(trained.module).items())
    if trained.adapter is not None:
        trained = adapters.merge(trained)
    assert start.keys() == of(trained.module).keys()
    for name, tensor in before.items():  # the backbone as it came; the head was solved for
        own = name.replace("bert.", f"{trained.backbone}.", 1)
        if name.startswith("bert."):
            torch.testing.assert_close(start[own], tensor, atol=1e-5, rtol=1e-4)
    how = wise_ft.Scales(job.task, job.plan, job.train, job.validation, (), None, 0)
    points = wise_ft.curve(trained, start, how)
    end = copy_of(of(trained.module))
    wise_ft.put(trained, start, end, 1.0, how)
    assert all(torch.equal(end[name], tensor) for name, tensor in of(trained.module).items())
    assert len(points) == 11


def rehearsal_of(given: dict[str, Any], folder: Path) -> Any:
    return prepared(given | {"method": "full"}, folder / "again").model


def test_the_mixture_is_the_best_that_keeps_enough() -> None:
    points = [
        Point(alpha, metric, 1.0, {"a": kept, "b": 1.0})
        for alpha, metric, kept in ((0.0, 0.5, 1.0), (0.5, 0.8, 0.96), (0.7, 0.9, 0.9), (1.0, 0.7, 0.8))
    ]
    assert wise_ft.choose(points, None)[0].alpha == 0.7
    chosen, why = wise_ft.choose(points, 0.95)
    assert (chosen.alpha, "Of the 2 mixtures (of 4)" in why) == (0.5, True)
    chosen, why = wise_ft.choose(points[2:], 0.95)
    assert (chosen.alpha, why.startswith("No mixture keeps 95%")) == (0.7, True)


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
