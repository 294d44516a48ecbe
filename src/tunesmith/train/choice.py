"""Which plan of a frontier is tried next, and which one wins. Pure functions of predictions and results."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.plans import Plan, cut_of
from tunesmith.train.events import LeftOut, Tried
from tunesmith.train.trial import Predicted

SLACK = 1.3
"""Times what is predicted that a plan may take: its first hundreds of steps are slower, until memory is laid out, and before
them its rates are tested."""
LEAST_SHARE = 0.3
"""A plan that would get fewer of its steps than this is not worth its time: a cheaper one gets all of its own."""


LEAST = 0.01
"""Share of an epoch that a plan gets at least, whatever the budget."""
UNLIMITED = 2.0
"""Times what the plan of which most trains takes alone, or the preferred one where that is longer; where no time is set."""


@dataclass(frozen=True)
class Option:
    """A plan with what it is predicted to take."""

    plan: Plan
    described: Mapping[str, Any]
    """As plan.json holds it."""
    predicted: Predicted

    @property
    def label(self) -> str:
        return self.plan.label

    @property
    def trained(self) -> int:
        """Parameters."""
        return int(self.described["parameters_trainable"])

    @property
    def seconds(self) -> float:
        """Beside the features, which all plans share."""
        return self.predicted.stepping + self.predicted.validating

    def share(self, left: float) -> float:
        """The share of its steps for which `left` seconds suffice, at most 1."""
        return min(1.0, (left / SLACK - self.predicted.validating) / max(self.predicted.stepping, 1e-9))

    def left_out(self, why: str) -> LeftOut:
        """The entry of a plan that is not tried."""
        return LeftOut(self.label, self.plan.method, self.trained, self.seconds, why)


@dataclass(frozen=True)
class Limits:
    """What may be spent; None for what is not limited."""

    seconds: float | None = None
    """Of training, all plans together."""
    memory_bytes: float | None = None
    parameters: int | None = None
    retention: float | None = None
    """The least share of the reference score that is to be kept."""
    judging: float = 0.0
    """Seconds that judging one plan takes once it is trained."""
    sign: int = 1
    """-1 where less of the metric that plans are judged by is better."""
    preferred: str | None = None
    """The label of the plan that is kept unless another is better beyond its interval."""

    def exceeded(self, option: Option) -> str | None:
        """Why `option` is not within the limits, or None."""
        if self.memory_bytes is not None and option.predicted.peak_memory_bytes > self.memory_bytes:
            return f"it is predicted to need {option.predicted.peak_memory_bytes / 1e9:.1f} GB"
        if self.parameters is not None and option.trained > self.parameters:
            return f"it trains {option.trained:,} parameters"
        return None


def following(
    options: Sequence[Option], done: Collection[str], left: float, preferred: str | None = None
) -> Option | None:
    """What to try next in the `left` seconds, or None at the end.

    Time is kept for the plan that is preferred, or else for the one of which most trains among those that it suffices for, as
    more is mostly better; what then remains goes to the others, cheapest first. The first option is always tried: it comes
    with the features.

    Args:
        done: labels of plans that were tried, or that may not be.
    """
    waiting = [option for option in options if option.label not in done]
    if not waiting or waiting[0] is options[0]:
        return waiting[0] if waiting else None
    within = [option for option in waiting if option.share(left) >= LEAST_SHARE]
    fullest = max(within, key=lambda option: (option.label == preferred, option.trained, option.seconds), default=None)
    for option in sorted(within, key=lambda option: option.seconds):
        if fullest is not None and SLACK * (option.seconds + fullest.seconds) <= left:
            return option
    return fullest


def time_of(options: Sequence[Option], limits: Limits) -> float:
    """Seconds for training, all plans together; a single plan takes what it needs where nothing is set."""
    if limits.seconds is not None:
        return limits.seconds - limits.judging
    if len(options) == 1:
        return math.inf
    fullest = max(options, key=lambda option: option.trained)
    kept_for = [fullest, *(option for option in options if option.label == limits.preferred)]
    return UNLIMITED * max(option.predicted.seconds for option in kept_for)


def expected(options: Sequence[Option], limits: Limits) -> dict[str, float]:
    """The share of its rows in each epoch that each option gets where everything takes as long as is predicted.

    Options that are not tried are absent; what curves will show nobody knows yet.
    """
    left = time_of(options, limits) - options[0].predicted.solving
    if len(options) == 1:
        return {options[0].label: max(LEAST, options[0].share(left))}
    found: dict[str, float] = {}
    out = {option.label for option in options if limits.exceeded(option)}
    while (option := following(options, {*found, *out}, left, limits.preferred)) is not None:
        share = 1.0 if option is options[0] else option.share(left)
        found[option.label] = share
        left -= option.predicted.validating + share * option.predicted.stepping + limits.judging
    return found


def winner(tried: Iterable[Tried], limits: Limits) -> Tried | None:
    """The best by validation, the cheapest of equals; who keeps too little of the reference is out.

    Where nobody keeps enough, the one that keeps most. A preferred plan gives way only to what is better beyond its interval.
    """
    entries = list(tried)
    if entries:
        entries = keeping(entries, limits) or [max(entries, key=lambda entry: entry.retention or 0.0)]
    for entry in entries:
        reach = entry.metric["high"] if limits.sign > 0 else -entry.metric["low"]
        if entry.label == limits.preferred and all(limits.sign * one.metric["value"] <= reach for one in entries):
            return entry
    return max(entries, key=lambda entry: (limits.sign * entry.metric["value"], -entry.predicted_seconds), default=None)


def keeping(tried: Iterable[Tried], limits: Limits) -> list[Tried]:
    """Those that keep enough of the reference."""
    least = limits.retention
    return [entry for entry in tried if least is None or entry.retention is None or entry.retention >= least]


def cuts(waiting: Sequence[Option]) -> tuple[str, ...]:
    """The stages at which these plans enter the network, deepest first, as that spares the solving pass most."""
    found: dict[str, int] = {}
    for option in waiting:
        for phase in option.plan.phases:
            cut = cut_of(phase) if option.plan.cache else None
            if cut is not None:
                found[cut] = option.plan.stages.index(cut)
    return tuple(sorted(found, key=lambda cut: -found[cut]))


def slug(label: str) -> str:
    """A label as a folder's name."""
    return "".join(character if character.isalnum() else "-" for character in label)
