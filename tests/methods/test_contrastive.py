"""Contrastive tuning: rows compared by their class, on what the head receives, and a head solved for on what came of it."""

from __future__ import annotations

import csv
import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from steps import prepared
from tiny import write_model, write_rows
from tunesmith.contracts import Batched, Facts, Features
from tunesmith.errors import SettingsError
from tunesmith.methods.auto import Auto, usual
from tunesmith.methods.contrastive import FEW, STEPS, Contrastive
from tunesmith.models.dropout import set_dropout
from tunesmith.models.freezing import apply_phase
from tunesmith.models.heads import last_layer
from tunesmith.plans import HEAD
from tunesmith.settings import TrainSettings
from tunesmith.tasks import comparing
from tunesmith.train import contrast, optimiser
from tunesmith.train.step import Stepper

TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("contrastive")
    return {
        "task": "text-classification", "model": str(write_model(folder / "model")),
        "data": str(write_rows(folder / "rows.csv")), "method": "contrastive", "train": TRAIN,
    }  # fmt: skip


def facts(rows_a_class: float | None, rows: int = 600, **more: Any) -> Facts:
    wanted = TrainSettings(**more)
    return Facts(rows, rows, 10, 384, False, True, "linear", 384, lambda _: {}, wanted, rows_a_class=rows_a_class)


def gradient(given: dict[str, Any], folder: Path, tokens: int) -> tuple[float, dict[str, torch.Tensor], torch.Tensor]:
    """Of one step: the sum of losses, the gradient by parameter, and what the loss should be."""
    ready = prepared(given, folder)
    plan = ready.frontier.candidates[0]
    plan = dataclasses.replace(plan, batch=dataclasses.replace(plan.batch, micro_batch_tokens=tokens))
    module, phase = ready.model.module, plan.phases[-1]
    apply_phase(module, ready.model.stages, phase)
    set_dropout(module, 0.0)
    rows = np.arange(13)
    with contrast.objective(ready.task, ready.model, phase) as objective:
        batch = ready.task.inputs(ready.train, rows, ready.model)
        vectors = objective.read(module(**batch))
        assert phase.compares is not None
        truth = torch.from_numpy(ready.train.targets[rows])  # type: ignore[index]
        wanted = comparing.contrastive(vectors, truth, phase.compares.scale).detach()
        adamw = optimiser.build(module, ready.model.stages, phase)

        def collate(indices: np.ndarray) -> Any:
            return ready.task.inputs(ready.train, indices, ready.model)

        stepper = Stepper(objective, ready.model, Batched(ready.train, collate), adamw, plan, 0, 10)
        loss = float(stepper._gradient(rows, 3)[0])
    found = {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}
    return loss, found, wanted


def test_a_step_has_the_gradient_of_the_comparison_however_it_is_cut(given: dict[str, Any], tmp_path: Path) -> None:
    whole, parts = (gradient(given, tmp_path, tokens) for tokens in (10_000, 40))
    assert whole[0] == pytest.approx(float(whole[2]), rel=1e-5)
    assert parts[0] == pytest.approx(whole[0], rel=1e-4)
    assert whole[0] > 0
    assert not any(name.startswith("classifier") for name in whole[1])
    for name, one in whole[1].items():
        torch.testing.assert_close(parts[1][name], one, atol=1e-6 + 1e-3 * float(one.abs().max()), rtol=0)


