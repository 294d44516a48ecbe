"""partial: the last blocks train, what lies before them stays as it is and is computed once.

Which layers to thaw: Yosinski et al. 2014; Houlsby et al. 2019, section 3.2, measure the last layers of BERT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.methods.defaults import choose, convolutional
from tunesmith.methods.phases import assemble, from_top, named, solved_head, trained
from tunesmith.plans import Plan
from tunesmith.settings import Strict


class Partial:
    """The last blocks, or named stages, and the head."""

    name = "partial"
    loading = Loading()

    class Settings(Strict):
        """Settings of `partial`."""

        last: Annotated[int, Field(ge=1)] = 2
        """How many of the last blocks train, with all that comes after them."""
        stages: list[str] | None = None
        """The stages that train, by name, instead of the last ones; `tunesmith plan` lists them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        wanted = self.settings.stages
        chosen = from_top(stages, self.settings.last) if wanted is None else named(stages, wanted)
        times = bearable(len([name for name in chosen if name.startswith("block ")]), len(stages), facts)
        choices = choose(facts, passes=2, rate=times)
        rates = dict.fromkeys(chosen, choices.learning_rate)
        reasons = [
            f"{', '.join(chosen)} train, as method.{'last' if wanted is None else 'stages'} says, at "
            f"{by_all(times)} that all weights together bear."
        ]
        phases = [*solved_head(stages, facts), trained("chosen stages", stages, rates, choices.epochs, facts)]
        return assemble(self.name, phases, choices, facts, reasons)


def by_all(times: int) -> str:
    """A rate by that of all weights, in words."""
    return "the rate" if times == 1 else f"{times} times the rate"


def bearable(blocks: int, stages: int, facts: Facts) -> int:
    """Few blocks bear more: 4e-4 was as good as 1e-4 or better on three data sets (docs/benchmarks.md). Convolutions do not:
    all together they bear so much already."""
    if convolutional(facts):
        return 1
    return 4 if 3 * blocks <= stages else 2 if 3 * blocks <= 2 * stages else 1
