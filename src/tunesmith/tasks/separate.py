"""What holds for most tasks: the loss of a row is its own, and the head trains with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.contracts import Indices, Model
from tunesmith.models.heads import outputs_of


class Separate:
    """A task whose loss is a sum over rows, taken in any order."""

    compares: ClassVar[bool] = False

    def together(self, examples: Any) -> int:
        return 1

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

    def complete(self, model: Model, train: Any, precision: str) -> None:
        return
