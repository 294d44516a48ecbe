"""The one reading of the test split, with everything that is said about it: intervals, baselines, calibration, mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.contracts import Array, Examples, Task
from tunesmith.metrics.interval import Interval
from tunesmith.settings import EvaluateSettings


@dataclass(frozen=True)
class Reading:
    """A split with what the model says of it."""

    rows: pa.Table
    examples: Examples
    logits: Array
    """(rows, outputs)."""


@dataclass(frozen=True)
class Protocol:
    """How everything is measured: the same way for the model and for what it is held against."""

    task: Task
    labels: Sequence[str]
    settings: EvaluateSettings
    seed: int


def measure(how: Protocol, test: Reading, fitted: float | None) -> dict[str, Any]:
    """Sections of the report on one split: metrics with intervals, details, mistakes."""
    task, left = how.task, len(np.unique(test.examples.owner))
    sections: dict[str, Any] = {
        "primary_metric": task.primary_metric,
        **({"rows_measured": left} if left < test.rows.num_rows else {}),  # of the others nothing is left to measure
        "metrics": {"test": intervals(how, test)},
        **task.details(test.examples, test.logits, how.labels, fitted),
    }
    figure, by_class = task.class_intervals(test.examples, test.logits, how.settings, how.seed, groups_of(test.rows))
    for row, interval in zip(sections["per_class"] if figure else (), by_class, strict=True):
        row["interval"] = interval and {"of": figure, "low": interval.low, "high": interval.high}
    mistakes = task.mistakes(test.rows, test.examples, test.logits, how.labels, fitted, how.settings.mistakes)
    if mistakes:
        sections["mistakes"] = mistakes
    return sections


def intervals(how: Protocol, split: Reading) -> dict[str, dict[str, float]]:
    """Every metric of `split` with its interval, JSON-able."""
    return _plain(how.task.intervals(split.examples, split.logits, how.settings, how.seed, groups_of(split.rows)))


def against(how: Protocol, test: Reading, baselines: Mapping[str, Array]) -> dict[str, Any]:
    """Baselines' figures on the same rows, and the paired differences from them.

    Args:
        baselines: name to logits (test rows, outputs).
    """
    task, groups = how.task, groups_of(test.rows)
    return {
        "baselines": {
            name: _plain(task.intervals(test.examples, logits, how.settings, how.seed, groups))
            for name, logits in baselines.items()
        },
        "comparisons": [
            {
                "against": name,
                "metric": task.primary_metric,
                "difference": task.difference(
                    test.examples, test.logits, logits, how.settings, how.seed, groups
                ).as_dict(),
            }
            for name, logits in baselines.items()
        ],
    }


def groups_of(rows: pa.Table) -> npt.NDArray[np.int64] | None:
    """Which rows belong together, (rows,), or None when each stands alone."""
    if "group" not in rows.column_names:
        return None
    _, groups = np.unique(np.asarray(rows.column("group").to_pylist(), dtype=str), return_inverse=True)
    return groups.astype(np.int64)


def _plain(values: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: interval.as_dict() for name, interval in values.items()}
