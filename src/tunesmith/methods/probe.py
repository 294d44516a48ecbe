"""probe: the backbone stays as it is; only a head is found, by solving for it where its last layer is linear.

Features are computed once; the regularisation strength and the pooling are chosen on validation. There are no gradient
epochs then. A head of another kind, as detectors have, trains by gradient on the frozen backbone. Source: linear probes,
Alain & Bengio 2016; the solver is described in models/solver.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tunesmith.contracts import UNSOLVED, Facts, Loading, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, solved_head, trained
from tunesmith.plans import HEAD, Plan
from tunesmith.settings import Strict


class Probe:
    """Frozen backbone, new head."""

    name = "probe"
    loading = Loading(apart=True)

    class Settings(Strict):
        """The probe has no settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        choices = choose(facts)
        if facts.head in UNSOLVED:
            reasons = ["Every stage of the backbone is frozen; the head trains on what it gives."]
            phase = trained("head", stages, {HEAD: choices.learning_rate}, choices.epochs, facts)
            return assemble(self.name, [phase], choices, facts, reasons)
        precision = [reason for reason in choices.reasons if reason.startswith("Precision")]
        reasons = [
            "Every stage of the backbone is frozen; its features are computed once and the head is solved for.",
            "Pooling and regularisation strength are those that do best on validation.",
        ]
        if facts.head == "none":
            reasons = ["Nothing trains: what the network gives is measured as it is."]
        choices = dataclasses.replace(choices, reasons=tuple(precision))
        return assemble(
            self.name, solved_head(stages, facts, gentle=False), choices, facts, reasons, standard_head=False
        )
