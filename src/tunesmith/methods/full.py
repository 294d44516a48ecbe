"""full: every weight trains, from a head that is solved for first.

AdamW (Loshchilov & Hutter 2019) with linear warm-up and a linear way down to zero (Devlin et al. 2019, appendix A.2),
no decay on norms and biases, and, on request, rates that fall from the head down (Howard & Ruder 2018, section 3.2).
The head starts from a linear probe rather than from noise, so that the first steps do not distort the features
(Kumar et al. 2022, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, solved_head, trained
from tunesmith.plans import Plan
from tunesmith.settings import Strict


class Full:
    """All weights, head from the probe."""

    name = "full"
    loading = Loading()

    class Settings(Strict):
        """Settings of `full`."""

        layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
        """Each stage's rate is this share of the rate of the stage above it; 1 gives all the same."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        choices, decay = choose(facts), self.settings.layer_decay
        top = len(stages) - 1
        rates = {stage.name: choices.learning_rate * decay ** (top - depth) for depth, stage in enumerate(stages)}
        start = "The head starts from the solution on frozen features; then every stage trains."
        reasons = [start if facts.head == "linear" else "Every stage trains from the first step."]
        if decay < 1:
            reasons.append(f"Each stage's rate is {decay:g} of the one above, as method.layer_decay says.")
        phases = [*solved_head(stages, facts), trained("all weights", stages, rates, choices.epochs, facts)]
        return assemble(self.name, phases, choices, facts, reasons)
