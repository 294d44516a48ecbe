"""A step is the same however its rows are cut, and goes wrong only in ways that lose nothing."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith import prepare, settings
from tunesmith.contracts import Batched
from tunesmith.data import batches
from tunesmith.errors import TrainingError
from tunesmith.models.dropout import set_dropout
from tunesmith.models.freezing import apply_phase
from tunesmith.prepare import Prepared
from tunesmith.train import optimiser
from tunesmith.train.step import Stepper


@pytest.fixture
def ready(settings: dict[str, object], tmp_path: Path) -> Prepared:
    return prepared(settings, tmp_path)


def prepared(values: dict[str, object], folder: Path) -> Prepared:
    return prepare.prepare(settings.parse(values), folder / "cache", torch.device("cpu"), lambda _: None)


def stepper(ready: Prepared, tokens: int) -> Stepper:
    plan = ready.frontier.candidates[0]
    plan = dataclasses.replace(plan, batch=dataclasses.replace(plan.batch, micro_batch_tokens=tokens))
    phase = plan.phases[-1]
    set_dropout(ready.model.module, 0.0)
    apply_phase(ready.model.module, ready.model.stages, phase)
    adamw = optimiser.build(ready.model.module, ready.model.stages, phase)
    collate = partial(ready.task.inputs, ready.train, model=ready.model)
    return Stepper(ready.task, ready.model, Batched(ready.train, collate), adamw, plan, seed=0, steps=10)


def gradients(ready: Prepared, tokens: int, rows: np.ndarray) -> tuple[float, dict[str, torch.Tensor]]:
    one = stepper(ready, tokens)
    loss = one._backward(rows, rows, 0)
    found = {name: p.grad.clone() for name, p in ready.model.module.named_parameters() if p.grad is not None}
    one.optimiser.zero_grad()
    return float(loss), found


@pytest.mark.parametrize("tokens", [1, 20, 64, 10_000])
def test_the_same_rows_cut_any_way_give_the_same_gradients(ready: Prepared, tokens: int) -> None:
    rows = np.arange(13)
    whole_loss, whole = gradients(ready, 10_000, rows)
    loss, cut = gradients(ready, tokens, rows)
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(ready: Prepared) -> None:
    one = stepper(ready, 10_000)
    before = {name: p.detach().clone() for name, p in ready.model.module.named_parameters()}
    with torch.no_grad():
        before_bias = ready.model.module.classifier.bias.clone()
        ready.model.module.classifier.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="The loss is nan at step 4"):
        one.step(np.arange(8), 3)
    with torch.no_grad():
        ready.model.module.classifier.bias.copy_(before_bias)
    for name, parameter in ready.model.module.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_step_of_which_nothing_is_labelled_is_refused(ready: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 1 of the known failures: its loss would be 0, and the run would seem to succeed."""
    one = stepper(ready, 10_000)
    monkeypatch.setattr(type(ready.train), "count", lambda self, indices: 0)
    with pytest.raises(TrainingError, match="Nothing of the rows of step 4 is labelled"):
        one.step(np.arange(8), 3)


def test_running_out_of_memory_halves_the_parts_and_keeps_the_step(
    ready: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.arange(16)
    whole_loss, whole = gradients(ready, 10_000, rows)
    one = stepper(ready, 10_000)
    real, limit = ready.model.module.forward, 100

    def small(**batch: Any) -> Any:
        if batch["input_ids"].numel() > limit:
            raise torch.OutOfMemoryError("simulated")
        return real(**batch)

    monkeypatch.setattr(ready.model.module, "forward", small)
    seen: dict[str, torch.Tensor] = {}

    def look() -> None:
        seen.update({n: p.grad.clone() for n, p in ready.model.module.named_parameters() if p.grad is not None})

    monkeypatch.setattr(one.optimiser, "step", look)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.zeros(()))
    done = one.step(rows, 0)
    assert done.halved_to is not None
    assert done.halved_to <= limit
    assert done.loss_sum == pytest.approx(whole_loss, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(seen[name], gradient, atol=1e-6, rtol=1e-4)


def test_a_single_row_that_does_not_fit_is_said_plainly(ready: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**_: Any) -> Any:
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(ready.model.module, "forward", never)
    with pytest.raises(TrainingError, match=r"One row of .* does not fit"):
        stepper(ready, 10_000).step(np.arange(4), 0)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=300),
    rows=st.integers(1, 40),
    tokens=st.integers(1, 500),
    processes=st.integers(1, 4),
    alike=st.booleans(),
)
def test_every_row_comes_once_an_epoch_whatever_the_cut(
    lengths: list[int], rows: int, tokens: int, processes: int, alike: bool
) -> None:
    sizes = np.array(lengths)
    seen: list[int] = []
    steps = batches.steps(sizes, rows, seed=3, epoch=1, alike=alike)
    assert len(steps) == batches.steps_per_epoch(len(sizes), rows)
    for step in steps:
        assert len(step) <= rows
        for rank in range(processes):
            own = batches.share(step, rank, processes)
            for part in batches.micro_batches(own, sizes, tokens, spare=not alike):
                assert alike or sizes[part].sum() >= (1 - batches.PADDED) * len(part) * sizes[part].max()
                assert len(part) == 1 or len(part) * sizes[part].max() <= tokens
                seen.extend(part)
    assert sorted(seen) == list(range(len(sizes)))


def test_padding_is_a_few_per_cent_of_the_work() -> None:
    sizes = np.random.default_rng(0).integers(4, 60, size=5_000)
    padded = sum(len(step) * sizes[step].max() for step in batches.steps(sizes, 64, seed=0, epoch=0))
    assert padded < 1.03 * sizes.sum()


def test_steps_of_mixed_lengths_hold_as_many_tokens_each_and_little_padding() -> None:
    sizes = np.random.default_rng(0).integers(4, 60, size=5_000)
    steps = batches.steps(sizes, 64, seed=0, epoch=0, alike=False)
    tokens = np.array([sizes[step].sum() for step in steps[1:] if len(step) == 64])
    assert tokens.std() < 0.1 * tokens.mean()  # sorted by length it would be half
    parts = [part for step in steps for part in batches.micro_batches(step, sizes, 10_000, spare=True)]
    padded = sum(len(part) * sizes[part].max() for part in parts)
    assert padded < 1.3 * sizes.sum()
    assert len(parts) < 5 * len(steps)
