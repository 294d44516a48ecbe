"""What holds for most tasks: the loss of a row is its own, and the head trains with the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from tunesmith.contracts import Array, Indices, Model
from tunesmith.models.heads import outputs_of


class Separate:
    """A task whose loss is a sum over rows, taken in any order."""

    compares: ClassVar[bool] = False
    writes: bool = False
    constant: ClassVar[str] = "majority"

    def order(self, examples: Any, seed: int, epoch: int) -> Indices | None:
        return None

    def outputs(self, labels: Sequence[str]) -> Sequence[str]:
        return labels

    def choices(self, model: Model) -> int:
        return outputs_of(model)

    def calibrate(self, model: Model, train: Any) -> None:
        return

    def keep(self, fitted: float | None) -> None:
        return

    def sampled(self, model: Model, examples: Any, logits: Array, precision: str) -> Array:
        return logits

    def answered(self, model: Model, examples: Any, logits: Array, precision: str) -> Array:
        return logits

    def samples(self, rows: pa.Table, examples: Any, said: Mapping[str, Array], model: Model) -> list[dict[str, Any]]:
        return []

    def learned(self, rows: pa.Table, examples: Any, model: Model) -> list[dict[str, Any]]:
        return []

    def complete(self, model: Model, train: Any, precision: str) -> None:
        return
