"""lora and its kin: low-rank updates beside frozen weights, in every linear layer of the chosen blocks.

lora: Hu et al. 2021, section 4.1: W + (alpha / rank) B A, with B = 0 at first. dora: Liu et al. 2024, section 4, learns
lengths and directions apart. rslora: Kalajdzievski 2023, theorem 3.2, scales by the root of the rank. pissa: Meng et al.
2024, section 3, starts from the largest singular directions. lora+: Hayou et al. 2024, section 4, a higher rate for B.

All linear layers rather than queries and values alone, and a rate ten times that of all weights: Schulman et al. 2025
("LoRA without regret") find both needed for the quality of full fine-tuning.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith.methods.adapted import Adapted, AdapterSettings, BlockSettings
from tunesmith.plans import Adapter, AdapterKind


class RankSettings(BlockSettings):
    """Settings of low-rank adapters."""

    rank: Annotated[int, Field(ge=1)] = 8
    """Rank of the update of each layer."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha over rank (for rslora over its root); twice the rank when it is absent."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On what goes into the adapters."""


class LowRankSettings(RankSettings, AdapterSettings):
    """Settings of low-rank adapters that can be folded into the weights."""


class LoRA(Adapted):
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
