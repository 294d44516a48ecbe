"""What methods with adapters share: frozen weights, adapters in the chosen blocks, a head that is solved for first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, from_top, solved_head, trained
from tunesmith.plans import HEAD, Adapter, AdapterKind, Plan
from tunesmith.settings import Strict


class BlockSettings(Strict):
    """Settings of every adapter in the blocks."""

    last: Annotated[int, Field(ge=1)] | None = None
    """Only the last blocks have adapters; all before them is computed once. All blocks when it is absent."""


class AdapterSettings(BlockSettings):
    """Settings of adapters that can be folded into the weights."""

    merge: bool = True
    """Fold the adapters into the weights at the end, so that the model opens like any other; otherwise an adapter folder."""


class Adapted:
    """Adapters of one kind; subclasses say which and how fast they learn."""

    name: ClassVar[str]
    kind: ClassVar[AdapterKind]
    loading: Loading = Loading()
    rate: ClassVar[float] = 10
    """Times the rate that all weights bear."""
    passes: ClassVar[float] = 2
    """Times the epochs that all weights take."""
    upper_factor: ClassVar[float] = 1.0
    what: ClassVar[str] = "Every linear layer"
    has: ClassVar[str] = "has a low-rank adapter"
    Settings: ClassVar[type[BlockSettings]] = AdapterSettings

    def __init__(self, settings: BlockSettings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        adapter = self.adapter(self.places(stages))
        choices = choose(facts, passes=self.passes, rate=self.rate)
        # The head is solved for already; it bears what it bears in full fine-tuning.
        rates = dict.fromkeys(adapter.blocks, choices.learning_rate) | {HEAD: choices.learning_rate / self.rate}
        with_head = "That is" if facts.head == "kept" else "With the head, that is"
        reasons = [f"{self.says()} {with_head} all that trains."]
        phase = trained(
            "adapters", stages, rates, choices.epochs, facts, part="adapter", upper_factor=self.upper_factor
        )
        return assemble(self.name, [*solved_head(stages, facts), phase], choices, facts, reasons, adapter=adapter)

    def places(self, stages: Sequence[Stage]) -> tuple[str, ...]:
        """The stages that have adapters."""
        deep = [stage.name for stage in stages if stage.name.startswith("block ")]
        last = self.settings.last
        return tuple(deep if last is None else [name for name in from_top(stages, last) if name in deep])

    def says(self) -> str:
        """What the adapters are, as a sentence of the plan's reasons."""
        last = self.settings.last
        return f"{self.what} of {'every block' if last is None else f'the last {last} blocks'} {self.has}."

    def adapter(self, blocks: tuple[str, ...]) -> Adapter:
        """The adapter of the plan, in the stages `blocks`."""
        assert isinstance(self.settings, AdapterSettings)
        return Adapter(self.kind, blocks, merge=self.settings.merge)
