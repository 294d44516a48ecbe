"""lp-ft: first the best linear probe, then all weights from there (Kumar et al. 2022, section 3).

A head that fits the features before they move distorts them less, which pays off on data unlike the training rows:
10 points there and 1 inside the distribution, in the paper's table 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.methods.defaults import choose, convolutional
from tunesmith.methods.phases import assemble, head_first, trained
from tunesmith.plans import Plan
from tunesmith.settings import Strict

SHARE, SHARE_OF_CONVOLUTIONS = 0.5, 0.125
"""Of the rate of full. The weights of a head that is solved for to its end are large, and so are the gradients behind it:
what convolutions bear under a gentle one tears at them here (digits, two networks: docs/benchmarks.md)."""


class LpFt:
    """The probe to its end, then full fine-tuning at a smaller rate."""

    name = "lp-ft"
    loading = Loading(apart=True)

    class Settings(Strict):
        """lp-ft has no settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        share = SHARE_OF_CONVOLUTIONS if convolutional(facts) else SHARE
        choices = choose(facts, rate=share)
        rates = {stage.name: choices.learning_rate for stage in stages}
        reasons = [
            f"The head starts as the probe that is best on validation; then every stage trains, at {share:g} of the "
            "rate of full, as the head is no longer what has to move."
        ]
        if facts.head == "none":
            reasons = [f"There is no head to find first: every stage trains, at {share:g} of the rate of full."]
        phases = [
            head_first(stages, facts, max(1, choices.epochs // 2), gentle=False),
            trained("all weights", stages, rates, choices.epochs, facts),
        ]
        return assemble(self.name, phases, choices, facts, reasons)
