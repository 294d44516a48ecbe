"""The second half of the line: a trained model becomes a saved one, measured, with its report. Reads the test split once."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

import tunesmith
from tunesmith import adaptation
from tunesmith import run as runs
from tunesmith.beside import WITHOUT_ADAPT, Beside, WithoutAdapt
from tunesmith.contracts import Array, Model, Task
from tunesmith.errors import ModelError
from tunesmith.evaluate import baselines, retention, wise_ft
from tunesmith.evaluate.environment import environment
from tunesmith.evaluate.measure import Protocol, Reading, against, intervals, measure
from tunesmith.evaluate.memorising import memorising
from tunesmith.evaluate.retention import Reference
from tunesmith.models import adapters, probes, save
from tunesmith.models.forward import answers, device_of, logits
from tunesmith.models.reopening import Reopening
from tunesmith.plans import Plan
from tunesmith.prepare import Prepared, fresh_copy
from tunesmith.record import carried_out
from tunesmith.refit import Refitted
from tunesmith.report.card import model_card
from tunesmith.report.page import write_page
from tunesmith.run import Run
from tunesmith.train.cache import SAME
from tunesmith.train.choice import slug
from tunesmith.train.events import Trained
from tunesmith.train.loop import PROBE_HEAD, START
from tunesmith.train.weights import Tensors, copy_of, of

Listener = Callable[[Any], None]
TRIED_ROWS = 8
"""Rows on which the reopened model must say what the trained one says."""
TOLERANCE = 1e-3
"""Both compute in fp32; what differs is the order of sums."""
ROUGH = 3e-2
"""The same for weights of 4 bits, whose products are in bf16."""


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to `timings`."""
    started = time.perf_counter()
    yield
    timings[name] = timings.get(name, 0.0) + time.perf_counter() - started


def conclude(
    ready: Prepared,
    trained: Trained,
    refitted: Refitted | None,
    beside: Beside,
    place: Run,
    timings: dict[str, float],
    listen: Listener,
    references: Sequence[Reference] = (),
) -> dict[str, Any]:
    """Save, reopen, measure, compare, report.

    Args:
        refitted: what was trained once more on validation too, and is saved in place of `trained`.
        beside: what else was trained, for comparison.
        timings: seconds by step so far; completed here.
        references: what the original backbone was measured on.

    Returns:
        The content of report.json.

    Raises:
        ModelError: what is saved is not what was trained.
    """
    task, wanted = ready.task, ready.settings
    listen("Measuring on the test split.")
    with timed(timings, "evaluate"):
        checkpoints = checkpoints_of(ready, trained.plan, place)
        trained, validation, kept = _finished(ready, trained, refitted, checkpoints, references, listen)
    model = trained.model
    with Reopening(place.model, model) as opened:  # it takes seconds to import what it needs
        with timed(timings, "evaluate"):
            test = _split(ready, trained, "test")
        with timed(timings, "save"):
            few = test.rows.take(np.unique(test.examples.owner)[:TRIED_ROWS])  # of others nothing is left
            raw, tried = task.tried(few, model)
            save.save(model, place.model)
            opened.ask(raw)
        with timed(timings, "evaluate"):
            how = Protocol(task, ready.dataset.labels, wanted.evaluate, wanted.seed)
            said = task.answered(model, validation.examples, validation.logits, trained.plan.precision)
            validation = dataclasses.replace(validation, logits=said)
            fitted = task.fitted(validation.examples, validation.logits)
            sections = measure(how, test, fitted) | kept
            sections["metrics"]["validation"] = intervals(how, validation)
            sections |= _of_rows(ready, trained, validation, test)
        with timed(timings, "baselines"):
            others = _baselines(ready, trained, beside, test, checkpoints, references, listen, refitted)
            sections |= against(how, test, others)
            written = {name: others[name] for name in others if name != task.constant} | {"after": test.logits}
            sections["samples"] = task.samples(test.rows, test.examples, written, model)
            sections["learned"] = task.learned(ready.dataset.splits["train"], ready.train, model)
        with timed(timings, "reopen"):
            opened.compare(logits(task, model, tried, "fp32"), ROUGH if model.four_bit else TOLERANCE)
    report = _report(ready, trained, sections, timings, place, references)
    _write(ready, trained, place, report, test, fitted)
    shutil.rmtree(place.cache, ignore_errors=True)
    shutil.rmtree(place.checkpoints, ignore_errors=True)
    return report


