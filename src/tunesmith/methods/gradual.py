"""gradual: stages thaw one after the other from the head down, lower ones at smaller rates (ULMFiT).

Howard & Ruder 2018: gradual unfreezing (section 3.3), discriminative rates with the factor 2.6 (section 3.2, equation 2),
slanted triangular rates (section 3.2, equation 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from tunesmith.contracts import UNSOLVED, Facts, Loading, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, place_of, solved_head, trained
from tunesmith.plans import HEAD, Plan, Schedule
from tunesmith.settings import Strict


class Gradual:
    """One more stage a phase."""

    name = "gradual"
    loading = Loading(apart=True)

    class Settings(Strict):
        """Settings of `gradual`."""

        factor: Annotated[float, Field(ge=1)] = 2.6
        """The rate of each stage is that of the stage above it, divided by this."""
        epochs_a_stage: Annotated[int, Field(ge=1)] = 1
        """Epochs after each thawing; the last phase, in which all stages train, takes `train.epochs`."""
        down_to: str | None = None
        """The lowest stage that thaws; all of them when it is absent."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        choices, own = choose(facts), self.settings
        names = [stage.name for stage in stages]
        lowest = 0 if own.down_to is None else place_of(own.down_to, names, "method.down_to")
        rates = {name: choices.learning_rate / own.factor**depth for depth, name in enumerate(reversed(names))}
        # A head that is solved for is at its best before anything thaws, so that the first phase thaws what lies below it.
        first = len(names) - (1 if facts.head in UNSOLVED else 2)
        tops = range(first, lowest - 1, -1) or [len(names) - 1]
        phases = solved_head(stages, facts)
        for top in tops:
            epochs = choices.epochs if top == tops[-1] else own.epochs_a_stage
            thawed = {name: rates[name] for name in names[top:]}
            name = f"from {names[top]} up"
            phases.append(trained(name, stages, thawed, epochs, facts, schedule=Schedule("slanted-triangular")))
        reasons = [
            f"Stages thaw one a phase, from the {HEAD} down; each one's rate is that of the stage above by {own.factor:g}.",
            "In each phase the rate climbs for a tenth of the steps and falls for the rest, as ULMFiT has it.",
            f"{sum(phase.epochs for phase in phases)} epochs in all: {own.epochs_a_stage} in each phase, as "
            f"method.epochs_a_stage says, and {choices.epochs} in the last one.",
        ]
        return assemble(self.name, phases, choices, facts, reasons, standard_head=False)
