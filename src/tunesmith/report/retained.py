"""What the report says and draws of retention: what the backbone could do before, and what it still can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.metrics.direction import LOWER_IS_BETTER
from tunesmith.report import figures
from tunesmith.report.format import metric_name, signed, value


def sentences(report: Mapping[str, Any]) -> list[str]:
    """One for each reference; then whether as much is kept as was asked for, and what was mixed."""
    found = [_kept(entry) for entry in report.get("retention", [])]
    wanted = report.get("retain")
    if wanted is not None:
        short = [entry["name"] for entry in report["retention"] if entry["kept"] < wanted]
        asked = f"the {100 * wanted:g} % that train.retain asks for"
        found.append(
            f"That is less than {asked} on {' and '.join(short)}." if short else f"Everywhere at least {asked} is kept."
        )
    if "mixture" in report:
        found.append(report["mixture"]["why"])
    return found


def drawings(report: Mapping[str, Any]) -> dict[str, str]:
    """Likeness by stage, and what each mixture of weights is worth."""
    found = {}
    alike = [(entry["name"], list(enumerate(entry["cka"].values()))) for entry in report.get("retention", [])]
    if any(points for _, points in alike):
        found["cka"] = figures.lines(alike, "stage, from the input up", "likeness (CKA)")
    mixtures = report.get("wise_ft", [])
    if mixtures:
        metric = metric_name(report["primary_metric"])
        points = [(point["alpha"], point["metric"]) for point in mixtures]
        found["mixtures"] = figures.lines([("validation", points)], "share of the trained weights", metric)
        names = list(mixtures[0].get("retention", {}))
        kept = [(name, [(point["alpha"], point["retention"][name]) for point in mixtures]) for name in names]
        if kept:
            found["mixtures_kept"] = figures.lines(kept, "share of the trained weights", "share kept")
    return found


def _kept(entry: Mapping[str, Any]) -> str:
    metric, before, after, gap = (entry[key] for key in ("metric", "before", "after", "difference"))
    change = (
        f"{value(metric, before['value'])} → {value(metric, after['value'])} {metric_name(metric)} on {entry['name']}"
    )
    span = f"interval of the difference {signed(metric, gap['low'])} to {signed(metric, gap['high'])}"
    better, worse = gap["low"] > 0, gap["high"] < 0
    if metric in LOWER_IS_BETTER:
        better, worse = worse, better
    if better:
        return f"The backbone can do more than before: {change} ({span})."
    if worse:
        return f"Of what the backbone could do before, {100 * entry['kept']:.1f} % is kept ({change}; {span})."
    return f"A loss of what the backbone could do before is not proven ({change}; {span})."
