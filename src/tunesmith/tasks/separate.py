"""What holds for most tasks: the loss of a row is its own, and the head trains with the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import torch

from tunesmith.contracts import Array, Indices, Loss, Model, Packing, Variation
from tunesmith.data.canonical import Canonical
from tunesmith.data.cells import Cells
from tunesmith.data.columns import Columns
from tunesmith.data.load import load_labelled
from tunesmith.data.targets import Settled, Targets
from tunesmith.metrics.interval import Interval
from tunesmith.models.heads import outputs_of
from tunesmith.plans import Comparison
from tunesmith.settings import DataSettings, EvaluateSettings


class _ReadsInputs(Protocol):
    """A task that says what its inputs are."""

    @property
    def cells(self) -> Cells: ...


class _Reads(_ReadsInputs, Protocol):
    """A task that says what its rows hold."""

    @property
    def targets(self) -> Targets: ...


class Separate:
    """A task whose loss is a sum over rows, taken in any order."""

    compares: ClassVar[bool] = False
    besides: Sequence[str] = ()
    alike = True
    relative: ClassVar[bool] = False
    writes: bool = False
    constant: ClassVar[str] = "majority"
    pace: ClassVar[float] = 1.0
    joins: bool = False
    rows_each: ClassVar[int] = 1

    def load_labelled(
        self: _Reads, source: str, settings: DataSettings, columns: Columns, settled: Settled, cache: Path
    ) -> Canonical:
        return load_labelled(source, settings, columns, settled, cache, self.cells, self.targets)

    def repeated(self: _ReadsInputs, rows: pa.Table, others: pa.Table, threshold: float) -> int:
        _, near = self.cells.clusters([others, rows], threshold)
        return int(np.isin(near[others.num_rows :], near[: others.num_rows]).sum())

    def told(self) -> tuple[str, ...]:
        return ()

    def weighed(self) -> tuple[str, ...]:
        return ()

    def noted(self) -> tuple[str, ...]:
        return ()

    def variation(self, examples: Any) -> Variation | None:
        return None

    def varied(self, examples: Any, views: int, seed: int) -> Any:
        # Never asked, as `variation` says that there is nothing to vary; a task that says otherwise brings its own.
        raise NotImplementedError(f"{type(self).__name__} varies nothing")

    def shown_views(self, rows: pa.Table, examples: Any, views: int, seed: int) -> list[dict[str, Any]]:
        return []

    def anchored(self, examples: Any, original: Model, precision: str) -> Any:
        return examples

    def together(self, examples: Any) -> int:
        return 1

    def order(self, examples: Any, seed: int, epoch: int) -> Indices | None:
        return None

    def classes_of(self, examples: Any) -> Indices | None:
        return None

    def class_intervals(
        self, examples: Any, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> tuple[str, Sequence[Interval | None]]:
        return "", ()

    def asked(self, examples: Any, indices: Indices) -> Indices | None:
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

    def packing(self, examples: Any, model: Model) -> Packing | None:
        return None

    def packed(self, examples: Any, tokens: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} packs nothing")  # as `packing` says

    def sampled(self, model: Model, examples: Any, logits: Array, precision: str) -> Array:
        return logits

    def answered(self, model: Model, examples: Any, logits: Array, precision: str, *, every: bool = False) -> Array:
        return logits

    def samples(self, rows: pa.Table, examples: Any, said: Mapping[str, Array], model: Model) -> list[dict[str, Any]]:
        return []

    def learned(self, rows: pa.Table, examples: Any, model: Model) -> list[dict[str, Any]]:
        return []

    def levelled(self, logits: Array, validation: Callable[[], tuple[Any, Array]]) -> Array:
        return logits

    def complete(self, model: Model, train: Any, precision: str) -> None:
        return
