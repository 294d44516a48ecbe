"""What the run is worth, in a few plain sentences: what was reached, what was gained, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.report.format import bounds, count, duration, gap, metric_name, signed, size, value

METHODS = {"full": "Full fine-tuning", "probe": "A probe on the frozen backbone"}
BASELINES = {
    "majority": "always giving the commonest answer",
    "probe": "a probe on the frozen backbone",
    "scratch": "the same network trained from scratch",
}


def verdict(report: Mapping[str, Any]) -> list[str]:
    """The sentences, most important first."""
    metric = report["primary_metric"]
    reached = report["metrics"]["test"][metric]
    method = METHODS.get(report["method"], f"The method {report['method']}")
    sentences = [
        f"{method} reaches {value(metric, reached['value'])} {metric_name(metric)} on {report['data']['test']:,} test rows "
        f"({confidence(report)} interval {bounds(metric, reached['low'], reached['high'])})."
    ]
    sentences += [_compared(metric, entry) for entry in ordered(report)]
    better = [entry["against"] for entry in ordered(report) if entry["difference"]["high"] < 0]
    if better:
        sentences.append(f"Use {BASELINES.get(better[0], better[0])} instead: it is better.")
    training = report["training"]
    sentences.append(
        f"Training took {duration(training['seconds'])} and at most {size(training['peak_memory_bytes'])} of memory; "
        f"{count(training['parameters_trainable'])} of {count(training['parameters_total'])} parameters were trained."
    )
    if report.get("memorising"):
        sentences.append(report["memorising"])
    return sentences


def ordered(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The comparisons, the hardest baseline first."""
    return sorted(report.get("comparisons", []), key=lambda entry: entry["difference"]["value"])


def confidence(report: Mapping[str, Any]) -> str:
    """ "95 %": of all intervals of the report."""
    return f"{100 * report.get('confidence', 0.95):g} %"


def _compared(metric: str, entry: Mapping[str, Any]) -> str:
    gained = entry["difference"]
    what = BASELINES.get(entry["against"], entry["against"])
    span = f"interval {signed(metric, gained['low'])} to {signed(metric, gained['high'])}"
    if gained["low"] > 0:
        return f"That is {gap(metric, gained['value'])} more than {what} ({span})."
    if gained["high"] < 0:
        return f"That is {gap(metric, gained['value'])} less than {what} ({span})."
    return f"A gain over {what} is not proven: the difference is {signed(metric, gained['value'])} ({span})."