def test_the_head_is_the_best_one_for_the_backbone_that_is_saved(given: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["training"]["best_epoch"] > 0
    assert set(report["baselines"]) == {"majority", "probe"}
    ready = prepared(given, tmp_path)
    plan, model = ready.frontier.candidates[0], ready.task.reopen(run.model)
    train, validation = (
        Batched(one, partial(ready.task.inputs, one, model=model)) for one in (ready.train, ready.validation)
    )
    wanted = dataclasses.replace(plan, standard_head=True)
    solved = ready.task.solve_head(model, train, validation, wanted, plan.phases[-1], 0, Features()).start
    np.testing.assert_allclose(last_layer(model).weight.detach().numpy(), solved.weight, atol=2e-2)


def test_a_killed_run_goes_on_as_it_would_have(given: dict[str, Any], tmp_path: Path) -> None:
    whole = tunesmith.finetune(given, run=tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(event: Any) -> None:
        if type(event).__name__ == "EpochDone":
            raise Killed

    with pytest.raises(Killed):
        tunesmith.finetune(given, run=tmp_path / "killed", listen=kill)
    one, other = (
        json.loads(run.report.read_text())["metrics"] for run in (whole, tunesmith.resume(tmp_path / "killed"))
    )
    assert one == other


def test_rows_of_one_class_stand_in_a_step_together(given: dict[str, Any], tmp_path: Path) -> None:
    ready = prepared({**given, "method": {"name": "contrastive", "together": 8}}, tmp_path)
    phase = ready.frontier.candidates[0].phases[-1]
    order = contrast.order(ready.task, ready.train, phase, 0, 0)
    assert order is not None
    classes = ready.train.targets[order]  # type: ignore[index]
    assert sum(classes[:-1] == classes[1:]) >= len(order) * 7 / 8 - 2


@pytest.mark.parametrize("problem", ["regression", "multi-label"])
def test_rows_without_one_class_each_are_refused(given: dict[str, Any], tmp_path: Path, problem: str) -> None:
    with open(given["data"], newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))[1:]
    path = tmp_path / "rows.csv"
    with open(path, "w", newline="", encoding="utf-8") as handle:
        cells = [
            [text, number / 7 if problem == "regression" else f'["{label}"]']
            for number, (text, label) in enumerate(rows)
        ]
        csv.writer(handle).writerows([["text", "label"], *cells])
    with pytest.raises(SettingsError, match="have not one class each"):
        tunesmith.finetune({**given, "data": str(path)}, run=tmp_path / "run")


def test_a_head_that_reads_each_token_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "gpt2")
    ready = prepared({**given, "model": str(model)}, tmp_path)
    with (
        contrast.objective(ready.task, ready.model, ready.frontier.candidates[0].phases[-1]) as objective,
        pytest.raises(SettingsError, match="each token by itself"),
    ):
        objective.read(ready.model.module(**ready.model.example))


def test_guards_that_leave_nothing_to_compare_are_refused(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="compares the rows of a step"):
        tunesmith.finetune({**given, "train": TRAIN | {"mixup": 0.2}}, run=tmp_path / "run")


def test_few_rows_get_enough_steps_and_none_is_left_out(given: dict[str, Any], tmp_path: Path) -> None:
    stages = prepared(given, tmp_path).model.stages
    few = Contrastive(Contrastive.Settings()).plan(stages, facts(8, 48))
    steps = few.epochs * -(-48 // few.batch.rows)
    assert STEPS <= steps < 1.5 * STEPS
    assert few.patience == few.epochs
    assert few.batch.rows == 32
    assert Contrastive(Contrastive.Settings()).plan(stages, facts(8)).batch.rows == 64
    many = Contrastive(Contrastive.Settings()).plan(stages, facts(500, 5_000))
    assert many.patience < many.epochs
    asked = Contrastive(Contrastive.Settings()).plan(stages, facts(8, 48, epochs=3, batch_size=8, patience=1))
    assert (asked.epochs, asked.batch.rows, asked.patience) == (3, 8, 1)
    assert {row.stage for row in few.phases[-1].rows if row.learning_rate is None} == {HEAD}


@pytest.mark.parametrize(("rows_a_class", "offered"), [(8, True), (FEW, True), (FEW + 1, False), (None, False)])
def test_it_is_tried_unasked_where_a_class_has_few_rows(
    given: dict[str, Any], tmp_path: Path, rows_a_class: float | None, offered: bool
) -> None:
    stages = prepared(given, tmp_path).model.stages
    names = [one.name for one in usual(stages, facts(rows_a_class))]
    assert ("contrastive" in names) == offered


@pytest.mark.parametrize(("rows_a_class", "preferred"), [(8, "contrastive"), (FEW + 1, None)])
def test_it_is_kept_unless_another_is_clearly_better_where_a_class_has_few_rows(
    given: dict[str, Any], tmp_path: Path, rows_a_class: float, preferred: str | None
) -> None:
    stages = prepared(given, tmp_path).model.stages
    found = Auto(Auto.Settings()).plan(stages, facts(rows_a_class))
    assert found.preferred == preferred
    assert any("beyond its interval" in reason for reason in found.reasons) == (preferred is not None)
    asked = Auto(Auto.Settings(candidates=["probe", "contrastive"])).plan(stages, facts(rows_a_class))
    assert asked.preferred is None
