"""auto: several methods on the same rows, cheapest first; the best by validation is kept.

From the probe, whose features all others start from, over the last blocks and adapters to all weights: which of them wins
depends on the data far more than on anything that could be known beforehand. What is shared is computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tunesmith import methods
from tunesmith.contracts import Facts, Stage
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

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Frontier:
        wanted = self.settings.candidates
        chosen = [
            {"name": one} if isinstance(one, str) else one
            for one in (usual(stages, facts) if wanted is None else wanted)
        ]
        reasons = [
            "The methods are tried on the same rows, cheapest first, as far as time allows; the best on validation is kept."
        ]
        return Frontier(tuple(_plan(one, stages, facts) for one in chosen), tuple(reasons))


def usual(stages: Sequence[Stage], facts: Facts) -> list[dict[str, Any]]:
    """What is tried where the user names nothing: probe, the last block, the last third, lora where it fits in, full."""
    blocks = sum(stage.name.startswith("block ") for stage in stages)
    depths = sorted({1, max(1, round(blocks / 3))})
    found: list[dict[str, Any]] = [{"name": "probe"}]
    found += [{"name": "partial", "last": depth} for depth in depths if depth < blocks]
    found += [{"name": "lora"}] if facts.linear_blocks else []
    return [*found, {"name": "full"}]


def _plan(one: dict[str, Any], stages: Sequence[Stage], facts: Facts) -> Plan:
    named = Named.model_validate(one)
    if named.name == Auto.name:
        raise SettingsError("method.candidates names auto itself.", "Name the methods that it should try.")
    found = look_up("method", named.name, methods.TABLE)
    plan = found(check(found.Settings, named.own, f"method {named.name!r}")).plan(stages, facts)
    assert isinstance(plan, Plan)
    variant = ", ".join(f"{key} {value}" for key, value in named.own.items())
    return dataclasses.replace(plan, variant=variant)
