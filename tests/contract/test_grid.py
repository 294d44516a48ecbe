"""Every method on every task, from the tables: freezes exactly what its plan says, saves, opens again, predicts the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tiny import METHODS
from tunesmith import prepare, settings, tasks
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import adapters, save
from tunesmith.models.forward import logits
from tunesmith.plans import HEAD
from tunesmith.registry import look_up
from tunesmith.train import checkpoint
from tunesmith.train.events import Trained
from tunesmith.train.loop import train

TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}

CHOOSY = ("object-detection",)
"""Which places of an image are looked at more closely may hang on the last bit, and with it single boxes."""
PROMPTED = ("text-classification", "causal-lm", "preference")
REFUSED = {(task, method) for task in tasks.TABLE if task not in PROMPTED for method in ("prompt", "prefix")}
"""Virtual tokens stand before words that are read as a whole, or that are gone on with."""
REFUSED |= {(task, "contrastive") for task in tasks.TABLE if not task.endswith("-classification")}
REFUSED |= {("token-classification", "contrastive")}
"""Rows are compared by the one class of each."""


@pytest.mark.parametrize("task", tasks.TABLE)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_changes_what_its_plan_says_and_nothing_else(tmp_path: Path, task: str, method: str) -> None:
    pace = {"learning_rate": 2e-4} if task in CHOOSY else {}
    given = {"task": task, "method": method, "train": TRAIN | pace, **look_up("task", task, tasks.TABLE).tiny(tmp_path)}
    try:
        ready = prepare.prepare(settings.parse(given), tmp_path / "cache", torch.device("cpu"), lambda _: None)
    except (ModelError, SettingsError):
        if (task, method) not in REFUSED:
            raise
        return
    assert (task, method) not in REFUSED
    before = {name: p.detach().clone() for name, p in ready.model.module.named_parameters()}
    plan = ready.frontier.candidates[0]
    job = prepare.job(ready, ready.model, plan, tmp_path / "checkpoints")
    trained = next(event for event in train(job) if isinstance(event, Trained))
    by_name = {stage.name: stage for stage in trained.model.stages}
    rows = [row for phase in plan.phases for row in phase.rows if row.learning_rate is not None]
    trains = {member.name for row in rows for member in by_name[row.stage].chosen(row.part)}
    after = dict(trained.model.module.named_parameters())
    start = trained.model.start  # another head may have taken the backbone over, under another name
    inside = {name: before[name.replace(start, ready.model.start, 1)] for name in after if name.startswith(start)}
    assert all(torch.equal(inside[name], after[name]) for name in inside if name not in trains)
    if rows:  # after the last step, which need not be the best one
        last = checkpoint.newest(job.checkpoints)
        assert last is not None
        known = inside
        if {row.stage for row in rows} == {HEAD}:  # of a head that cannot be solved for
            known = {name: before[name] for name in trains}
        assert any(not torch.equal(known[name], last.weights[name]) for name in known if name in trains)
    assert set(plan.stages) == {stage.name for stage in ready.model.stages}
    found = logits(ready.task, trained.model, ready.validation, "fp32")
    assert np.isfinite(found).all()
    model = trained.model
    if model.adapter is not None and model.adapter.merge:
        model = adapters.merge(model)
    save.save(model, tmp_path / "saved")
    again = logits(ready.task, ready.task.reopen(tmp_path / "saved"), ready.validation, "fp32")
    if task in CHOOSY:
        assert np.median(np.abs(again - found)) < 1e-4
    else:
        np.testing.assert_allclose(again, found, atol=1e-4)


@pytest.mark.parametrize("method", ["full", "probe", "auto", "prompt"])
def test_a_saved_run_predicts_what_it_predicted(settings: dict[str, Any], tmp_path: Path, method: str) -> None:
    import pyarrow.parquet  # noqa: PLC0415

    run = tunesmith.finetune(settings | {"method": method}, run=tmp_path / "run")
    table = pyarrow.parquet.read_table(run.predictions).to_pylist()
    lines = Path(settings["data"]["train"]).read_text().splitlines()
    texts = {f"train:{number}": line.rpartition(",")[0] for number, line in enumerate(lines, 1)}
    again = tunesmith.load(run.folder).predict([texts[row["id"]] for row in table])
    assert [row["prediction"] for row in again] == [row["prediction"] for row in table]
    for one, other in zip(again, table, strict=True):
        assert one["score_good"] == pytest.approx(other["score_good"], abs=1e-4)
