"""prompt and prefix: the network stays as it is, and learned virtual tokens come before the text.

prompt: Lester et al. 2021, section 3: vectors before the text's own; where the head reads the first token, that is the
first of them. prefix: Li & Liang 2021, section 4: keys and values before the text's own in every block. Both belong to the
first stage, as every block reads them. They cannot be folded into the weights: `model/` is PEFT's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, solved_head, trained
from tunesmith.plans import HEAD, Adapter, AdapterKind, Plan
from tunesmith.settings import Strict


class VirtualSettings(Strict):
    """Settings of virtual tokens."""

    tokens: Annotated[int, Field(ge=1)] = 20
    """How many; where positions are limited, the longest text is shorter by as many."""


class _Virtual:
    """Virtual tokens of one kind; subclasses say which and how fast they learn."""

    name: ClassVar[str]
    kind: ClassVar[AdapterKind]
    rate: ClassVar[float]
    """Times the rate that all weights bear."""
    what: ClassVar[str]
    Settings = VirtualSettings

    def __init__(self, settings: VirtualSettings) -> None:
        self.settings = settings
        self.loading = Loading(reserved=settings.tokens)

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        first = stages[0].name
        choices = choose(facts, passes=2, rate=self.rate)
        rates = {first: choices.learning_rate, HEAD: choices.learning_rate / self.rate}
        start = "They start as words of the vocabulary"
        reasons = [
            f"{self.settings.tokens} {self.what}; that is all that trains. {start}."
            if facts.head == "kept"
            else f"{self.settings.tokens} {self.what}; with the head, that is all that trains. {start}, and the head as the "
            "solution on what it then receives."
        ]
        phase = trained("virtual tokens", stages, rates, choices.epochs, facts, part="adapter")
        adapter = Adapter(self.kind, (first,), merge=False, tokens=self.settings.tokens)
        return assemble(self.name, [*solved_head(stages, facts), phase], choices, facts, reasons, adapter=adapter)


class PromptTuning(_Virtual):
    """Virtual tokens before the text."""

    name = "prompt"
    kind = "prompt"
    rate = 50
    what = "learned vectors stand before the text's own"


class PrefixTuning(_Virtual):
    """Virtual keys and values in every block."""

    name = "prefix"
    kind = "prefix"
    rate = 50
    what = "learned keys and values stand before the text's own in every block"
