"""bitfit: of the backbone only the biases train, a thousandth of its parameters (Ben Zaken et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.contracts import Facts, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, solved_head, trained
from tunesmith.plans import Plan
from tunesmith.settings import Strict


class BitFit:
    """Biases and the head."""

    name = "bitfit"

    class Settings(Strict):
        """BitFit has no settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        choices = choose(facts, passes=2, rate=10)
        rates = {stage.name: choices.learning_rate for stage in stages}
        reasons = ["The biases of every stage and the whole head train; biases bear ten times the rate of all weights."]
        phases = [solved_head(stages), trained("biases", stages, rates, choices.epochs, facts, part="biases")]
        return assemble(self.name, phases, choices, facts, reasons, standard_head=False)
