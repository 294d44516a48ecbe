"""What was tried, and why the winner won: the frontier's table, its plots, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.metrics import direction
from tunesmith.report import figures
from tunesmith.report.format import count, duration, gap, metric_name, value

Entry = Mapping[str, Any]


def why(report: Mapping[str, Any]) -> str:
    """Why the winner won, in one sentence; empty where there was no choice."""
    entries = report.get("frontier", [])
    if not entries:
        return ""
    tried = [entry for entry in entries if "metric" in entry]
    chosen = next(entry for entry in tried if entry["chosen"])
    metric = report["primary_metric"]
    spent = duration(sum(entry["seconds"] for entry in tried))
    reached = f"{value(metric, chosen['metric']['value'])} {metric_name(metric)} on validation"
    others = [entry for entry in tried if not entry["chosen"]]
    if not others:
        return f"Only {chosen['label']} could be tried within the budget: {reached}."
    start = f"Of {len(tried)} methods tried in {spent}, {chosen['label']} was kept"
    least = report.get("retain")
    keeping = [entry for entry in others if least is None or entry.get("retention", 1.0) >= least]
    forgetful = len(others) - len(keeping)
    lost = f" {forgetful} kept less of the reference than train.retain asks for." if forgetful else ""
    if least is not None and chosen.get("retention", 1.0) < least:
        return (
            f"{start}: none keeps {100 * least:.0f} % of the reference score, as train.retain asks for, and this one keeps "
            "most."
        )
    if not keeping:
        return f"{start}: {reached}.{lost}"
    better = direction.sign(metric)
    by = "more" if better > 0 else "less"
    next_best = max(keeping, key=lambda entry: better * entry["metric"]["value"])
    ahead = better * (chosen["metric"]["value"] - next_best["metric"]["value"])
    if ahead < 0 and chosen.get("preferred"):
        return (
            f"{start}: {reached}. {next_best['label']} reached {value(metric, next_best['metric']['value'])}, but on "
            f"{report['data']['validation']:,} rows that says little, and where classes have so few rows comparing them "
            f"has been worth more.{lost}"
        )
    if ahead <= 0:
        return f"{start}: {reached}, which {next_best['label']} reached too, at a higher cost.{lost}"
    near = ""
    if (
        next_best["metric"]["high"] >= chosen["metric"]["low"]
        and next_best["metric"]["low"] <= chosen["metric"]["high"]
    ):
        near = f"; their intervals overlap on {report['data']['validation']:,} rows, so the other might be as good"
    return f"{start}: {reached}, {gap(metric, ahead)} {by} than the next best, {next_best['label']}{near}.{lost}"


def rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table's rows: what was tried first, then what was not, with the reason as a sentence."""
    found = []
    for entry in report.get("frontier", []):
        told = entry.get("left_out") or entry.get("stopped") or ""
        said = f"not tried: {told}" if "left_out" in entry else f"stopped, as {told}" if told else ""
        found.append({**entry, "said": said})
    return found


def plots(report: Mapping[str, Any]) -> dict[str, str]:
    """Quality over time and over trained parameters, as SVG, by name."""
    tried = [entry for entry in report.get("frontier", []) if "metric" in entry]
    if len(tried) < 2:
        return {}
    name = f"{metric_name(report['primary_metric'])} on validation"
    return {
        "frontier_seconds": figures.costs(
            _points(tried, "seconds"), "seconds, from the shared features on", name, duration
        ),
        "frontier_parameters": figures.costs(_points(tried, "parameters_trainable"), "trained parameters", name, count),
    }


def _points(tried: Sequence[Entry], cost: str) -> list[figures.Mark]:
    return [
        figures.Mark(
            entry["label"],
            max(float(entry[cost]), 1e-3),
            entry["metric"]["value"],
            entry["metric"]["low"],
            entry["metric"]["high"],
            entry["chosen"],
            entry.get("retention"),
        )
        for entry in tried
    ]