def _of_rows(ready: Prepared, trained: Trained, validation: Reading, test: Reading) -> dict[str, Any]:
    """Sections on what the model was given of the rows: views of images, and what of texts was cut or left out."""
    task = ready.task
    found: dict[str, Any] = {}
    if trained.plan.views > 1:
        rows = ready.dataset.splits["train"]
        found["views"] = task.shown_views(rows, ready.train, trained.plan.views, ready.settings.seed)
    if ready.truncation:
        splits = {"validation": validation, "test": test}
        others = {name: task.truncation(split.examples, trained.model) for name, split in splits.items()}
        found["truncation"] = {"train": ready.truncation, **others}
    return found


def _write(
    ready: Prepared, trained: Trained, place: Run, report: dict[str, Any], test: Reading, fitted: float | None
) -> None:
    """Lay down what is said of the run: predictions, notes beside the model, the report."""
    with runs.writing(place.predictions):
        place.predictions.parent.mkdir(parents=True, exist_ok=True)
        predictions = ready.task.predictions(test.rows, test.logits, ready.dataset.labels, fitted)
        pyarrow.parquet.write_table(predictions, place.predictions)
    runs.write_json(place.model / "tunesmith.json", _own_notes(ready, fitted, trained.plan.precision))
    code = ready.task.loading_code(trained.model, str(place.model), len(ready.dataset.columns.inputs))
    runs.write_text(place.model / "README.md", model_card(report, code))
    runs.write_json(place.report, report)
    write_page(place.folder)


def _adaptation(ready: Prepared, place: Run) -> dict[str, Any] | None:
    return adaptation.described(place) if ready.settings.adapt is not None else None


def _report(
    ready: Prepared,
    trained: Trained,
    sections: dict[str, Any],
    timings: dict[str, float],
    place: Run,
    references: Sequence[Reference],
) -> dict[str, Any]:
    """The content of report.json; a section with nothing in it is absent."""
    wanted, model, plan = ready.settings, trained.model, carried_out(place, trained)
    found = {
        "tunesmith_version": tunesmith.__version__,
        "task": ready.task.name,
        "problem": ready.dataset.problem,
        "labels": list(ready.dataset.labels),
        "model": {
            "name": str(wanted.model),
            "architecture": type(model.module).__name__,
            "parameters": sum(stage.size for stage in model.stages),
            "loader": save.loader_of(model),
            "pooling": model.pooling,
            "head": model.head,
            "pretrained": not ready.loading.fresh,
        },
        "method": trained.plan.method,
        "status": "finished",
        "seed": wanted.seed,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "confidence": wanted.evaluate.confidence,
        "data": _data(ready),
        "adapt": _adaptation(ready, place),
        "plan": plan,
        **sections,
        "training": _training(plan, trained),
        "frontier": _frontier(trained),
        "timings": {name: round(seconds, 3) for name, seconds in timings.items()},
        "curve": [dict(entry) for entry in trained.curve],
        "memorising": memorising(trained.curve, None if "mixture" in sections else trained.best_epoch),
        "environment": environment(),
        "retain": wanted.train.retain,
        "command": f"tunesmith train {shlex.quote(str(place.settings))} --run NEW_FOLDER",
    }
    kept = {key: value for key, value in found.items() if value not in ([], None)}
    repeated = [one.warning for one in references if one.warning]
    if wanted.adapt is not None and (warning := adaptation.told(place)):
        repeated.append(warning)
    return kept | {"warnings": [*ready.dataset.audit["warnings"], *repeated]}


def _finished(
    ready: Prepared,
    trained: Trained,
    refitted: Refitted | None,
    checkpoints: Path,
    references: Sequence[Reference],
    listen: Listener,
) -> tuple[Trained, Reading, dict[str, Any]]:
    """The model whole, with validation as it reads it, or as did what it is refitted from; and sections: what it kept, …"""
    trained, validation, sections = _whole(ready, trained, checkpoints, references, listen)
    if refitted is not None:
        peak = max(trained.peak_memory_bytes, refitted.peak_memory_bytes)
        trained = dataclasses.replace(trained, model=refitted.model, peak_memory_bytes=peak)
        sections["refit"] = refitted.as_dict()
    kept = [retention.measure(one, trained.model).as_dict() for one in references]
    return trained, validation, sections | {"retention": kept}


