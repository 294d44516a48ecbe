"""Pairs of texts that say how alike they are, by a score, or by 1 and 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from tunesmith.contracts import Array, Indices
from tunesmith.data.several_texts import SeveralTexts
from tunesmith.data.targets.alike import BINARY, SCORED
from tunesmith.metrics import pairs
from tunesmith.metrics.interval import Interval
from tunesmith.tasks import comparing
from tunesmith.tasks.likeness import Likeness, cosines, similarity, texts_of

BOTH = (("one", "input"), ("the other", "pair"))
MOST_POINTS = 2000


class ScoredPairs(Likeness):
    """Pairs with a score; the higher, the more alike."""

    name = SCORED
    default_metric = "spearman"
    selectable: ClassVar[tuple[str, ...]] = ("spearman", "pearson")
    losses = ("cosent", "cosine")

    def __init__(self, metric: str, loss: str, scale: float | None) -> None:
        super().__init__(metric, loss, scale)
        self.low, self.high = 0.0, 1.0
        """Of the training scores."""

    def learn(self, targets: pa.ChunkedArray | None) -> None:
        assert targets is not None
        ends = pc.min_max(targets).as_py()
        self.low, self.high = ends["min"], ends["max"]

    def told(self) -> str:
        if self.chosen_loss == "cosine":
            return (
                f"The cosine of a pair is brought near its score, from {self.low:g}, which becomes 0, to {self.high:g}, "
                "which becomes 1 (cosine)."
            )
        return (
            "Of any two pairs of a step, the one with the higher score is to have the higher cosine (cosent, at a scale of "
            f"{self.scale_:g})."
        )

    def loss(self, vectors: torch.Tensor, examples: SeveralTexts, rows: Indices) -> torch.Tensor:
        scores = torch.from_numpy(truth_of(examples)[rows]).to(vectors.device)
        if self.chosen_loss == "cosine":
            return comparing.cosine(cosines(vectors), (scores - self.low) / (self.high - self.low))
        return comparing.cosent(cosines(vectors), scores, self.scale_)

    def values(self, examples: SeveralTexts, vectors: Array) -> Mapping[str, float]:
        return pairs.correlations(truth_of(examples), similarity(vectors))

    def intervals(self, examples: SeveralTexts, vectors: Array, **how: Any) -> Mapping[str, Interval]:
        return pairs.correlation_intervals(truth_of(examples), similarity(vectors), **how)

    def difference(self, examples: SeveralTexts, vectors: Array, other: Array, **how: Any) -> Interval:
        return self._difference(truth_of(examples), similarity(vectors), similarity(other), **how)

    def _difference(self, truth: Array, first: Array, second: Array, **how: Any) -> Interval:
        return pairs.correlation_difference(self.metric, truth, first, second, **how)

    def details(self, examples: SeveralTexts, vectors: Array) -> dict[str, Any]:
        """Where each pair stands among all, from 0 to 1: by its score, and by its cosine, as these share no unit."""
        points = np.stack([_share_below(truth_of(examples)), _share_below(similarity(vectors))], axis=1)
        return {"scatter": points[:MOST_POINTS].round(4).tolist()}

    def mistakes(self, rows: pa.Table, examples: SeveralTexts, vectors: Array, most: int) -> list[dict[str, Any]]:
        """Pairs whose place by similarity is furthest from their place by score."""
        truth, alike = truth_of(examples), similarity(vectors)
        wanted, found = _share_below(truth), _share_below(alike)
        worst = np.argsort(-np.abs(found - wanted), kind="stable")[:most]
        return [
            {
                "id": rows.column("id")[row].as_py(),
                "texts": texts_of(rows, row, BOTH),
                "said": f"a cosine of {alike[row]:.2f}, more alike than {100 * found[row]:.0f} % of the pairs; the score "
                f"{truth[row]:g} is higher than that of {100 * wanted[row]:.0f} %",
            }
            for row in worst.tolist()
            if found[row] != wanted[row]
        ]

    def columns(self, rows: pa.Table, same: Indices, vectors: Array) -> dict[str, Any]:
        return {"prediction": similarity(vectors)}

    def compared(self, first: pa.Table, second: pa.Table, **how: Any) -> Interval:
        truth = first.column("truth").to_numpy()
        return self._difference(truth, *(table.column("prediction").to_numpy() for table in (first, second)), **how)


class BinaryPairs(ScoredPairs):
    """Pairs of texts that belong together, 1, or do not, 0."""

    name = BINARY
    default_metric = "average_precision"
    selectable = ("average_precision", "auroc", "accuracy", "f1")

    def told(self) -> str:
        if self.chosen_loss == "cosine":
            return "The cosine of pairs that belong together is brought near 1, that of others near 0 (cosine)."
        return (
            "Pairs that belong together are to have a higher cosine than any other pair of the step (cosent, at a scale of "
            f"{self.scale_:g})."
        )

    def values(self, examples: SeveralTexts, vectors: Array) -> Mapping[str, float]:
        truth, alike = truth_of(examples), similarity(vectors)
        # For the learning curve the threshold is the best one of the same rows, as none is set before training is over.
        return pairs.same_or_not(truth, alike, pairs.threshold(truth, alike))

    def intervals(self, examples: SeveralTexts, vectors: Array, **how: Any) -> Mapping[str, Interval]:
        return pairs.same_or_not_intervals(truth_of(examples), similarity(vectors), self.threshold, **how)

    def _difference(self, truth: Array, first: Array, second: Array, **how: Any) -> Interval:
        return pairs.same_or_not_difference(self.metric, truth, first, second, (self.threshold, self.threshold), **how)

    def fitted(self, examples: SeveralTexts, vectors: Array) -> float | None:
        return pairs.threshold(truth_of(examples), similarity(vectors))

    def details(self, examples: SeveralTexts, vectors: Array) -> dict[str, Any]:
        return {"same_from": self.threshold}

    def mistakes(self, rows: pa.Table, examples: SeveralTexts, vectors: Array, most: int) -> list[dict[str, Any]]:
        """Pairs on the wrong side of the threshold, the furthest first."""
        truth, alike = truth_of(examples) > 0, similarity(vectors)
        away = np.abs(alike - self.threshold)
        wrong = np.flatnonzero((alike >= self.threshold) != truth)
        return [
            {
                "id": rows.column("id")[row].as_py(),
                "texts": texts_of(rows, row, BOTH),
                "said": f"a cosine of {alike[row]:.2f}, so taken for {'different' if truth[row] else 'the same'}; labelled "
                f"{'1, the same' if truth[row] else '0, different'}",
            }
            for row in wrong[np.argsort(-away[wrong], kind="stable")][:most].tolist()
        ]

    def columns(self, rows: pa.Table, same: Indices, vectors: Array) -> dict[str, Any]:
        """`prediction`: 1 or 0; `similarity`."""
        alike = similarity(vectors)
        return {"prediction": (alike >= self.threshold).astype(np.int64), "similarity": alike}

    def compared(self, first: pa.Table, second: pa.Table, **how: Any) -> Interval:
        """Each with its own threshold, which its predictions show."""
        truth = first.column("truth").to_numpy()
        if self.metric in pairs.RANKED:
            given = [table.column("similarity").to_numpy() for table in (first, second)]
            return self._difference(truth, *given, **how)
        one, other = (table.column("prediction").to_numpy().astype(np.float64) for table in (first, second))
        return pairs.same_or_not_difference(self.metric, truth, one, other, (0.5, 0.5), **how)


def truth_of(examples: SeveralTexts) -> Array:
    """(rows,) scores, fp32."""
    if examples.targets is None:
        raise RuntimeError("these rows have no score")
    return examples.targets


def _share_below(values: Array) -> Array:
    """(rows,): the share of the rows with a lower value; of equals the middle."""
    ordered = np.sort(values)
    below, through = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((below + through) / 2 / len(values))
