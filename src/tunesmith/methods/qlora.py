"""qlora: lora on frozen weights of 4 bits, for networks that would not fit into memory otherwise (Dettmers et al. 2023).

Needs a CUDA device and bitsandbytes. The adapters are kept apart: folding them into weights of 4 bits would round them away.
"""

from __future__ import annotations

from tunesmith.contracts import Loading
from tunesmith.methods.adapted import Adapted
from tunesmith.methods.lora import RankSettings
from tunesmith.models import quantised
from tunesmith.plans import Adapter


class QLoRA(Adapted):
    """Low-rank adapters on 4-bit weights."""

    name = "qlora"
    kind = "lora"
    loading = Loading(four_bit=True)
    Settings = RankSettings
    has = "has a low-rank adapter beside frozen weights of 4 bits"

    def __init__(self, settings: RankSettings) -> None:
        """Take `settings`.

        Raises:
            SettingsError: this machine cannot work with 4 bits.
        """
        super().__init__(settings)
        quantised.insist()

    def adapter(self, blocks: tuple[str, ...]) -> Adapter:
        own = self.settings
        assert isinstance(own, RankSettings)
        return Adapter(self.kind, blocks, own.rank, own.alpha or 2.0 * own.rank, own.dropout, merge=False)
