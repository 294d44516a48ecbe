"""Training once more on the rows of training and validation together, when nothing is left to choose."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tunesmith
from steps import prepared
from tiny import write_model, write_rows
from tunesmith.contracts import Batched, Facts, Features, Head
from tunesmith.errors import Interrupted, SettingsError
from tunesmith.methods.contrastive import FEW, Contrastive
from tunesmith.models.forward import logits
from tunesmith.models.heads import last_layer
from tunesmith.models.pooling import OWN
from tunesmith.models.probes import with_head
from tunesmith.plans import Phase
from tunesmith.refit import settled
from tunesmith.settings import TrainSettings
from tunesmith.train.checkpoint import Progress
from tunesmith.train.events import Trained

TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("refit")
    return {
        "task": "text-classification", "model": str(write_model(folder / "model")),
        "data": str(write_rows(folder / "rows.csv")), "method": {"name": "contrastive", "refit": "on"}, "train": TRAIN,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tunesmith.api.Run:
    return tunesmith.finetune(given, run=tmp_path_factory.mktemp("refitted") / "run")


def test_the_saved_head_is_solved_for_on_all_labelled_rows_with_the_penalty_chosen_before(
    given: dict[str, Any], run: tunesmith.api.Run, tmp_path: Path
) -> None:
    report = json.loads(run.report.read_text())
    ready = prepared(given, tmp_path)
    rows = pa.concat_tables([ready.dataset.splits[name] for name in ("train", "validation")])
    assert report["refit"]["rows"] == rows.num_rows == report["data"]["train"] + report["data"]["validation"]
    model = ready.task.reopen(run.model)
    examples = ready.task.encode(rows, model)
    both = Batched(examples, partial(ready.task.inputs, examples, model=model))
    plan = dataclasses.replace(ready.frontier.candidates[0], standard_head=True)
    strength = report["curve"][report["training"]["best_epoch"] - 1]["strength"]
    phase = dataclasses.replace(plan.phases[-1], strength=strength)
    solved = ready.task.solve_head(model, both, both, plan, phase, 0, Features()).start
    np.testing.assert_allclose(last_layer(model).weight.detach().numpy(), solved.weight, atol=2e-2)


def test_figures_on_validation_are_of_the_training_before(
    given: dict[str, Any], run: tunesmith.api.Run, tmp_path: Path
) -> None:
    without = tunesmith.finetune({**given, "method": "contrastive"}, run=tmp_path / "run")
    one, other = (json.loads(place.report.read_text()) for place in (run, without))
    assert "refit" not in other
    assert one["metrics"]["validation"] == other["metrics"]["validation"]
    assert one["curve"] == other["curve"]
    assert "trained once more" in run.page.read_text()
    assert "rows of validation trained too" in (run.model / "README.md").read_text()


def test_the_probe_has_the_same_rows_as_the_model(
    given: dict[str, Any], run: tunesmith.api.Run, tmp_path: Path
) -> None:
    ready = prepared(given, tmp_path)
    plan, splits = ready.frontier.candidates[0], ready.dataset.splits

    def batched(rows: pa.Table) -> Batched:
        examples = ready.task.encode(rows, ready.model)
        return Batched(examples, partial(ready.task.inputs, examples, model=ready.model))

    def probe(train: Batched, phase: Phase) -> Head:
        return ready.task.solve_head(
            ready.model, train, batched(splits["validation"]), plan, phase, 0, Features()
        ).probe  # fmt: skip

    first = probe(batched(splits["train"]), plan.phases[0])
    assert first.pooling != OWN  # or nothing could be mistaken for it
    model = with_head(ready.model, first)
    examples = ready.task.encode(pa.concat_tables([splits["train"], splits["validation"]]), model)
    both = Batched(examples, partial(ready.task.inputs, examples, model=model))
    phase = dataclasses.replace(plan.phases[0], strength=first.strength)
    again = ready.task.solve_head(model, both, both, plan, phase, 0, Features()).probe
    model = with_head(model, again)
    test = ready.task.encode(splits["test"], model)
    score = ready.task.score(test, logits(ready.task, model, test, "fp32"))
    report = json.loads(run.report.read_text())
    assert report["baselines"]["probe"]["log_loss"]["value"] == pytest.approx(score["loss"], rel=0.2)
    assert report["baselines"]["probe"]["accuracy"]["value"] == pytest.approx(score["accuracy"], abs=0.02)


def test_a_run_that_is_killed_in_it_goes_on_as_it_would_have(
    given: dict[str, Any], run: tunesmith.api.Run, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    said: list[str] = []

    def kill(event: Any) -> None:
        if isinstance(event, str):
            said.append(event)
        if type(event).__name__ == "StepDone" and "once more" in said[-1] and event.step == 3:
            raise Killed

    with pytest.raises(Killed):
        tunesmith.finetune(given, run=tmp_path / "killed", listen=kill)
    one, other = (
        json.loads(place.report.read_text())["metrics"] for place in (run, tunesmith.resume(tmp_path / "killed"))
    )
    assert one == other


def test_the_last_epoch_is_kept_whatever_validation_says() -> None:
    progress = Progress()
    for metric in (0.9, 0.2, 0.1):
        progress.add_step(1.0, 1.0, 1.0)
        assert progress.end_epoch(metric, 1.0, {}, settled=True).best
    assert (progress.best_epoch, progress.best_metric) == (3, 0.1)


def facts(rows_a_class: float, kept_apart: str | None = None, **more: Any) -> Facts:
    wanted, rows = TrainSettings(**more), round(10 * rows_a_class)
    return Facts(
        rows, rows, 10, 384, False, True, "linear", 384, lambda _: {}, wanted, rows_a_class=rows_a_class,
        kept_apart=kept_apart,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "made"),
    [
        (facts(FEW), "whole"),
        (facts(FEW + 1), "no"),
        (facts(8, kept_apart="budget.time is for all"), "no"),
        (facts(8, wise_ft=True), "no"),
        (facts(8, retain=0.9), "no"),
    ],
)
def test_it_is_done_unasked_where_rows_are_few_and_nothing_forbids_it(
    given: dict[str, Any], tmp_path: Path, wanted: Facts, made: str
) -> None:
    stages = prepared(given, tmp_path).model.stages
    plan = Contrastive(Contrastive.Settings()).plan(stages, wanted)
    assert plan.refit == made
    assert (made != "no") == any("trained once more" in reason for reason in plan.reasons)


def test_where_validation_can_tell_epochs_apart_the_best_number_of_them_is_taken(
    given: dict[str, Any], tmp_path: Path
) -> None:
    stages = prepared(given, tmp_path).model.stages
    assert Contrastive(Contrastive.Settings(refit="on")).plan(stages, facts(FEW + 1)).refit == "best"
    curve = tuple({"epoch": epoch, "strength": epoch / 10} for epoch in (1, 2, 3, 4))
    for kept, epochs in (("best", 2), ("whole", 4)):
        ready = prepared(given, tmp_path)
        plan = dataclasses.replace(ready.frontier.candidates[0], refit=kept)
        trained = Trained(plan, ready.model, 8, 4, 2, 0.1, False, 100, curve, 1.0, 1, None)
        again = settled(trained, 5.0)
        assert [(phase.epochs, phase.strength) for phase in again.phases] == [(0, 5.0), (epochs, epochs / 10)]


def test_with_a_known_penalty_no_other_pooling_is_looked_at(given: dict[str, Any], tmp_path: Path) -> None:
    """Which is better cannot be told on rows that train."""
    ready = prepared(given, tmp_path)
    plan = dataclasses.replace(ready.frontier.candidates[0], standard_head=True)
    phase = dataclasses.replace(plan.phases[0], strength=1.0)
    train = Batched(ready.train, partial(ready.task.inputs, ready.train, model=ready.model))
    found = ready.task.solve_head(ready.model, train, train, plan, phase, 0, Features())
    assert set(found.tried) == {OWN}
    assert found.probe.pooling == found.start.pooling == OWN
    np.testing.assert_array_equal(found.probe.weight, found.start.weight)


def test_the_run_without_an_adaptation_has_the_same_rows(given: dict[str, Any], tmp_path: Path) -> None:
    said: list[Any] = []
    adapted = {**given, "adapt": {"epochs": 1, "batch_size": 16}}
    report = json.loads(tunesmith.finetune(adapted, run=tmp_path / "run", listen=said.append).report.read_text())
    assert "without_adapt" in report["baselines"]
    assert sum(isinstance(one, str) and one.startswith("Training once more") for one in said) == 2


def test_a_choice_is_followed_by_it_where_its_winner_asks(given: dict[str, Any], tmp_path: Path) -> None:
    choice = {"name": "auto", "candidates": [{"name": "contrastive", "refit": True, "together": two} for two in (2, 4)]}
    report = json.loads(tunesmith.finetune({**given, "method": choice}, run=tmp_path / "run").report.read_text())
    assert report["method"] == "contrastive"
    assert {one["label"] for one in report["frontier"]} == {f"contrastive, refit on, together {two}" for two in (2, 4)}
    assert report["refit"]["rows"] == report["data"]["train"] + report["data"]["validation"]


@pytest.mark.parametrize("more", [{"budget": "10min"}, {"train": TRAIN | {"wise_ft": True}}])
def test_what_forbids_it_is_told_to_who_asks_for_it(
    given: dict[str, Any], tmp_path: Path, more: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match=r"method\.refit is on, but"):
        tunesmith.plan({**given, **more})


def test_identities_of_validation_stay_out_of_training(tmp_path: Path) -> None:
    from tunesmith.tasks.image_similarity import ImageSimilarity  # noqa: PLC0415

    assert not ImageSimilarity.joins


def test_yaml_switches_are_understood() -> None:
    assert [Contrastive.Settings(refit=one).refit for one in (True, False, "auto")] == ["on", "off", "auto"]  # type: ignore[arg-type]


def test_what_is_stopped_beside_a_choice_is_gone_on_with_as_the_run(given: dict[str, Any], tmp_path: Path) -> None:
    """Checkpoints of several plans lie deeper than those of one, but the run is where it is."""
    choice = {"name": "auto", "candidates": ["probe", "full"]}
    wanted = {**given, "method": choice, "evaluate": {"baselines": ["scratch"], "resamples": 100}}
    said: list[str] = []

    def stop(event: Any) -> None:
        said.extend([event] if isinstance(event, str) else [])
        if type(event).__name__ == "StepDone" and "from scratch" in said[-1]:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as stopped:
        tunesmith.finetune(wanted, run=tmp_path / "run", listen=stop)
    assert stopped.value.mend == f"Go on with: tunesmith train --resume {tmp_path / 'run'}"
    assert tunesmith.resume(tmp_path / "run").report.exists()
