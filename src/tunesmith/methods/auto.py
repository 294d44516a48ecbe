"""auto: several methods on the same rows, cheapest first; the best by validation is kept.

From the probe, whose features all others start from, over the last blocks and adapters to all weights: which of them wins
depends on the data far more than on anything that could be known beforehand. What is shared is computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tunesmith import methods
from tunesmith.contracts import Facts, Loading, Method, Stage
from tunesmith.errors import SettingsError
from tunesmith.methods.contrastive import FEW, Contrastive
from tunesmith.plans import Frontier, Plan
from tunesmith.registry import make
from tunesmith.settings import Named, Strict, check, switch


class Auto:
    """A list of methods to try."""

    name = "auto"

    class Settings(Strict):
        """Settings of `auto`."""

        candidates: list[str | dict[str, Any]] | None = None
        """The methods to try, each a name or a mapping with `name` and settings; chosen by the network when it is absent."""

    def __init__(self, settings: Settings) -> None:
        """Raise SettingsError where a candidate is no method, or has settings that are not its own."""
        self.settings = settings
        self.named = [_named(one) for one in settings.candidates or []]
        self.methods = [_method(one) for one in self.named]

    @property
    def loading(self) -> Loading:
        """One network for all: only positions may be kept free."""
        wanted = [one.loading for one in self.methods]
        if any(one.fresh or one.four_bit for one in wanted):
            raise SettingsError(
                "method.candidates names a method that wants the network loaded in a way of its own (scratch, qlora).",
                "Run that method by itself; evaluate.baselines=[scratch] trains from fresh weights for comparison.",
            )
        return Loading(
            reserved=max((one.reserved for one in wanted), default=0), apart=any(one.apart for one in wanted)
        )

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Frontier:
        first = "The cheapest" if facts.head == "kept" else "The probe"
        reasons = [f"{first} is tried first, then the others, as far as time allows; the best on validation is kept."]
        if self.settings.candidates is not None:
            plans = [_plan(one, stages, facts) for one in self.named]
            return Frontier(tuple(plans), tuple(reasons))
        plans = []
        for one in usual(stages, facts):
            try:
                plans.append(_plan(one, stages, facts))
            except SettingsError as error:  # the user named a guard, and not this method, which cannot go with it
                reasons.append(f"{one.name} is not tried: {error.what}")
        preferred = next((plan.label for plan in plans if plan.method == Contrastive.name), None)
        if preferred:
            reasons.append(
                f"As a class has {facts.rows_a_class:.3g} rows on average, validation is too small to say which is best: "
                f"{preferred} is kept unless another is better beyond its interval."
            )
        return Frontier(tuple(plans), tuple(reasons), preferred)


def usual(stages: Sequence[Stage], facts: Facts) -> list[Named]:
    """What is tried where the user names nothing: probe (unless the head is there already), the last block, the last third,
    lora where it fits in, contrastive where rows of a class are few, full."""
    blocks = sum(stage.name.startswith("block ") for stage in stages)
    depths = sorted({1, max(1, round(blocks / 3))})
    found: list[dict[str, Any]] = [] if facts.head == "kept" else [{"name": "probe"}]
    found += [{"name": "partial", "last": depth} for depth in depths if depth < blocks]
    found += [{"name": "lora"}] if facts.linear_blocks else []
    if facts.head == "linear" and facts.rows_a_class is not None and facts.rows_a_class <= FEW:
        found.append({"name": "contrastive"})
    return [Named(**one) for one in [*found, {"name": "full"}]]


def _named(one: str | dict[str, Any]) -> Named:
    named = check(Named, {"name": one} if isinstance(one, str) else one, "method.candidates")
    if named.name == Auto.name:
        raise SettingsError("method.candidates names auto itself.", "Name the methods that it should try.")
    return named


def _method(named: Named) -> Method:
    made: Method = make("method", methods.TABLE, named)
    return made


def _plan(named: Named, stages: Sequence[Stage], facts: Facts) -> Plan:
    plan = _method(named).plan(stages, facts)
    assert isinstance(plan, Plan)
    variant = ", ".join(f"{key} {switch(value)}" for key, value in named.own.items())
    return dataclasses.replace(plan, variant=variant)
