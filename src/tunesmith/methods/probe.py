"""probe: the backbone stays as it is; only a linear head is found, by solving for it.

Features are computed once; the regularisation strength and the pooling are chosen on validation. There are no
gradient epochs. Source: linear probes, Alain & Bengio 2016; the solver is described in models/solver.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.contracts import Facts, Stage
from tunesmith.methods.defaults import choose
from tunesmith.plans import Phase, Plan, Row
from tunesmith.settings import Strict


class Probe:
    """Frozen backbone, solved head."""

    name = "probe"

    class Settings(Strict):
        """The probe has no settings of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        choices = choose(facts)
        return Plan(
            method=self.name,
            phases=(Phase("head", "solve", tuple(Row(stage.name, None) for stage in stages)),),
            precision=choices.precision,
            batch=choices.batch,
            standard_head=False,
            reasons=(
                "Every stage of the backbone is frozen; its features are computed once and the head is solved for.",
                "Pooling and regularisation strength are those that do best on validation.",
                *(reason for reason in choices.reasons if reason.startswith("Precision")),
            ),
        )
