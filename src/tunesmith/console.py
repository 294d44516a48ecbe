"""What the command line prints: progress while something runs, tables at the end. Reads typed events and plain results."""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from tunesmith import run as runs
from tunesmith.report import verdict
from tunesmith.report.format import (
    SHARES,
    bounds,
    count,
    duration,
    metric_name,
    number,
    rows,
    signed,
    size,
    trained,
    value,
)
from tunesmith.run import write_json_lines

LEARNED_SHOWN = 2
"""Rows of a plan that are shown in what is learned of them."""
_console = Console(highlight=False)
_progress_console = Console(stderr=True, highlight=False)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[Any], None]]:
    """A listener for api's functions that prints sentences and moves a bar, on standard error; a silent one if `quiet`."""
    if quiet:
        yield lambda _: None
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
        console=_progress_console,
        transient=True,
        disable=not _progress_console.is_terminal,
    )
    with bar:
        yield _Listener(bar)


class _Listener:
    """Prints what it is told."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task: TaskID | None = None
        self.metric = ""

    def __call__(self, event: Any) -> None:
        # Events are told apart by their names: this file knows no torch, and the classes come with it.
        say = getattr(self, f"_on_{type(event).__name__}", None)
        if isinstance(event, str):
            self.bar.console.print(event, soft_wrap=True, markup=False)
        elif say is not None:
            say(event)

    def _on_ChosenBy(self, event: Any) -> None:
        self.metric = event.metric

    def _validation(self, amount: float) -> str:
        return f"{value(self.metric, amount)} {metric_name(self.metric)} on validation"

    def _on_HeadSolved(self, event: Any) -> None:
        scores = ", ".join(f"{name} {score:.3f}" for name, score in event.tried.items())
        tried = f" (validation by pooling: {scores})" if scores else ""
        what = "Head solved on frozen features" if event.head else "Measured as it is, before training,"
        self(f"{what} in {duration(event.seconds)}{tried}.")

    def _on_CacheFilled(self, event: Any) -> None:
        self(
            f"Kept what enters {event.stage}: {size(event.bytes)}, computed once in {duration(event.seconds)}; "
            "the frozen stages before it cost nothing from here on."
        )

    def _on_Trying(self, event: Any) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None
        self(f"Trying {event.label}.")

    def _on_Tried(self, event: Any) -> None:
        stopped = f"; stopped, as {event.stopped}" if event.stopped else ""
        self(f"{event.label}: {self._validation(event.metric['value'])} in {duration(event.seconds)}{stopped}.")

    def _on_LeftOut(self, event: Any) -> None:
        self(f"{event.label} was not tried: {event.left_out}.")

    def _on_StepDone(self, event: Any) -> None:
        if self.task is None:
            self.task = self.bar.add_task("Training", total=event.steps, loss=event.loss)
        self.bar.update(self.task, completed=event.step, total=event.steps, loss=event.loss)

    def _on_StartMeasured(self, event: Any) -> None:
        self(f"Before the first step: validation loss {event.validation_loss:.3f}, {self._validation(event.metric)}")

    def _on_EpochDone(self, event: Any) -> None:
        best = " (best so far)" if event.best else ""
        self(
            f"Epoch {event.epoch}: training loss {event.train_loss:.3f}, validation loss {event.validation_loss:.3f}, "
            f"{self._validation(event.metric)}{best}"
        )

    def _on_MicroBatchHalved(self, event: Any) -> None:
        self(f"Memory ran out: going on with {event.tokens:,} tokens a forward pass and the same batch.")

    def _on_Trained(self, event: Any) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
            self.task = None  # another training may follow, of the baseline from scratch
        early = ", stopped early" if event.stopped_early else ""
        self(f"Trained in {duration(event.seconds)}{early}.")


def show_run(folder: Path, as_json: bool) -> None:
    """The verdict, and where everything is."""
    place = runs.Run(folder)
    report = runs.read_json(place.report)
    if as_json:
        print(json.dumps({"run": str(folder), **report}, ensure_ascii=False))
        return
    _console.print()
    for sentence in verdict.verdict(report):
        _console.print(sentence, soft_wrap=True, markup=False)
    _console.print(f"\nModel:  {place.model}\nReport: {place.page.resolve()}", soft_wrap=True, markup=False)


def show_plan(found: dict[str, Any]) -> None:
    """One table a phase, then the reasons; where there is a choice, a table of what may be tried; an adaptation first."""
    if "adapt" in found:
        _console.print("First the adaptation to the field:")
        show_plan(found["adapt"])
        _console.print("\nThen the task:")
    _show_learned(found.get("learned", []))
    if "candidates" in found:
        _show_candidates(found)
        return
    for phase in found["phases"]:
        epochs = f"{phase['epochs']} epoch" + ("" if phase["epochs"] == 1 else "s")
        solves = any(row["stage"] == "head" and row["parameters"] for row in phase["rows"])
        head = ("solve for the head" if solves else "measured as it is") if phase["head"] == "solve" else epochs
        table = Table(title=f"Phase {phase['name']!r}: {head}", title_justify="left")
        table.add_column("Stage")
        table.add_column("Parameters", justify="right")
        table.add_column("Learning rate", justify="right")
        table.add_column("Weight decay", justify="right")
        for row in (one for one in phase["rows"] if one["parameters"]):
            rate = row["learning_rate"]
            solved = row["stage"] == "head" and phase["head"] == "solve"
            table.add_row(
                row["stage"],
                trained(row["trained"], row["parameters"]),
                "solved" if solved else "frozen" if rate is None else f"{rate:.3g}",
                "" if rate is None else f"{row['weight_decay']:g}",
            )
        _console.print(table)
    batch = found["batch"]
    _console.print(
        f"Precision {found['precision']}; batches of {batch['rows']} rows, forward passes of at most "
        f"{batch['micro_batch_tokens']:,} tokens; {found['parameters_trainable']:,} of {found['parameters_total']:,} "
        f"parameters train.\nBy a short trial, training takes {duration(found['predicted']['seconds'])} unless it stops "
        f"early, and {size(found['predicted']['peak_memory_bytes'])} of memory.",
        soft_wrap=True,
    )
    for reason in found["reasons"]:
        _console.print(f"- {reason}", soft_wrap=True, markup=False)
    (share,) = found["expected"].values()
    if share < 1:
        _console.print(f"- In the time of the budget each epoch takes {100 * share:.0f} % of the rows.", soft_wrap=True)


def _show_learned(rows: Sequence[Mapping[str, Any]]) -> None:
    """Of a few rows what is only read and what is learned, each stretch on lines of its own."""
    for row in rows[:LEARNED_SHOWN]:
        _console.print(f"Row {row['id']}:", markup=False)
        for told, tokens in itertools.groupby(row["tokens"], key=lambda token: token[1]):
            text = "".join(text for text, _ in tokens)
            _console.print(f"  {'learned' if told else 'read   '}  {text!r}", soft_wrap=True, markup=False)


def _show_candidates(found: dict[str, Any]) -> None:
    table = Table(title="What may be tried", title_justify="left")
    for name in ("Plan", "Trains", "Epochs", "Time", "Memory", "Expected"):
        table.add_column(name, justify="left" if name == "Plan" else "right")
    for plan in found["candidates"]:
        predicted = plan["predicted"]
        table.add_row(
            _named(plan),
            count(plan["parameters_trainable"]),
            str(sum(phase["epochs"] for phase in plan["phases"]) or ""),
            duration(predicted["seconds"]),
            size(predicted["peak_memory_bytes"]),
            "over budget" if _named(plan) in found["exceeding"] else _expected(found["expected"].get(_named(plan))),
        )
    _console.print(table)
    last = found["candidates"][-1]
    for reason in found["reasons"]:
        _console.print(f"- {reason}", soft_wrap=True, markup=False)
    _console.print(f"Of {_named(last)}:", soft_wrap=True, markup=False)
    for reason in last["reasons"]:
        _console.print(f"- {reason}", soft_wrap=True, markup=False)


def _expected(share: float | None) -> str:
    """What becomes of a plan in the time that there is."""
    if share is None:
        return "no time"
    return "tried" if share == 1 else f"{100 * share:.0f} % of the rows"


def _named(plan: dict[str, Any]) -> str:
    return ", ".join(part for part in (plan["method"], plan["variant"]) if part)


def show_audit(found: dict[str, Any]) -> None:
    """Splits, classes, repeats, rejected rows, warnings."""
    table = Table(title="Rows", title_justify="left")
    table.add_column("")
    for name in found["rows"]:
        table.add_column(name, justify="right")
    table.add_row("rows", *(f"{count:,}" for count in found["rows"].values()))
    classes = found.get("classes", {})
    for label in list(next(iter(classes.values()), {}))[:30]:
        table.add_row(escape(label), *(f"{counts[label]:,}" for counts in classes.values()))
    _console.print(table)
    columns = found["columns"]
    _console.print(
        f"Input: {', '.join(columns['inputs'])}. Target: {', '.join(columns['targets']) or 'none'}. "
        f"Not used: {', '.join(columns['ignored']) or 'none'}.",
        soft_wrap=True,
        markup=False,
    )
    for guess in columns["guesses"]:
        _console.print(f"Guessed: {guess}", soft_wrap=True, markup=False)
    for sentence in [*verdict.sizes(found), *verdict.contents(found)]:
        _console.print(sentence, soft_wrap=True, markup=False)
    repeats = found["duplicates"]
    _console.print(f"Repeats: {repeats['exact']:,} exact, {repeats['near']:,} nearly the same.")
    for row in found["rejected_rows"][:10]:
        _console.print(f"Set aside: {row['split']}, line {row['line']}: {row['reason']}", soft_wrap=True, markup=False)
    if len(found["rejected_rows"]) > 10:
        _console.print(f"… and {len(found['rejected_rows']) - 10:,} more rows set aside (--json lists them all).")
    for warning in found["warnings"]:
        _console.print(f"Note: {warning}", soft_wrap=True, markup=False)
    if not found["warnings"]:
        _console.print("Nothing to worry about was found.")


def show_predictions(found: Iterable[dict[str, Any]]) -> None:
    """One line a row: id, prediction, and the calibrated score of what was predicted, or how similar it is."""
    for row in found:
        prediction = row["prediction"]
        if prediction is None:
            print(f"{row['id']}\t(none: {row['reason']})")
            continue
        if "same" in row:
            nearest = f"{'' if row['same'] else 'unknown, nearest '}{prediction} {row['similarity']:.3f}"
            print(f"{row['id']}\t{nearest}{' (no threshold could be set)' if row['same'] is None else ''}")
            continue
        scores = {key.removeprefix("score_"): score for key, score in row.items() if key.startswith("score_")}
        named = Counter(prediction if isinstance(prediction, list) else [prediction])
        shown = [
            f"{name} {scores[name]:.3f}" if name in scores else f"{times} × {name}" if times > 1 else number(name)
            for name, times in named.items()
        ]
        alike = f" {row['similarity']:.3f}" if "similarity" in row else ""
        print(f"{row['id']}\t{', '.join(shown) or '(none)'}{alike}")


def show_metrics(found: dict[str, Any]) -> None:
    """Every metric with its interval."""
    measured = f"{found['rows_measured']:,} of " if "rows_measured" in found else ""
    table = Table(title=f"{escape(found['data'])}: {measured}{found['rows']:,} rows", title_justify="left")
    for name in ("Metric", "Value", "Interval"):
        table.add_column(name, justify="left" if name == "Metric" else "right")
    for name, one in found["metrics"]["test"].items():
        table.add_row(metric_name(name), value(name, one["value"]), bounds(name, one["low"], one["high"]))
    _console.print(table)
    if reasons := found["rejected"]:
        aside, reason = sum(reasons.values()), next(iter(reasons))
        _console.print(
            f"{rows(aside)} could not be used and {'was' if aside == 1 else 'were'} set aside; the commonest reason is: "
            f"{reason} ({reasons[reason]:,}).",
            soft_wrap=True,
            markup=False,
        )
    for note in (
        *found.get("verification", {}).get("notes", ()),
        *([found["unknown"]["note"]] if "unknown" in found else []),
    ):
        _console.print(f"Note: {note}", soft_wrap=True, markup=False)
    if "truncation" in found:
        for sentence in verdict.lost(found["data"], found["truncation"]):
            _console.print(sentence, soft_wrap=True, markup=False)


def show_comparison(found: dict[str, Any]) -> None:
    """One line a run, best first."""
    metric = found["metric"]
    table = Table(title=f"By {metric_name(metric)}, best first", title_justify="left")
    for name in ("Run", "Method", metric_name(metric), "Interval", "Difference from best", "Time", "Trained"):
        table.add_column(name, justify="left" if name in ("Run", "Method") else "right")
    for place, entry in enumerate(found["runs"]):
        gap = entry.get("difference")
        table.add_row(
            escape(entry["run"]),
            entry["method"],
            value(metric, entry["value"]),
            bounds(metric, entry["low"], entry["high"]),
            "" if place == 0 else "other rows" if not gap else _signed_gap(metric, gap),
            duration(entry["seconds"]),
            f"{entry['parameters_trainable']:,}",
        )
    _console.print(table)
    unit = " in points" if metric in SHARES else ""
    _console.print(
        f"Differences are{unit}, by row, with {100 * found['confidence']:g} % intervals; runs that were tested on other "
        "rows than the best one have none.",
        soft_wrap=True,
    )


def _signed_gap(metric: str, gap: dict[str, float]) -> str:
    return f"{signed(metric, gap['value'])} ({signed(metric, gap['low'])} to {signed(metric, gap['high'])})"


def write_lines(rows: list[dict[str, Any]], path: Path) -> None:
    """Predictions as JSON lines."""
    write_json_lines(path, rows)
    print(f"{len(rows):,} predictions: {path}", file=sys.stderr)
