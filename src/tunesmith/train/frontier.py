"""The frontier: several plans on the same rows, cheapest first, within what may be spent; the best by validation is kept.

What they share is computed once: features, activations, the timed trial's forward pass. Only one network trains and is in
memory; the winner comes back from its checkpoint. A killed frontier goes on where it was: frontier.json knows what was tried.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import run as runs
from tunesmith.errors import SettingsError
from tunesmith.plans import Plan
from tunesmith.train import choice, memory, processes
from tunesmith.train.choice import LEAST, Limits, Option, slug, winner
from tunesmith.train.course import Job
from tunesmith.train.events import Event, LeftOut, RangeTest, Trained, Tried, Trying
from tunesmith.train.loop import train
from tunesmith.train.range_test import range_test, scaled

GRACE = 0.03
"""Share of the time by which a plan may overrun, so that it ends at the small rates that its schedule ends with."""
HALF_WIDTH = 1.96
"""Standard errors from the middle of a 95 % interval to its end."""


@dataclass(frozen=True)
class Judged:
    """A trained network on validation."""

    metric: Mapping[str, float]
    """value, low, high."""
    retention: float | None = None
    """The share of the reference score that is kept."""


@dataclass(frozen=True)
class Means:
    """What a frontier works with."""

    job: Callable[[Plan], Job]
    """The job of a plan, with a fresh copy of the pre-trained network."""
    judge: Callable[[Trained], Judged]
    test_rates: bool
    """Whether the rates of a plan are tested just before it is tried; those of a plan that is tried alone were before."""
    folder: Path
    """For what is needed to go on after a kill; each plan's checkpoints lie in a folder of its own in it."""


def explore(options: Sequence[Option], limits: Limits, means: Means) -> Iterator[Event]:
    """Try `options` as far as `limits` allow; the last event is the best one's Trained.

    Raises:
        SettingsError: none of them is within the limits, or there is no time for any that is.
    """
    notes = Notes.read(means.folder)
    total = choice.time_of(options, limits)
    until = time.perf_counter() + total - notes.seconds
    out = {option.label: option.left_out(why) for option in options if (why := limits.exceeded(option))}
    yield from out.values()
    by_label = {option.label: option for option in options}
    last: Trained | None = None
    while True:
        left = until - time.perf_counter()
        found = by_label.get(notes.trying or "") or choice.following(
            options, {*notes.tried, *out}, left, limits.preferred
        )
        label = processes.agree(found.label if found else None)
        if label is None:
            break
        option = by_label[label]
        notes.begin(option, processes.agree(1.0 if option is options[0] else option.share(left)), total - left)
        yield Trying(label)
        started = time.perf_counter()
        waiting = [one for one in options if one is not option and one.label not in {*notes.tried, *out}]
        job = dataclasses.replace(
            _decided(means, option.plan, notes),
            watch=Watch(
                # Who is preferred need not reach the others on so few rows.
                [] if label == limits.preferred else choice.keeping(notes.tried.values(), limits),
                math.inf if limits.seconds is None else until + GRACE * total,
                limits.sign,
            ),
            cuts=choice.cuts(waiting),
        )
        memory.restart_peak()
        for event in train(job):
            if isinstance(event, Trained):
                last = event
            else:
                yield event
        assert last is not None
        judged = processes.agree(means.judge(last))  # rounding may differ between processes
        # What a killed process did of it is in its checkpoint.
        entry = _entry(option, last, judged, max(time.perf_counter() - started, last.seconds))
        beaten = _beaten(notes.tried, entry, limits)
        notes.end(entry, total - (until - time.perf_counter()))
        if beaten and processes.state().is_main_process:
            shutil.rmtree(means.folder / slug(beaten.label), ignore_errors=True)
        yield entry
    late = {one.label: one.left_out("there was no time left for it") for one in options if one.label not in notes.tried}
    yield from (one for label, one in late.items() if label not in out)
    yield _final(options, notes, late | out, limits, means, last)


def alone(option: Option, limits: Limits, means: Means) -> Iterator[Event]:
    """Carry out a single plan, shortened where time does not suffice for all of it."""
    if limits.seconds is None:
        yield from train(means.job(option.plan))
        return
    notes = Notes.read(means.folder)
    until = time.perf_counter() + limits.seconds - notes.seconds
    notes.begin(option, processes.agree(option.share(limits.seconds - option.predicted.solving)), notes.seconds)
    yield from train(
        dataclasses.replace(_decided(means, option.plan, notes), watch=Watch([], until + GRACE * limits.seconds))
    )


