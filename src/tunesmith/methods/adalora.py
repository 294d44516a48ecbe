"""adalora: low-rank updates whose ranks go where they matter (Zhang et al. 2023, section 3).

Each update is P Λ Q with nearly orthogonal P and Q. Every layer starts with more ranks than it may keep; on the way the
least important of all layers go, until the mean is `rank`. How importance is measured is told in models/budget.py.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from tunesmith.methods.adapted import Adapted
from tunesmith.methods.lora import LowRankSettings
from tunesmith.plans import Adapter, RankBudget

INITIAL = 1.5
"""Times the final rank, as in the paper's section 4."""
SCALE = 16.0
"""Alpha over the initial rank. Singular values stand before vectors of length 1, so that a step of theirs changes a weight
ten times less than one of LoRA's matrices does at its scale of 2."""


class AdaLoRASettings(LowRankSettings):
    """Settings of AdaLoRA."""

    alpha: Annotated[float, Field(gt=0)] | None = None
    """The update is scaled by alpha over the initial rank; sixteen times that rank when it is absent."""
    initial_rank: Annotated[int, Field(ge=1)] | None = None
    """Rank that every layer starts with; one and a half times `rank` when it is absent."""
    before: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps before the first ranks go."""
    after: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Share of the steps after the last ones went."""
    orthogonality: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the penalty that keeps singular vectors orthogonal."""

    @model_validator(mode="after")
    def _consistent(self) -> AdaLoRASettings:
        if self.initial_rank is not None and self.initial_rank < self.rank:
            raise ValueError(f"initial_rank is {self.initial_rank}, less than the rank {self.rank} that is to be left")
        if self.before + self.after >= 1:
            raise ValueError("before and after together leave no steps in which ranks could go")
        return self


class AdaLoRA(Adapted):
    """Ranks where they matter."""

    name = "adalora"
    kind = "adalora"
    has = "has a low-rank adapter, whose rank is found on the way: on average"
    Settings = AdaLoRASettings

    def says(self) -> str:
        own = self.adapter(())
        assert own.budget is not None
        return f"{super().says()[:-1]} {own.rank} of {own.budget.initial} are kept."

    def adapter(self, blocks: tuple[str, ...]) -> Adapter:
        own = self.settings
        assert isinstance(own, AdaLoRASettings)
        initial = own.initial_rank or round(INITIAL * own.rank)
        budget = RankBudget(initial, own.before, own.after, own.orthogonality)
        return Adapter(self.kind, blocks, own.rank, own.alpha or SCALE * initial, own.dropout, own.merge, budget)
