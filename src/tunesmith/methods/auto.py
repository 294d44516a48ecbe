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
from tunesmith.plans import Frontier, Plan
from tunesmith.registry import look_up
from tunesmith.settings import Named, Strict, check


class Auto:
    """A list of methods to try."""

    name = "auto"

    class Settings(Strict):
        """Settings of `auto`."""

        candidates: list[str | dict[str, Any]] | None = None
        """The methods to try, each a name or a mapping with `name` and settings; chosen by the network when it is absent."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def loading(self) -> Loading:
        """One network for all: only positions may be kept free."""
        wanted = [_method(_named(one)).loading for one in self.settings.candidates or []]
        if any(one.fresh or one.four_bit for one in wanted):
            raise SettingsError(
                "method.candidates names a method that wants the network loaded in a way of its own (scratch, qlora).",
                "Run that method by itself; evaluate.baselines=[scratch] trains from fresh weights for comparison.",
            )
        return Loading(reserved=max((one.reserved for one in wanted), default=0))

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Frontier:
        listed = usual(stages, facts) if self.settings.candidates is None else self.settings.candidates
        reasons = [
            "The methods are tried on the same rows, cheapest first, as far as time allows; the best on validation is kept."
        ]
        return Frontier(tuple(_plan(_named(one), stages, facts) for one in listed), tuple(reasons))


def usual(stages: Sequence[Stage], facts: Facts) -> list[str | dict[str, Any]]:
    """What is tried where the user names nothing: probe, the last block, the last third, lora where it fits in, full."""
    blocks = sum(stage.name.startswith("block ") for stage in stages)
    depths = sorted({1, max(1, round(blocks / 3))})
    found: list[str | dict[str, Any]] = [{"name": "probe"}]
    found += [{"name": "partial", "last": depth} for depth in depths if depth < blocks]
    found += [{"name": "lora"}] if facts.linear_blocks else []
    return [*found, {"name": "full"}]


def _named(one: str | dict[str, Any]) -> Named:
    named = Named.model_validate({"name": one} if isinstance(one, str) else one)
    if named.name == Auto.name:
        raise SettingsError("method.candidates names auto itself.", "Name the methods that it should try.")
    return named


def _method(named: Named) -> Method:
    found = look_up("method", named.name, methods.TABLE)
    made: Method = found(check(found.Settings, named.own, f"method {named.name!r}"))
    return made


def _plan(named: Named, stages: Sequence[Stage], facts: Facts) -> Plan:
    plan = _method(named).plan(stages, facts)
    assert isinstance(plan, Plan)
    variant = ", ".join(f"{key} {value}" for key, value in named.own.items())
    return dataclasses.replace(plan, variant=variant)
