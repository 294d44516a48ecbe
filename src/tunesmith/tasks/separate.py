"""What holds for most tasks: the loss of a row is its own, and the head trains with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from tunesmith.contracts import Indices, Loss, Model
from tunesmith.models.heads import outputs_of
from tunesmith.plans import Comparison


class Separate:
    """A task whose loss is a sum over rows, taken in any order."""

    compares: ClassVar[bool] = False

    def together(self, examples: Any) -> int:
        return 1

    def order(self, examples: Any, seed: int, epoch: int) -> Indices | None:
        return None

    def classes_of(self, examples: Any) -> Indices | None:
        return None

    def contrast(self, vectors: torch.Tensor, examples: Any, indices: Indices, how: Comparison) -> Loss:
        # Never asked, as `classes_of` says that there is nothing to compare by.
        raise NotImplementedError(f"{type(self).__name__} has not one class a row")

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
