"""norm-only: of the backbone only scales and biases of its normalisation layers train.

Frankle et al. 2021 show how much these few parameters can express; Qi et al. 2022 (LN-tuning) use them for fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.contracts import Facts, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, solved_head, trained
from tunesmith.plans import Plan
from tunesmith.settings import Strict


class NormOnly:
    """Normalisation layers and the head."""

    name = "norm-only"

    class Settings(Strict):
        """Norm-only has no settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        choices = choose(facts, passes=2, rate=10)
        rates = {stage.name: choices.learning_rate for stage in stages}
        reasons = [
            "Scales and biases of the normalisation layers and the whole head train, at ten times the usual rate."
        ]
        phases = [solved_head(stages), trained("norms", stages, rates, choices.epochs, facts, part="norms")]
        return assemble(self.name, phases, choices, facts, reasons, standard_head=False)