@dataclass
class Notes:
    """What a killed frontier needs to go on."""

    path: Path
    seconds: float = 0.0
    """Spent when the plan that is being tried was begun."""
    tried: dict[str, Tried] = field(default_factory=dict)
    trying: str | None = None
    shares: dict[str, float] = field(default_factory=dict)
    """Of an epoch, by plan."""
    tests: dict[str, RangeTest | None] = field(default_factory=dict)
    """Of the learning rate, by plan; None where the plan was too short for one, or wants none."""

    @classmethod
    def read(cls, folder: Path) -> Notes:
        path = folder / "frontier.json"
        if not path.exists():
            return cls(path)
        found = runs.read_json(path)
        tried = {one["label"]: Tried(**one) for one in found["tried"]}
        tests = {label: RangeTest(**test) if test else None for label, test in found["tests"].items()}
        return cls(path, found["seconds"], tried, found["trying"], found["shares"], tests)

    def begin(self, option: Option, share: float, seconds: float) -> None:
        """`option` is tried from here on; one that was begun before goes on with the share that it had."""
        self.shares.setdefault(option.label, max(share, LEAST))
        self.trying, self.seconds = option.label, seconds
        self._write()

    def test(self, label: str, found: RangeTest | None) -> None:
        """What the range test of a plan said."""
        self.tests[label] = found
        self._write()

    def end(self, entry: Tried, seconds: float) -> None:
        """What was being tried came to `entry`."""
        self.tried[entry.label] = entry
        self.trying, self.seconds = None, seconds
        self._write()

    def _write(self) -> None:
        if processes.state().is_main_process:
            kept: dict[str, Any] = {"seconds": self.seconds, "trying": self.trying, "shares": self.shares}
            kept["tests"] = {label: asdict(test) if test else None for label, test in self.tests.items()}
            runs.write_json(self.path, kept | {"tried": [asdict(one) for one in self.tried.values()]})


class Watch:
    """Ends a training when time is over, or when its curve cannot reach the best."""

    def __init__(self, tried: Sequence[Tried], until: float, sign: int = 1) -> None:
        """`tried`: those that may still win; one without epochs is the probe, from whose head training starts.

        Args:
            sign: -1 where less of the metric is better.
        """
        self.until, self.sign = until, sign
        self.start = max((sign * one.metric["value"] for one in tried if not one.epochs), default=None)
        best = max((one.metric for one in tried), key=lambda metric: sign * metric["value"], default=None)
        # One standard error less: a curve is a measurement too.
        self.least = sign * best["value"] - (best["high"] - best["low"]) / (2 * HALF_WIDTH) if best else -math.inf

    def after_step(self) -> str | None:
        return "time was over" if time.perf_counter() > self.until else None

    def after_epoch(self, curve: Sequence[Mapping[str, Any]], left: int) -> str | None:
        """Learning curves bend down, so that epochs to come gain no more, on average, than those so far (Domhan et al. 2015).

        The average is less noisy than the last epoch's gain. That holds once the first third, in which the rate climbs, is
        over. A curve that fell, below the probe from whose head training starts or further, climbs from where it fell to.
        """
        if 3 * len(curve) < len(curve) + left:
            return None
        reached = [self.sign * entry["metric"] for entry in curve]
        known = reached if self.start is None or reached[0] < self.start else [self.start, *reached]
        if len(known) < 2:
            return None
        since = known[known.index(min(known)) :]
        gain = (max(since) - since[0]) / max(1, len(since) - 1)
        return "it could not reach the best any more" if max(reached) + left * gain < self.least else None


def _decided(means: Means, plan: Plan, notes: Notes) -> Job:
    """The job of `plan`, with the share of each epoch's steps that was decided on, and rates that a test allows."""
    job = means.job(plan)
    job = dataclasses.replace(job, plan=_shortened(job.plan, notes.shares[plan.label]))
    if means.test_rates and plan.label not in notes.tests:
        notes.test(plan.label, processes.agree(range_test(job)))
    return dataclasses.replace(job, plan=scaled(job.plan, notes.tests.get(plan.label)))


def _shortened(plan: Plan, share: float) -> Plan:
    if share == 1:
        return plan
    told = (
        f"Each epoch takes {100 * share:.0f} % of the rows, drawn anew: the time of the budget does not suffice for all of "
        "them."
    )
    return dataclasses.replace(plan, share_of_epoch=share, reasons=(*plan.reasons, told))


def _entry(option: Option, trained: Trained, judged: Judged, seconds: float) -> Tried:
    return Tried(
        label=option.label,
        method=option.plan.method,
        parameters_trainable=option.trained,
        predicted_seconds=option.seconds,
        metric=judged.metric,
        seconds=seconds,
        epochs=trained.epochs,
        peak_memory_bytes=trained.peak_memory_bytes,
        stopped=trained.stopped,
        curve=trained.curve,
        retention=judged.retention,
    )


def _beaten(tried: Mapping[str, Tried], entry: Tried, limits: Limits) -> Tried | None:
    """Who is no longer, or not, the best now that `entry` is there: nobody will need its checkpoints."""
    before = winner(tried.values(), limits)
    return before if winner([*tried.values(), entry], limits) is entry else entry


def _final(
    options: Iterable[Option],
    notes: Notes,
    out: Mapping[str, LeftOut],
    limits: Limits,
    means: Means,
    last: Trained | None,
) -> Trained:
    """The winner, from memory if it came last, otherwise from its checkpoint, with all that was tried."""
    best = winner(notes.tried.values(), limits)
    if best is None:
        told = "; ".join(f"{one.label}: {one.left_out}" for one in out.values())
        raise SettingsError(f"No method is within the budget ({told}).", "Raise it.")
    if last is None or last.plan.label != best.label:
        plan = next(option.plan for option in options if option.label == best.label)
        last = next(event for event in train(_decided(means, plan, notes)) if isinstance(event, Trained))
    known = {label: dataclasses.replace(one, preferred=label == limits.preferred) for label, one in notes.tried.items()}
    entries = tuple(known.get(option.label) or out[option.label] for option in options)
    test = notes.tests.get(best.label)
    return dataclasses.replace(
        last, seconds=best.seconds, peak_memory_bytes=best.peak_memory_bytes, frontier=entries, range_test=test
    )
