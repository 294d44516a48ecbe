"""Several finished runs side by side; where they were tested on the same rows, the paired difference too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tunesmith import run as runs
from tunesmith.errors import RunError
from tunesmith.metrics.bootstrap import paired_mean_difference


def compare(folders: Sequence[str | Path]) -> dict[str, Any]:
    """One entry a run, best first, and how the others differ from the first row by row.

    Returns:
        {"metric", "runs": [{run, method, model, value, low, high, seconds, parameters_trainable, difference?}]};
        `difference` is in the share of right answers, for runs of classes tested on the same rows.

    Raises:
        RunError: fewer than two runs, an unfinished one, or runs whose primary metrics differ.
    """
    if len(folders) < 2:
        raise RunError("Comparing needs at least two runs.", "Example: tunesmith compare runs/a runs/b")
    entries = [_entry(Path(folder)) for folder in folders]
    metrics = {entry["metric"] for entry in entries}
    if len(metrics) > 1:
        raise RunError(
            f"The runs were judged by different metrics ({', '.join(sorted(metrics))}).", "Set task.metric alike."
        )
    entries.sort(key=lambda entry: -entry["value"])
    right = [_right(Path(entry["run"])) for entry in entries]
    first = right[0]
    for entry, other in zip(entries[1:], right[1:], strict=True):
        if first is not None and other is not None and first[0] == other[0]:
            entry["difference"] = paired_mean_difference(other[1], first[1], seed=0).as_dict()
    return {"metric": metrics.pop(), "runs": entries}


def _entry(folder: Path) -> dict[str, Any]:
    report = runs.read_json(runs.open_run(folder).report)
    metric = report["primary_metric"]
    return {
        "run": str(folder),
        "metric": metric,
        "method": report["method"],
        "model": report["model"]["name"],
        **report["metrics"]["test"][metric],
        "seconds": report["training"]["seconds"],
        "parameters_trainable": report["training"]["parameters_trainable"],
    }


def _right(folder: Path) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float64]]] | None:
    """Row ids in order, and 1 where the prediction is the truth; None for scores, which are never exactly right."""
    table = pyarrow.parquet.read_table(runs.Run(folder).predictions).sort_by("id")
    if pa.types.is_floating(table.schema.field("prediction").type):
        return None
    pairs = zip(table.column("truth").to_pylist(), table.column("prediction").to_pylist(), strict=True)
    return table.column("id").to_pylist(), np.array([float(truth == found) for truth, found in pairs])
