"""report.html: one page that holds everything it shows, made from the files of a run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tunesmith import run as runs
from tunesmith.report import figures, frontier, retained
from tunesmith.report import format as formats
from tunesmith.report.verdict import BASELINES, METHODS, adapted, confidence, contents, lengths, ordered, sizes, verdict

LARGEST_MATRIX = 25
"""Classes up to which the confusion matrix can be read as a picture."""
MOST_POINTS = 300


def write_page(folder: Path) -> Path:
    """Write RUN/report.html from RUN/report.json and its companions, and return its path.

    Raises:
        RunError: the run is not finished, or a file is damaged.
    """
    run = runs.Run(folder)
    report = runs.read_json(run.report)
    audit = runs.read_json(run.audit)
    runs.write_text(run.page, page(report, audit, _log(run.log, report)))
    return run.page


def page(report: Mapping[str, Any], audit: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML.

    Args:
        report: content of report.json.
        audit: content of data/audit.json.
        log: lines of log.jsonl.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tunesmith.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["format"] = formats
    return environment.get_template("page.html.j2").render(
        report=report,
        audit=audit,
        sentences=verdict(report),
        adapted=adapted(report),
        frontier=frontier.rows(report),
        lengths=lengths(report),
        metric=report["primary_metric"],
        confidence=confidence(report),
        method=METHODS.get(report["method"], report["method"]),
        baselines={name: BASELINES.get(name, name) for name in report.get("baselines", {})},
        figures={name: Markup(figure) for name, figure in _figures(report, audit, log).items()},  # noqa: S704: our own SVG
        matrix=_matrix(report),
        confused=_confused(report),
        groups=_row_groups(report["plan"]["phases"]),
        sizes=[*sizes(audit), *contents(audit)],
    )


def _figures(report: Mapping[str, Any], audit: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    metric = report["primary_metric"]
    own = report["metrics"]["test"][metric]
    rows = [("this model", own, True)]
    rows += [
        (name, report["baselines"][name][metric], False)
        for name in (entry["against"] for entry in ordered(report))
        if metric in report["baselines"][name]
    ]
    found = {"verdict": figures.whiskers(metric, rows), **frontier.plots(report)}
    curve = report.get("curve", [])
    if curve:
        epochs = [entry["epoch"] for entry in curve]
        pairs = {key: [entry[key] for entry in curve] for key in ("validation_loss", "train_loss", "metric")}
        series = {key: list(zip(epochs, numbers, strict=True)) for key, numbers in pairs.items()}
        found["loss"] = figures.lines(
            [("validation", series["validation_loss"]), ("training", series["train_loss"])], "epoch", "loss"
        )
        found["metric"] = figures.lines([("validation", series["metric"])], "epoch", formats.metric_name(metric))
    if len(log) > 2:
        kept = log[:: -(-len(log) // MOST_POINTS)]
        found["steps"] = figures.lines(
            [("loss", [(line["step"], line["loss"]) for line in kept])], "step", "training loss"
        )
        rate = [(line["step"], max(line["learning_rates"].values())) for line in kept]
        found["rate"] = figures.lines([("learning rate", rate)], "step", "learning rate")
    if "range_test" in report["plan"]:
        tested = report["plan"]["range_test"]
        points = [(math.log10(rate), loss) for rate, loss in zip(tested["rates"], tested["losses"], strict=False)]
        found["range"] = figures.lines(
            [("loss", points)], "learning rate (logarithmic)", "loss", lambda power: f"{10**power:.1g}"
        )
    if "calibration" in report:
        known = report["calibration"]
        found["reliability"] = figures.reliability(
            known["bins"], known["bins_scaled"] if known["temperature"] != 1 else []
        )
    if report.get("scatter"):
        found["scatter"] = figures.scatter(report["scatter"])
    if "verification" in report:
        points = [tuple(point) for point in report["verification"]["roc"]]
        found["roc"] = figures.lines([("pairs", points)], "different pairs accepted", "same pairs accepted")
    found |= retained.drawings(report)
    counts = audit.get("classes", {}).get("train", {})
    if 0 < len(counts) <= LARGEST_MATRIX:
        found["classes"] = figures.bars(sorted(counts.items(), key=lambda entry: -entry[1]))
    return found


def _matrix(report: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows of the confusion matrix with the share of the truth that each cell is; None when it is too large to read."""
    counts = report.get("confusion", {}).get("counts")
    if not counts or len(counts) > LARGEST_MATRIX:
        return None

    def shown(count: int, row: Sequence[int]) -> str:
        """Rows as they are; of pixels, which nobody counts, the share of the truth that they are."""
        if report["confusion"].get("unit") != "pixels":
            return str(count or "")
        return f"{100 * count / max(1, sum(row)):.0f}".removeprefix("0")

    return [
        {
            "label": label,
            "cells": [
                {"shown": shown(count, row), "share": count / max(1, sum(row)), "right": column == index}
                for column, count in enumerate(row)
            ],
        }
        for index, (label, row) in enumerate(zip(report["labels"], counts, strict=True))
    ]


def _confused(report: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """The pairs of classes that are taken for one another most: (truth, prediction, rows)."""
    counts = report.get("confusion", {}).get("counts", [])
    labels = report.get("labels", [])
    pairs = [
        (labels[truth], labels[found], count)
        for truth, row in enumerate(counts)
        for found, count in enumerate(row)
        if truth != found and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:12]


def _row_groups(phases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each phase with neighbouring stages of one rate put together: "block 0 to block 5"."""
    grouped = []
    for phase in phases:
        rows: list[dict[str, Any]] = []
        for row in phase["rows"]:
            solved = phase["head"] == "solve" and row["stage"] == "head"
            rate = "solved" if solved else "frozen" if row["learning_rate"] is None else f"{row['learning_rate']:.3g}"
            if rows and rows[-1]["rate"] == rate and row["stage"] != "head":
                rows[-1]["last"] = row["stage"]
                rows[-1]["parameters"] += row["parameters"]
                rows[-1]["trained"] += row["trained"]
            else:
                names = {"first": row["stage"], "last": row["stage"], "rate": rate}
                rows.append(names | {"parameters": row["parameters"], "trained": row["trained"]})
        grouped.append({**phase, "rows": rows})
    return grouped


def _log(path: Path, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of the plan that was kept."""
    label = next((entry["label"] for entry in report.get("frontier", []) if entry["chosen"]), None)
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a process that was killed while it wrote
            continue
    # A resumed run logs the steps after its checkpoint again; the later line counts.
    kept = [line for line in found if line.get("plan") == label]
    return sorted({line["step"]: line for line in kept}.values(), key=lambda line: line["step"])
