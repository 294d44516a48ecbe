"""lora and its kin: low-rank updates beside frozen weights, in every linear layer of the chosen blocks.

lora: Hu et al. 2021, section 4.1: W + (alpha / rank) B A, with B = 0 at first. dora: Liu et al. 2024, section 4, learns
lengths and directions apart. rslora: Kalajdzievski 2023, theorem 3.2, scales by the root of the rank. pissa: Meng et al.
2024, section 3, starts from the largest singular directions. lora+: Hayou et al. 2024, section 4, a higher rate for B.
ia3: Liu et al. 2022, section 3.3, scales keys, values and what the feed-forward layers pass on.

All linear layers rather than queries and values alone, and a rate ten times that of all weights: Schulman et al. 2025
("LoRA without regret") find both needed for the quality of full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith.contracts import Facts, Stage
from tunesmith.methods.defaults import choose
from tunesmith.methods.phases import assemble, from_top, solved_head, trained
from tunesmith.plans import HEAD, Adapter, AdapterKind, Plan
from tunesmith.settings import Strict


class AdapterSettings(Strict):
    """Settings of every adapter."""

    last: Annotated[int, Field(ge=1)] | None = None
    """Only the last blocks have adapters; all before them is computed once. All blocks when it is absent."""
    merge: bool = True
    """Fold the adapters into the weights at the end, so that the model opens like any other; otherwise an adapter folder."""


class LowRankSettings(AdapterSettings):
    """Settings of low-rank adapters."""

    rank: Annotated[int, Field(ge=1)] = 8
    """Rank of the update of each layer."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha over rank (for rslora over its root); twice the rank when it is absent."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On what goes into the adapters."""


class _Adapted:
    """Adapters of one kind; subclasses say which and how fast they learn."""

    name: ClassVar[str]
    kind: ClassVar[AdapterKind]
    rate: ClassVar[float] = 10
    """Times the rate that all weights bear."""
    upper_factor: ClassVar[float] = 1.0
    what: ClassVar[str] = "Every linear layer"
    has: ClassVar[str] = "has a low-rank adapter"
    Settings: ClassVar[type[AdapterSettings]] = AdapterSettings

    def __init__(self, settings: AdapterSettings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        deep = [stage.name for stage in stages if stage.name.startswith("block ")]
        last = self.settings.last
        blocks = deep if last is None else [name for name in from_top(stages, last) if name in deep]
        choices = choose(facts, passes=2, rate=self.rate)
        # The head is solved for already; it bears what it bears in full fine-tuning.
        rates = dict.fromkeys(blocks, choices.learning_rate) | {HEAD: choices.learning_rate / self.rate}
        where = "every block" if last is None else f"the last {last} blocks"
        reasons = [f"{self.what} of {where} {self.has}; with the head, that is all that trains."]
        phase = trained(
            "adapters", stages, rates, choices.epochs, facts, part="adapter", upper_factor=self.upper_factor
        )
        adapter = self.adapter(tuple(blocks))
        return assemble(self.name, [solved_head(stages), phase], choices, facts, reasons, adapter=adapter)

    def adapter(self, blocks: tuple[str, ...]) -> Adapter:
        return Adapter(self.kind, blocks, merge=self.settings.merge)


class LoRA(_Adapted):
    """Low-rank adaptation."""

    name = "lora"
    kind: ClassVar[AdapterKind] = "lora"
    Settings = LowRankSettings

    def adapter(self, blocks: tuple[str, ...]) -> Adapter:
        own = self.settings
        assert isinstance(own, LowRankSettings)
        return Adapter(self.kind, blocks, own.rank, own.alpha or 2.0 * own.rank, own.dropout, own.merge)


class DoRA(LoRA):
    """Lengths and directions of the weights apart."""

    name = "dora"
    kind = "dora"


class RsLoRA(LoRA):
    """Scaled by the root of the rank."""

    name = "rslora"
    kind = "rslora"
    rate = 5


class PiSSA(LoRA):
    """Started from the largest singular directions of each weight."""

    name = "pissa"
    kind = "pissa"
    rate = 5


class LoRAPlus(LoRA):
    """A higher rate for B than for A."""

    name = "lora+"
    kind = "lora"
    rate = 2.5
    upper_factor = 16.0


class IA3(_Adapted):
    """Scales of keys, values and feed-forward layers."""

    name = "ia3"
    kind = "ia3"
    rate = 50
    what = "Keys, values and feed-forward layers"
    has = "are scaled"
