"""In how many ways data say which texts are alike, and everything that depends on it: losses, figures, mistakes, predictions.

What all ways share stands here; pairs with a score lie in `scored_likeness.py`, pairs, triplets and labels that only say what
belongs together in `found_likeness.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from tunesmith.contracts import Array, Indices
from tunesmith.data import batches
from tunesmith.data.several_texts import SeveralTexts
from tunesmith.metrics.interval import Interval

LOSS_ROWS = 64
"""Rows that are compared with each other where a loss is measured and not learned from."""


class Likeness(ABC):
    """One form of data. Vectors are of length 1, fp32: (rows, texts, width), where `texts` is how many a row has."""

    name: ClassVar[str]
    default_metric: ClassVar[str]
    selectable: ClassVar[tuple[str, ...]]
    """Metrics that may be primary: for all of them, higher is better."""
    losses: ClassVar[tuple[str, ...]]
    """The first is the usual one."""
    scale: ClassVar[float] = 20.0
    """Of cosines in the loss, where none is set."""

    def __init__(self, metric: str, loss: str, scale: float | None) -> None:
        self.metric, self.chosen_loss = metric, loss
        self.scale_ = self.scale if scale is None else scale
        self.threshold = 0.0
        """The similarity from which a pair counts as the same, where that is asked."""

    def learn(self, targets: pa.ChunkedArray | None) -> None:  # noqa: B027 - most have nothing to learn
        """Take note of the training targets."""

    @abstractmethod
    def told(self) -> str:
        """What teaches, as a sentence."""

    @abstractmethod
    def loss(self, vectors: torch.Tensor, examples: SeveralTexts, rows: Indices) -> torch.Tensor:
        """The sum over `rows` of the loss of their `vectors`, which are compared with each other; scalar, fp32."""

    @abstractmethod
    def values(self, examples: SeveralTexts, vectors: Array) -> Mapping[str, float]:
        """Metrics, the primary one among them."""

    @abstractmethod
    def intervals(self, examples: SeveralTexts, vectors: Array, **how: Any) -> Mapping[str, Interval]:
        """All metrics with their intervals."""

    @abstractmethod
    def difference(self, examples: SeveralTexts, vectors: Array, other: Array, **how: Any) -> Interval:
        """Primary metric of `vectors` minus that of `other`, paired by row."""

    def fitted(self, examples: SeveralTexts, vectors: Array) -> float | None:
        """The similarity from which a pair counts as the same; None where nobody asks that."""
        return None

    def details(self, examples: SeveralTexts, vectors: Array) -> dict[str, Any]:
        """Sections of the report beside the metrics."""
        return {}

    @abstractmethod
    def mistakes(self, rows: pa.Table, examples: SeveralTexts, vectors: Array, most: int) -> list[dict[str, Any]]:
        """The worst ones: `id`, `texts` as pairs of what a text is and the text itself, and `said`, a sentence.

        Args:
            rows: with labels in words.
        """

    @abstractmethod
    def columns(self, rows: pa.Table, same: Indices, vectors: Array) -> dict[str, Any]:
        """Columns of the predictions.

        Args:
            same: (rows, texts) a number for each different text.
        """

    @abstractmethod
    def compared(self, first: pa.Table, second: pa.Table, **how: Any) -> Interval:
        """Primary metric of the predictions in `first` minus that of those in `second`, paired by row."""

    def order(self, examples: SeveralTexts, each: int, seed: int, epoch: int) -> Indices | None:
        """As `Task.order`; `each`: texts of one label that belong into one step."""
        return None

    def mean_loss(self, examples: SeveralTexts, vectors: Array, each: int) -> float:
        """The mean over rows, LOSS_ROWS compared with each other at a time, which rows being always the same."""
        order = self.order(examples, each, 0, 0)
        found = batches.steps(np.ones(len(vectors), dtype=np.int64), LOSS_ROWS, 0, 0, order)
        given = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
        sums = [float(self.loss(given[torch.from_numpy(rows)], examples, rows)) for rows in found]
        return sum(sums) / len(vectors)


def similarity(vectors: Array) -> Array:
    """(rows,): the cosine of the first two texts of each row."""
    return np.asarray((vectors[:, 0] * vectors[:, 1]).sum(axis=1), dtype=np.float64)


def cosines(vectors: torch.Tensor) -> torch.Tensor:
    """(rows,): the same, with its graph."""
    return (vectors[:, 0] * vectors[:, 1]).sum(dim=1)


def texts_of(rows: pa.Table, row: int, said: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Pairs of what a text is and the text, as `mistakes` gives them.

    Args:
        said: what a text is, and its column.
    """
    return [[what, rows.column(column)[row].as_py()] for what, column in said]