def _whole(
    ready: Prepared, trained: Trained, checkpoints: Path, references: Sequence[Reference], listen: Listener
) -> tuple[Trained, Reading, dict[str, Any]]:
    """The model whole: checked, adapters folded in, mixed; with validation as it reads it, and the mixtures, as sections."""
    validation = _split(ready, trained, "validation")
    _check_restored(ready.task, trained, validation)
    start = _start(trained, checkpoints)
    if trained.model.adapter is not None and trained.model.adapter.merge:
        merged = adapters.merge(trained.model)
        trained = dataclasses.replace(trained, model=merged)
        validation = _split(ready, trained, "validation")
    mixtures = _mix(ready, trained, start, references, listen)
    if mixtures:
        validation = _split(ready, trained, "validation")
    ready.task.complete(trained.model, ready.train, trained.plan.precision)
    return trained, validation, mixtures


def _without_adapt(without: WithoutAdapt, references: Sequence[Reference], listen: Listener) -> Model:
    """What was trained from the weights as they came, made whole in the same way."""
    trained, _, _ = _whole(without.ready, without.trained, without.checkpoints, references, listen)
    return trained.model if without.refitted is None else without.refitted.model


def _start(trained: Trained, checkpoints: Path) -> Tensors | None:
    """The weights from before training, where they are to be mixed with the trained ones."""
    if not trained.plan.guards.wise_ft:
        return None
    return wise_ft.start_of(trained.model, checkpoints / START)


def _mix(
    ready: Prepared, trained: Trained, start: Tensors | None, references: Sequence[Reference], listen: Listener
) -> dict[str, Any]:
    """Give the trained model the best mixture with `start`; sections of the report, none where there is no start."""
    if start is None:
        return {}
    listen("Mixing weights from before and after training.")
    wanted = ready.settings
    how = wise_ft.Scales(
        ready.task, trained.plan, ready.train, ready.validation, references, wanted.train.retain, wanted.seed
    )
    points = wise_ft.curve(trained.model, start, how)
    chosen, why = wise_ft.choose(points, wanted.train.retain)
    wise_ft.put(trained.model, start, copy_of(of(trained.model.module)), chosen.alpha, how)
    listen(why)
    return {"wise_ft": [point.as_dict() for point in points], "mixture": {"alpha": chosen.alpha, "why": why}}


def _check_restored(task: Task, trained: Trained, validation: Reading) -> None:
    """Insist that the weights in hand are those of the best epoch, whole: their loss is measured again."""
    if trained.best_loss is None:
        return
    again = task.score(validation.examples, validation.logits)["loss"]
    allowed = TOLERANCE * max(1.0, abs(trained.best_loss))
    if trained.cache:  # what was kept was rounded, which moves the loss of a few rows as far as it moves their logits
        allowed = max(allowed, SAME[trained.plan.precision] * float(np.nanmax(np.abs(validation.logits))))
    if not abs(again - trained.best_loss) <= allowed:  # true of NaN too
        raise ModelError(
            f"The best weights did not come back whole: their validation loss was {trained.best_loss:.6g} in epoch "
            f"{trained.best_epoch} and is {again:.6g} now.",
            "Please report this; the checkpoints are in the run folder.",
        )


def _split(ready: Prepared, trained: Trained, name: str) -> Reading:
    rows = ready.dataset.splits[name]
    examples = ready.validation if name == "validation" else ready.task.encode(rows, trained.model)
    if name == "test" and ready.task.relative:
        # As they came, not as an adaptation left them: from there all that the model is held against is measured too.
        before = fresh_copy(ready, device_of(trained.model.module), ready.loading, ready.settings.model)
        examples = ready.task.anchored(examples, before, trained.plan.precision)
    said = answers if name == "test" else logits
    return Reading(rows, examples, said(ready.task, trained.model, examples, trained.plan.precision))


