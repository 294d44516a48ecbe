"""surgical: only the first, the middle or the last part of the network trains, whichever the gradients point to.

Lee et al. 2023, section 4: the stages with the largest gradient relative to their weights are those that the new data ask to
change: early ones where the input looks otherwise, late ones where the answers do. Section 3 shows that training them alone
can do better than training everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.partial import bearable, by_all
from tunesmith.methods.phases import assemble, head_first, trained
from tunesmith.plans import HEAD, Plan
from tunesmith.settings import Strict

HEAD_EPOCHS = 2
"""Before gradients are measured, where the head cannot be solved for."""


class Surgical:
    """One of several parts of the network, and the head."""

    name = "surgical"
    loading = Loading(apart=True)

    class Settings(Strict):
        """Settings of `surgical`."""

        parts: Annotated[int, Field(ge=2)] = 3
        """Into how many parts of neighbouring stages the backbone is cut; one of them trains."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        head = head_first(stages, facts, HEAD_EPOCHS)
        # The head that the gradients are measured under is the one that training starts from.
        first = assemble(self.name, [head], choose(facts), facts, [])
        relative = facts.relative_gradients(first)
        names = [stage.name for stage in stages if stage.name != HEAD]
        parts = [list(part) for part in np.array_split(np.array(names), min(self.settings.parts, len(names)))]
        means = [sum(relative[name] for name in part) / len(part) for part in parts]
        chosen = [str(name) for name in parts[int(np.argmax(means))]]
        times = bearable(len([name for name in chosen if name.startswith("block ")]), len(stages), facts)
        choices = choose(facts, passes=2, rate=times)
        rates = dict.fromkeys([*chosen, HEAD], choices.learning_rate)
        told = "; ".join(f"{part[0]} to {part[-1]} {mean:.2g}" for part, mean in zip(parts, means, strict=True))
        reasons = [
            f"{', '.join(chosen)} and the head train, as the gradient there is longest relative to the weights ({told}), at "
            f"{by_all(times)} that all weights together bear."
        ]
        phases = [head, trained("chosen stages", stages, rates, choices.epochs, facts)]
        return assemble(self.name, phases, choices, facts, reasons)
