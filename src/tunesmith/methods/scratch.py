"""scratch: the same network from fresh weights, to see what pre-training is worth.

There is nothing to solve a head on, so that all weights train from the first step, at the rate and for the epochs that random
weights need. He et al. 2019 ("Rethinking ImageNet pre-training", section 3) show that such a comparison is fair only if
training from scratch may take longer.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.errors import SettingsError
from tunesmith.methods.defaults import NEW_RATE, choose
from tunesmith.methods.phases import assemble, trained
from tunesmith.plans import Plan
from tunesmith.settings import Strict

PASSES, MOST = 3, 30
"""Times the epochs of full fine-tuning, and the most before those that convolutions get beside."""


class Scratch:
    """All weights, from fresh ones."""

    name = "scratch"
    loading = Loading(fresh=True)

    class Settings(Strict):
        """Scratch has no settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        wanted = facts.settings
        back = {"l2_sp": wanted.l2_sp, "ewc": wanted.ewc, "distil": wanted.distil, "replay": wanted.replay}
        if held := [f"train.{name}" for name, value in {**back, "wise_ft": wanted.wise_ft}.items() if value]:
            raise SettingsError(
                f"{held[0]} holds on to the pre-trained network, of which method scratch uses nothing.",
                "Leave it away.",
            )
        reasons = ["Every weight is new and trains from the first step; nothing of the pre-trained network is used."]
        choices = choose(facts, passes=PASSES, rate=NEW_RATE, most=MOST, fresh=True)
        rates = {stage.name: choices.learning_rate for stage in stages}
        phase = trained("all weights", stages, rates, choices.epochs, facts, pretrained=False)
        return assemble(self.name, [phase], choices, facts, reasons)
