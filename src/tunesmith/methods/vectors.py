"""ia3 and vera: of each adapted layer only vectors are learned, and they are folded into the weights at the end.

ia3: Liu et al. 2022, section 3.3, scales keys, values and what the feed-forward layers pass on. vera: Kopiczko et al. 2024,
section 3: W x + b ⊙ B (d ⊙ A x), with random A and B that all layers share and nobody trains; smaller layers take the
first rows and columns that they need.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.methods.adapted import Adapted, AdapterSettings
from tunesmith.plans import Adapter


class IA3(Adapted):
    """Scales of keys, values and feed-forward layers."""

    name = "ia3"
    kind = "ia3"
    rate = 50
    what = "Keys, values and feed-forward layers"
    has = "are scaled"


class VeRASettings(AdapterSettings):
    """Settings of VeRA."""

    rank: Annotated[int, Field(ge=1)] = 64
    """Rows of the shared A, columns of the shared B; they cost time, but are not trained."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On what goes into the adapters."""


class VeRA(Adapted):
    """Scales of shared random projections."""

    name = "vera"
    kind = "vera"
    rate = 100
    has = "has two vectors, which scale random projections that all layers share"
    Settings = VeRASettings

    def adapter(self, blocks: tuple[str, ...]) -> Adapter:
        own = self.settings
        assert isinstance(own, VeRASettings)
        return Adapter(self.kind, blocks, own.rank, dropout=own.dropout, merge=own.merge)
