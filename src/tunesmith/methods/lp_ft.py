"""lp-ft: first the best linear probe, then all weights from there (Kumar et al. 2022, section 3).

A head that fits the features before they move distorts them less, which pays off on data unlike the training rows:
10 points there and 1 inside the distribution, in the paper's table 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, head_first, trained
from tunesmith.plans import Plan
from tunesmith.settings import Strict


class LpFt:
    """The probe to its end, then full fine-tuning at a smaller rate."""

    name = "lp-ft"
    loading = Loading(apart=True)

    class Settings(Strict):
        """lp-ft has no settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        choices = choose(facts, rate=0.5)
        rates = {stage.name: choices.learning_rate for stage in stages}
        reasons = [
            "The head starts as the probe that is best on validation; then every stage trains, at half the rate of full, "
            "as the head is no longer what has to move."
        ]
        if facts.head == "none":
            reasons = ["There is no head to find first: every stage trains, at half the rate of full."]
        phases = [
            head_first(stages, facts, max(1, choices.epochs // 2), gentle=False),
            trained("all weights", stages, rates, choices.epochs, facts),
        ]
        return assemble(self.name, phases, choices, facts, reasons)