def checkpoints_of(ready: Prepared, plan: Plan, place: Run) -> Path:
    """Where the checkpoints of `plan` lie: in a folder of their own where there are several plans."""
    return place.checkpoints if len(ready.frontier.candidates) == 1 else place.checkpoints / slug(plan.label)


def _baselines(
    ready: Prepared,
    trained: Trained,
    beside: Beside,
    test: Reading,
    checkpoints: Path,
    references: Sequence[Reference],
    listen: Listener,
    refitted: Refitted | None,
) -> dict[str, Array]:
    """Logits of what the model is held against, on the test rows; the probe is of the same rows as the model."""
    task, plan, model = ready.task, trained.plan, trained.model
    precision, validation = plan.precision, ready.dataset.splits["validation"]
    found = {task.constant: task.commonest(ready.train, test.examples, model)}
    if model.head == "kept" and not ready.loading.fresh:
        loading = dataclasses.replace(ready.loading, apart=False)
        before = fresh_copy(ready, device_of(model.module), loading, ready.settings.model)
        found["before"] = baselines.levelled(task, before, test.examples, validation, precision)
    # A plan that only solves is the probe; one that does not solve for the head has none to be held against.
    if {phase.head for phase in plan.phases} == {"solve", "train"}:
        pretrained = fresh_copy(ready, device_of(model.module), ready.loading)
        splits = ready.dataset.splits
        head = refitted.probe if refitted else probes.read(checkpoints / PROBE_HEAD)
        found["probe"] = baselines.probe(task, pretrained, head, splits, precision)
    if beside.scratch is not None:
        found["scratch"] = baselines.levelled(task, beside.scratch, test.examples, validation, precision)
    if beside.without_adapt is not None:
        without = _without_adapt(beside.without_adapt, references, listen)
        found[WITHOUT_ADAPT] = baselines.levelled(task, without, test.examples, validation, precision)
    return found


def _data(ready: Prepared) -> dict[str, Any]:
    columns = ready.dataset.columns
    return {name: rows.num_rows for name, rows in ready.dataset.splits.items()} | {
        "rejected": len(ready.dataset.rejected),
        "columns": {
            "inputs": list(columns.inputs),
            "target": columns.target,
            "ignored": list(columns.ignored),
            "guesses": list(columns.guesses),
        },
    }


def _training(plan: Mapping[str, Any], trained: Trained) -> dict[str, Any]:
    # A plan of a frontier is tested while it is tried, one alone before it trains.
    tested = 0.0 if trained.frontier else plan.get("range_test", {}).get("seconds", 0.0)
    return {
        "seconds": round(trained.seconds + tested, 3),
        "epochs": trained.epochs,
        "steps": trained.steps,
        "examples_per_second": round(trained.rows_seen / trained.seconds, 2) if trained.rows_seen else None,
        "peak_memory_bytes": trained.peak_memory_bytes,
        "parameters_total": plan["parameters_total"],
        "parameters_trainable": plan["parameters_trainable"],
        "precision": trained.plan.precision,
        **({"cache": dict(trained.cache)} if trained.cache else {}),
        "stopped_early": trained.stopped_early,
        **({"stopped": trained.stopped} if trained.stopped else {}),
        "best_epoch": trained.best_epoch,
    }


def _frontier(trained: Trained) -> list[dict[str, Any]]:
    """All that was tried, and what was not; a cell that has nothing in it is absent."""
    entries = []
    for one in trained.frontier:
        cells = dataclasses.asdict(one)
        plain = {key: cell for key, cell in cells.items() if cell not in (None, ()) and cell is not False}
        entries.append(plain | {"chosen": one.label == trained.plan.label})
    return entries


def _own_notes(ready: Prepared, fitted: float | None, precision: str) -> dict[str, Any]:
    """What `tunesmith predict` needs beside what the ecosystem's loaders need."""
    return {
        "task": ready.settings.task.model_dump(),
        "problem": ready.dataset.problem,
        "labels": list(ready.dataset.labels),
        "coding": dict(ready.dataset.coding),
        "inputs": list(ready.dataset.columns.inputs),
        "targets": list(ready.dataset.columns.targets),
        "fitted": fitted,
        "precision": precision,
    }
