"""Several finished runs side by side; where they were tested on the same rows, the paired difference too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tunesmith import run as runs
from tunesmith import tasks
from tunesmith.contracts import Task
from tunesmith.errors import RunError
from tunesmith.evaluate.measure import groups_of
from tunesmith.metrics import direction
from tunesmith.registry import make
from tunesmith.run import Run
from tunesmith.settings import Settings, parse
from tunesmith.settings_file import read_yaml


def compare(folders: Sequence[str | Path]) -> dict[str, Any]:
    """One entry a run, best first, and how the others differ from the first row by row.

    Returns:
        {"metric", "confidence", "runs": [{run, method, model, value, low, high, seconds, parameters_trainable,
        difference?}]}; `difference` is in the metric, for runs that were tested on the same rows as the best one.

    Raises:
        RunError: fewer than two runs, an unfinished one, or runs whose tasks or primary metrics differ.
    """
    if len(folders) < 2:
        raise RunError("Comparing needs at least two runs.", "Example: tunesmith compare runs/a runs/b")
    places = [runs.open_run(Path(folder)) for folder in folders]
    reports = [runs.read_json(place.report) for place in places]
    for key, name, mend in (
        ("task", "tasks", "Compare runs of one task."),
        ("problem", "kinds of target", "Set task.problem alike."),
        ("primary_metric", "metrics", "Set task.metric alike."),
    ):
        values = {report[key] for report in reports}
        if len(values) > 1:
            raise RunError(f"The runs have different {name} ({', '.join(sorted(values))}).", mend)
    metric = reports[0]["primary_metric"]
    sign = direction.sign(metric)
    ranked = sorted(
        zip(places, reports, strict=True), key=lambda pair: -sign * pair[1]["metrics"]["test"][metric]["value"]
    )
    entries = [_entry(place, report) for place, report in ranked]
    wanted = parse(read_yaml(ranked[0][0].settings))
    task, labels = _task(wanted, reports[0]["problem"]), ranked[0][1].get("labels", [])
    rows, best = _tested(ranked[0][0])
    for entry, (place, report) in zip(entries[1:], ranked[1:], strict=True):
        other_rows, other = _tested(place)
        if other_rows == rows and report.get("labels", []) == labels:
            found = task.compared(other, best, labels, wanted.evaluate, wanted.seed, groups_of(best))
            entry["difference"] = found.as_dict()
    return {"metric": metric, "confidence": wanted.evaluate.confidence, "runs": entries}


def _task(wanted: Settings, problem: str) -> Task:
    task: Task = make("task", tasks.TABLE, wanted.task)
    task.adopt(problem)
    return task


def _entry(place: Run, report: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": str(place.folder),
        "method": report["method"],
        "model": report["model"]["name"],
        **report["metrics"]["test"][report["primary_metric"]],
        "seconds": report["training"]["seconds"],
        "parameters_trainable": report["training"]["parameters_trainable"],
    }


def _tested(place: Run) -> tuple[str, pa.Table]:
    """The checksum of the test rows, and what was predicted for them."""
    checksum: str = runs.read_json(place.splits)["fingerprints"]["test"]
    return checksum, pyarrow.parquet.read_table(place.predictions)
