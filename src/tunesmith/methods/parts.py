"""bitfit and norm-only: of the backbone only the biases, or only the normalisation layers, train.

bitfit: Ben Zaken et al. 2022, section 3: a thousandth of the parameters. norm-only: Frankle et al. 2021 show how much
scales and biases of normalisation layers can express; Qi et al. 2022 (LN-tuning) use them for fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.errors import SettingsError
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, solved_head, trained
from tunesmith.plans import Part, Plan
from tunesmith.settings import Strict


class _OnePart:
    """One part of every stage, and the whole head; subclasses say which."""

    name: ClassVar[str]
    part: ClassVar[Part]
    what: ClassVar[str]
    loading = Loading()

    class Settings(Strict):
        """No settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        """Raise SettingsError where the network has no such part, as T5 has no biases."""
        if not any(stage.chosen(self.part) for stage in stages):
            raise SettingsError(
                f"{self.name} trains {self.part}, and this network has none.", "Use lora, partial or full."
            )
        choices = choose(facts, passes=2, rate=10)
        rates = {stage.name: choices.learning_rate for stage in stages}
        reasons = [
            f"{self.what} and the whole head train; these few parameters bear ten times the rate of all weights."
        ]
        phases = [*solved_head(stages, facts), trained(self.part, stages, rates, choices.epochs, facts, part=self.part)]
        return assemble(self.name, phases, choices, facts, reasons, standard_head=False)


class BitFit(_OnePart):
    """Biases and the head."""

    name = "bitfit"
    part = "biases"
    what = "The biases of every stage"


class NormOnly(_OnePart):
    """Normalisation layers and the head."""

    name = "norm-only"
    part = "norms"
    what = "Scales and biases of the normalisation layers"
