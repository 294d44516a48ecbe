"""The first half of the line: settings → data → model → plan. Trains nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from tunesmith import methods, settings, tasks
from tunesmith import run as runs
from tunesmith.contracts import Examples, Facts, Method, Model, Stage, Task
from tunesmith.data.audit import splits_json
from tunesmith.data.load import Dataset
from tunesmith.errors import RunError
from tunesmith.models import adapters, heads, precision
from tunesmith.plans import HEAD, Plan, cut_of
from tunesmith.registry import look_up
from tunesmith.run import Run
from tunesmith.settings import Named, Settings, TrainSettings
from tunesmith.train.trial import Predicted

Say = Callable[[str], None]
BLOCK = 10_000


@dataclass(frozen=True)
class Prepared:
    """All that training needs, and what was found on the way."""

    settings: Settings
    task: Task
    dataset: Dataset
    model: Model
    stages: tuple[Stage, ...]
    """Of the model that the plan was made for."""
    train: Examples
    validation: Examples
    plan: Plan
    truncation: dict[str, Any] | None


def make(kind: str, named: Named) -> Any:
    """The task or the method that `named` stands for, with its own settings checked."""
    table = {"task": tasks.TABLE, "method": methods.TABLE}[kind]
    found = look_up(kind, named.name, table)
    return found(settings.check(found.Settings, named.own, f"{kind} {named.name!r}"))


def load_data(wanted: Settings, cache: Path) -> tuple[Task, Dataset]:
    """The task, and its data, audited and split."""
    task: Task = make("task", wanted.task)
    return task, task.load_data(wanted.data, cache, wanted.seed)


def prepare(wanted: Settings, cache: Path, device: torch.device, say: Say) -> Prepared:
    """Read the data, load the model, tokenise, and make the plan.

    Raises:
        TunesmithError: a setting, the data or the model cannot be used.
    """
    method: Method = make("method", wanted.method)  # a wrong name or key should not wait for the data
    task, dataset = load_data(wanted, cache)
    for guess in dataset.columns.guesses:
        say(guess)
    for warning in dataset.audit["warnings"]:
        say(f"Note: {warning}")
    model = task.load_model(wanted.model, dataset.labels, seed=wanted.seed, remote_code=wanted.trust_remote_code)
    train, validation = (task.encode(dataset.splits[name], model) for name in ("train", "validation"))
    truncation = task.truncation(train, model)
    if truncation and truncation["rows_cut"]:
        say(
            f"Note: {truncation['rows_cut']:,} of {dataset.splits['train'].num_rows:,} training rows are longer than "
            f"{truncation['limit']:,} tokens; {truncation['share_of_tokens']:.1%} of all tokens are cut from their ends."
        )
    plan = method.plan(model.stages, facts_of(wanted.train, model, train, device))
    if plan.adapter is not None:
        model = adapters.inject(model, plan.adapter, wanted.seed)
    model.module.to(device)
    return Prepared(wanted, task, dataset, model, model.stages, train, validation, plan, truncation)


def facts_of(settings: TrainSettings, model: Model, train: Examples, device: torch.device) -> Facts:
    """What a method may know of the job."""
    return Facts(
        rows=train.rows,
        pieces=len(train),
        classes=heads.outputs_of(model),
        hidden=heads.last_linear(model).in_features,
        native_bf16=precision.native_bf16(device),
        settings=settings,
    )


def record(ready: Prepared, place: Run, predicted: Predicted) -> None:
    """Leave audit, rejected rows, splits and plan in the run folder."""
    runs.write_json(place.audit, ready.dataset.audit)
    runs.write_json_lines(place.rejected, [row.as_dict() for row in ready.dataset.rejected])
    runs.write_json(place.splits, {"fingerprints": _fingerprints(ready), **splits_json(ready.dataset)})
    runs.write_json(place.plan, describe(ready.plan, ready.stages, predicted))


def insist(ready: Prepared, place: Run) -> None:
    """On resuming, insist on the data and the plan that the run began with.

    Raises:
        RunError: the data, or the plan that follows from them, are others.
    """
    if runs.read_json(place.splits)["fingerprints"] != _fingerprints(ready):
        raise RunError(
            f"The data have changed since the run {place.folder} began.", "Restore them, or start a new run."
        )
    again = json.loads(json.dumps(describe(ready.plan, ready.stages, None)))
    if {key: value for key, value in runs.read_json(place.plan).items() if key != "predicted"} != again:
        raise RunError(
            f"The plan of {place.folder} was made on another machine or by another version, and would differ here.",
            "Start a new run.",
        )


def _fingerprints(ready: Prepared) -> dict[str, str]:
    return {name: fingerprint(rows) for name, rows in ready.dataset.splits.items()}


def describe(plan: Plan, stages: Sequence[Stage], predicted: Predicted | None) -> dict[str, Any]:
    """The plan as plan.json holds it: with the parameters of each stage, and what the trial predicts."""
    by_name = {stage.name: stage for stage in stages}
    described = plan.as_dict()
    trained = 0
    for phase, shown in zip(plan.phases, described["phases"], strict=True):
        shown["cut"] = cut_of(phase) if plan.cache else None
        for row, cell in zip(phase.rows, shown["rows"], strict=True):
            stage = by_name[row.stage]
            cell["parameters"] = stage.size
            solved = phase.head == "solve" and row.stage == HEAD
            trains = row.learning_rate is not None
            cell["trained"] = sum(one.size for one in stage.chosen(row.part)) if trains else stage.size if solved else 0
        trained = max(trained, sum(cell["trained"] for cell in shown["rows"]))
    total = sum(stage.size for stage in stages)
    described |= {"parameters_total": total, "parameters_trainable": trained}
    if predicted is not None:
        described["predicted"] = {"seconds": round(predicted.seconds, 1), "peak_memory_bytes": predicted.peak_bytes}
    return described


def fingerprint(rows: pa.Table) -> str:
    """A checksum over every row of a split, to know later that the data are the same."""
    digest = hashlib.sha256()
    kept = rows.select([name for name in rows.column_names if name not in ("line", "file")])  # where, not what
    for start in range(0, rows.num_rows, BLOCK):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, kept.schema) as stream:  # blocks of our own: those of the file may lie otherwise
            stream.write_table(kept.slice(start, BLOCK).combine_chunks())
        digest.update(sink.getvalue())
    return digest.hexdigest()
