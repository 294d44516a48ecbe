"""Contestants side by side: each in a process of its own, seeds in turns, and how far apart two of them are."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

Found = dict[str, Any]
Rows = Sequence[Any]
RESAMPLES = 2000


def options(
    text: str | None, contestants: Sequence[str], *, epochs: int, rate: float, batch: int = 32
) -> argparse.ArgumentParser:
    """What every benchmark of this kind asks for. The Trainer may be given other epochs and another rate than ours."""
    own = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("data", type=Path)
    own.add_argument("--method", type=_method, default="full", help="ours: a name, or {name: partial, last: 3}")
    own.add_argument("--epochs", type=int, default=epochs)
    own.add_argument("--batch", type=int, default=batch)
    own.add_argument("--rate", type=float, default=rate)
    own.add_argument("--trainer-epochs", type=int, help="of the others; absent, as many as ours")
    own.add_argument("--trainer-rate", type=float, help="of the others; absent, the same as ours")
    own.add_argument("--seeds", type=int, default=3)
    own.add_argument("--contestants", nargs="+", default=list(contestants), choices=contestants)
    own.add_argument("--only", choices=contestants, help=argparse.SUPPRESS)
    own.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return own


def _method(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no YAML") from error


def run(given: argparse.Namespace, contest: Callable[[argparse.Namespace, str], Found]) -> dict[str, list[Found]]:
    """What each contestant found with each seed; in the process of one contestant, that is printed and the process ends."""
    if given.only:
        if not ours(given.only):
            given.epochs = given.trainer_epochs or given.epochs
            given.rate = given.trainer_rate or given.rate
        method = given.method if ours(given.only) else ""
        print(json.dumps(contest(given, given.only) | {"method": method, "epochs": given.epochs, "rate": given.rate}))
        raise SystemExit
    found: dict[str, list[Found]] = {name: [] for name in given.contestants}
    for seed in range(given.seeds):
        for name, runs in found.items():
            command = [sys.executable, *sys.argv, "--only", name, "--seed", str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}, seed {seed}:\n{done.stderr}")
            runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
            shown = {key: value for key, value in runs[-1].items() if key != "rows"}
            print(name, seed, shown, file=sys.stderr, flush=True)
    return found


def ours(name: str) -> bool:
    return name.startswith("tunesmith")


def table(found: Mapping[str, list[Found]], columns: Mapping[str, Callable[[list[Found]], str]]) -> None:
    print(f"| contestant | method | epochs | rate | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 4)}")
    for name, runs in found.items():
        given = [f"{runs[0][key]}" for key in ("method", "epochs")]
        cells = [name, *given, f"{runs[0]['rate']:g}", *(column(runs) for column in columns.values())]
        print(f"| {' | '.join(cells)} |")


def mean(key: str, form: str = "{:.0f} s", scale: float = 1) -> Callable[[list[Found]], str]:
    return lambda runs: form.format(scale * statistics.mean(run[key] for run in runs))


def most(key: str, form: str, scale: float = 1) -> Callable[[list[Found]], str]:
    return lambda runs: form.format(scale * max(run[key] for run in runs))


def each(key: str, form: str = "{:.1f}", scale: float = 1) -> Callable[[list[Found]], str]:
    return lambda runs: ", ".join(form.format(scale * run[key]) for run in runs)


def apart(
    ours: Sequence[Rows], theirs: Sequence[Rows], figure: Callable[[Any], float], truth: int
) -> tuple[float, float, float]:
    """The difference of two contestants' mean figures over seeds, and the 95 % interval of it by test row: every resample
    draws the same rows for both contestants and for all seeds.

    Args:
        ours: by seed, (test rows, numbers).
        truth: the column that says what is true of a row, by which rows of all runs must agree.
    """
    own, other = ([np.asarray(rows, dtype=float) for rows in runs] for runs in (ours, theirs))
    if any(not np.array_equal(rows[:, truth], own[0][:, truth]) for rows in (*own, *other)):
        raise SystemExit("The contestants' rows are not the same, or not in the same order.")

    def gain(places: Any) -> float:
        return statistics.mean(figure(rows[places]) for rows in own) - statistics.mean(
            figure(rows[places]) for rows in other
        )

    drawn, count = np.random.default_rng(0), len(own[0])
    low, high = np.percentile([gain(drawn.integers(count, size=count)) for _ in range(RESAMPLES)], [2.5, 97.5])
    return gain(np.arange(count)), float(low), float(high)


def told(
    found: Mapping[str, list[Found]],
    figure: Callable[[Any], float],
    *,
    truth: int,
    form: str = "{:+.1f}",
    scale: float = 100,
    less: bool = False,
) -> None:
    """How far the first contestant is from each other one, and which share of its time it took."""
    first, *others = found
    for name in others:
        own, other = ([run["rows"] for run in found[one]] for one in (first, name))
        gain, low, high = (form.format(scale * value) for value in apart(own, other, figure, truth))
        share = {
            key: statistics.mean(run[key] for run in found[first]) / statistics.mean(run[key] for run in found[name])
            for key in ("train", "whole")
        }
        print(
            f"\n{first} against {name}: {gain} ({low} to {high}{', less is better' if less else ''}), "
            f"{share['train']:.2f} of its training time, {share['whole']:.2f} of the whole."
        )
