"""partial: the last blocks train, what lies before them stays as it is and is computed once.

Which layers to thaw: Yosinski et al. 2014; Houlsby et al. 2019, section 3.2, measure the last layers of BERT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from tunesmith.contracts import Facts, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, from_top, named, solved_head, trained
from tunesmith.plans import Plan
from tunesmith.settings import Strict


class Partial:
    """The last blocks, or named stages, and the head."""

    name = "partial"

    class Settings(Strict):
        """Settings of `partial`."""

        last: Annotated[int, Field(ge=1)] = 2
        """How many of the last blocks train, with all that comes after them."""
        stages: list[str] | None = None
        """The stages that train, by name, instead of the last ones; `tunesmith plan` lists them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        choices = choose(facts, passes=2)
        wanted = self.settings.stages
        chosen = from_top(stages, self.settings.last) if wanted is None else named(stages, wanted)
        rates = dict.fromkeys(chosen, choices.learning_rate)
        reasons = [f"{', '.join(chosen)} train, as method.{'last' if wanted is None else 'stages'} says."]
        phases = [solved_head(stages), trained("chosen stages", stages, rates, choices.epochs, facts)]
        return assemble(self.name, phases, choices, facts, reasons, standard_head=False)
