"""What a run leaves before training: audit, rejected rows, splits, and the plan; and, on resuming, that they are the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from tunesmith import run as runs
from tunesmith.contracts import Stage
from tunesmith.data.audit import splits_json
from tunesmith.data.load import Dataset
from tunesmith.errors import RunError
from tunesmith.plans import HEAD, Frontier, Plan, cut_of
from tunesmith.prepare import Prepared
from tunesmith.run import Run
from tunesmith.train import memory, processes, trial
from tunesmith.train.choice import LEAST_SHARE, Option
from tunesmith.train.course import Job
from tunesmith.train.events import RangeTest, Trained
from tunesmith.train.range_test import range_test, scaled
from tunesmith.train.trial import Predicted

BLOCK = 10_000


def record(ready: Prepared, place: Run, options: Sequence[Option]) -> None:
    """Leave audit, rejected rows, splits and plan in the run folder."""
    runs.write_json(place.audit, ready.dataset.audit)
    runs.write_json_lines(place.rejected, [row.as_dict() for row in ready.dataset.rejected])
    runs.write_json(place.splits, {"fingerprints": fingerprints(ready.dataset), **splits_json(ready.dataset)})
    runs.write_json(place.plan, shown(ready.frontier, options))


def shown(frontier: Frontier, options: Sequence[Option]) -> dict[str, Any]:
    """What plan.json holds: the plan, or all that may be tried."""
    described = [dict(option.described) | {"predicted": asdict(option.predicted)} for option in options]
    if len(options) == 1:
        return described[0]
    return {"method": "auto", "reasons": list(frontier.reasons), "candidates": described}


def tried_out(
    ready: Prepared, job: Callable[[Plan], Job], left: Callable[[Option], float | None] = lambda _: None
) -> list[Option]:
    """Every plan with what a short trial predicts for it.

    Args:
        left: seconds for training, from now on, to the first plan; None where nothing is set. Plans for which they cannot
            suffice are spared their trials, which would take time from the others.
    """
    options: list[Option] = []
    for plan in ready.frontier.candidates:
        memory.restart_peak()
        one = job(plan)
        wanted = len(ready.frontier.candidates) == 1 and tests_rates(ready)
        found = processes.agree(range_test(one)) if wanted else None  # rounding may differ between processes
        one = dataclasses.replace(one, plan=scaled(plan, found))
        described = describe(one.plan, one.model.stages) | ({"range_test": asdict(found)} if found else {})
        forward = options[0].predicted.forward if options else None
        if options and (seconds := left(options[0])) is not None:
            least = Option(one.plan, described, trial.at_least(one, options[0].predicted))
            if processes.agree(least.share(seconds - options[0].predicted.solving) < LEAST_SHARE):
                options.append(least)
                continue
        seconds = trial.SECONDS / len(ready.frontier.candidates)  # a choice between many should not take longer
        predicted = trial.predict(one, forward, seconds)
        options.append(Option(one.plan, described, predicted))
    shared = trial.sharing([option.predicted for option in options])
    return [dataclasses.replace(option, predicted=found) for option, found in zip(options, shared, strict=True)]


def tests_rates(ready: Prepared) -> bool:
    """Whether learning rates are checked by a range test, where the plan wants one: those that the user sets are not."""
    return ready.settings.train.learning_rate == "auto"


def begun(ready: Prepared, job: Callable[[Plan], Job], place: Run) -> list[Option]:
    """On resuming: the plans as the run began with them. Insists on the same data and the same plans.

    Raises:
        RunError: the data, or the plan that follows from them, are others.
    """
    if runs.read_json(place.splits)["fingerprints"] != fingerprints(ready.dataset):
        raise RunError(
            f"The data have changed since the run {place.folder} began.", "Restore them, or start a new run."
        )
    written = runs.read_json(place.plan)
    found = written.get("candidates", [written])
    tested = [RangeTest(**one["range_test"]) if "range_test" in one else None for one in found]
    plans = [scaled(plan, test) for plan, test in zip(ready.frontier.candidates, tested, strict=True)]
    again = [describe(plan, job(plan).model.stages) for plan in plans]
    plain = [{key: value for key, value in one.items() if key not in ("predicted", "range_test")} for one in found]
    if plain != json.loads(json.dumps(again)):
        raise RunError(
            f"The plan of {place.folder} was made on another machine or by another version, and would differ here.",
            "Start a new run.",
        )
    return [
        Option(plan, one, Predicted(**kept["predicted"])) for plan, one, kept in zip(plans, again, found, strict=True)
    ]


def carried_out(place: Run, trained: Trained) -> dict[str, Any]:
    """The plan that the trained network comes from, as plan.json describes it."""
    written = runs.read_json(place.plan)
    plans = written.get("candidates", [written])
    found: dict[str, Any] = next(one for one in plans if (one["method"], one["variant"]) == _names(trained.plan))
    own = trained.plan
    for phase, shown in zip(own.phases, found["phases"], strict=True):
        for row, cell in zip(phase.rows, shown["rows"], strict=True):
            cell["learning_rate"] = row.learning_rate
    found |= {"share_of_epoch": own.share_of_epoch, "reasons": list(own.reasons)}
    if own.share_of_epoch < 1:  # what was predicted for the whole plan, as much as it was shortened
        whole = found["predicted"]
        stepping = own.share_of_epoch * whole["stepping"]
        seconds = whole["solving"] + stepping + whole["validating"]
        found["predicted"] = whole | {"stepping": stepping, "seconds": seconds}
    return found | ({"range_test": asdict(trained.range_test)} if trained.range_test else {})


def _names(plan: Plan) -> tuple[str, str]:
    return plan.method, plan.variant


def fingerprints(dataset: Dataset) -> dict[str, str]:
    """A checksum of each split."""
    return {name: fingerprint(rows) for name, rows in dataset.splits.items()}


def describe(plan: Plan, stages: Sequence[Stage]) -> dict[str, Any]:
    """The plan as plan.json holds it, with the parameters of each stage."""
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
    return described | {"parameters_total": total, "parameters_trainable": trained}


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
