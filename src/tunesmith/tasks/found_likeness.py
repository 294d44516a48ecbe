"""Texts that only say what belongs together: pairs, triplets, or labels. Figures tell whether each finds its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch

from tunesmith.contracts import Array, Indices
from tunesmith.data import batches
from tunesmith.data.forms import LABELS, POSITIVE, TRIPLETS
from tunesmith.data.several_texts import SeveralTexts
from tunesmith.metrics import retrieval, verification
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.retrieval import Found
from tunesmith.tasks import comparing
from tunesmith.tasks.likeness import Likeness, similarity, texts_of


class PositivePairs(Likeness):
    """A text, and one that belongs to it."""

    name = POSITIVE
    default_metric = "mrr"
    selectable: ClassVar[tuple[str, ...]] = ("mrr", "recall_at_1", "recall_at_5", "recall_at_10")
    losses = ("ranking",)

    def told(self) -> str:
        return (
            "Of the second texts of all rows of a step, each first text is to be most alike to its own (ranking, at a scale "
            f"of {self.scale_:g}), so train.batch_size says among how many."
        )

    def loss(self, vectors: torch.Tensor, examples: SeveralTexts, rows: Indices) -> torch.Tensor:
        """Neither the text that asks, nor what any row of the data says belongs to it, is a wrong answer."""
        same = by_row(examples)[rows]
        candidates = vectors[:, 1:].transpose(0, 1).flatten(0, 1)
        asked, texts = same[:, :1], same[:, 1:].T.ravel()[None]
        allowed = (texts != asked) & ~np.isin(examples.paired(asked, texts), examples.belonging)
        allowed[np.arange(len(rows)), np.arange(len(rows))] = True
        mask = torch.from_numpy(allowed).to(vectors.device)
        return comparing.ranking(vectors[:, 0], candidates, mask, self.scale_)

    def found(self, same: Indices, vectors: Array) -> tuple[Found, Array]:
        """What each row finds among the different texts of all rows; and where each of these stands, (candidates, 2): in
        which row, and which text of it."""
        flat, width = same[:, 1:].ravel(), vectors.shape[2]
        texts, first, place = np.unique(flat, return_index=True, return_inverse=True)
        others = vectors[:, 1:].reshape(-1, width)[first]
        own = place.reshape(same[:, 1:].shape)[:, 0]
        apart, asked = same.shape[1] - 1, same[:, 0]
        itself = np.minimum(np.searchsorted(texts, asked), len(texts) - 1)
        itself = np.where(texts[itself] == asked, itself, -1)
        return retrieval.search(vectors[:, 0], others, own, asked, itself), np.stack(
            [first // apart, first % apart + 1], axis=1
        )

    def nearer(self, vectors: Array) -> Array | None:
        """(rows,) whether the text that belongs to a row is nearer than the one that does not."""
        return None

    def _measured(self, examples: SeveralTexts, vectors: Array) -> tuple[Array, Array | None]:
        return self.found(by_row(examples), vectors)[0].ranks, self.nearer(vectors)

    def values(self, examples: SeveralTexts, vectors: Array) -> Mapping[str, float]:
        return retrieval.values(*self._measured(examples, vectors))

    def intervals(self, examples: SeveralTexts, vectors: Array, **how: Any) -> Mapping[str, Interval]:
        return retrieval.intervals(*self._measured(examples, vectors), **how)

    def difference(self, examples: SeveralTexts, vectors: Array, other: Array, **how: Any) -> Interval:
        first, second = (self._measured(examples, one) for one in (vectors, other))
        return retrieval.difference(self.metric, first, second, **how)

    def details(self, examples: SeveralTexts, vectors: Array) -> dict[str, Any]:
        return {"candidates": len(np.unique(by_row(examples)[:, 1:]))}

    def mistakes(self, rows: pa.Table, examples: SeveralTexts, vectors: Array, most: int) -> list[dict[str, Any]]:
        """Rows whose own text comes last among the candidates, with the one that came first."""
        found, places = self.found(by_row(examples), vectors)
        alike = similarity(vectors)
        columns = ("input", "pair", "negative")
        shown = []
        for row in np.argsort(-found.ranks, kind="stable")[:most].tolist():
            if found.ranks[row] <= 1:
                break
            other, text = places[found.first[row]].tolist()
            first = float(vectors[row, 0] @ vectors[other, text])
            texts = texts_of(rows, row, (("asked", "input"), ("belongs to it", "pair")))
            texts.insert(1, ["found first", rows.column(columns[text])[other].as_py()])
            said = f"its own came at place {found.ranks[row]:.0f} of {len(places):,}, at a cosine of {alike[row]:.2f}; the "
            shown.append({"id": rows.column("id")[row].as_py(), "texts": texts, "said": f"{said}first at {first:.2f}"})
        return shown

    def columns(self, rows: pa.Table, same: Indices, vectors: Array) -> dict[str, Any]:
        """`prediction`: the cosine of the two texts; `rank`: the place of the second among those of all rows."""
        return {"prediction": similarity(vectors), "rank": self.found(same, vectors)[0].ranks}

    def compared(self, first: pa.Table, second: pa.Table, **how: Any) -> Interval:
        one, other = (self._predicted(table) for table in (first, second))
        return retrieval.difference(self.metric, one, other, **how)

    def _predicted(self, table: pa.Table) -> tuple[Array, Array | None]:
        return table.column("rank").to_numpy(), None


class Triplets(PositivePairs):
    """A text, one that belongs to it, and one that does not."""

    name = TRIPLETS
    selectable = (*PositivePairs.selectable, "triplet_accuracy")

    def told(self) -> str:
        return (
            "Of the second and third texts of all rows of a step, each first text is to be most alike to its own second "
            f"(ranking, at a scale of {self.scale_:g}), so train.batch_size says among how many."
        )

    def nearer(self, vectors: Array) -> Array | None:
        return np.asarray(similarity(vectors) > similarity(vectors[:, [0, 2]]))

    def columns(self, rows: pa.Table, same: Indices, vectors: Array) -> dict[str, Any]:
        """As of pairs, and `other`: the cosine of the first and the third text."""
        return super().columns(rows, same, vectors) | {"other": similarity(vectors[:, [0, 2]])}

    def _predicted(self, table: pa.Table) -> tuple[Array, Array | None]:
        near, far = (table.column(name).to_numpy() for name in ("prediction", "other"))
        return table.column("rank").to_numpy(), near > far


class Labelled(Likeness):
    """Texts with a label; those of one label belong together."""

    name = LABELS
    default_metric = "recall_at_1"
    selectable = ("recall_at_1", "recall_at_5", "map_at_r", "auroc")
    losses = ("contrastive",)
    scale = 10.0

    def told(self) -> str:
        return (
            "Texts of one label are to be more alike than others of the step (supervised contrastive, at a scale of "
            f"{self.scale_:g}); several of one label stand in a step together (task.together)."
        )

    def loss(self, vectors: torch.Tensor, examples: SeveralTexts, rows: Indices) -> torch.Tensor:
        target = torch.from_numpy(_labels(examples)[rows]).to(vectors.device)
        return comparing.contrastive(vectors[:, 0], target, self.scale_)

    def order(self, examples: SeveralTexts, each: int, seed: int, epoch: int) -> Indices | None:
        return batches.several_each(_labels(examples), each, seed, epoch)

    def _compared(self, examples: SeveralTexts, vectors: Array) -> verification.Compared:
        return verification.compare(vectors[:, 0], _labels(examples))

    def values(self, examples: SeveralTexts, vectors: Array) -> Mapping[str, float]:
        return verification.values(self._compared(examples, vectors))

    def intervals(self, examples: SeveralTexts, vectors: Array, **how: Any) -> Mapping[str, Interval]:
        found = verification.intervals(self._compared(examples, vectors), **how)
        return {name: found[name] for name in self.selectable if name in found}

    def difference(self, examples: SeveralTexts, vectors: Array, other: Array, **how: Any) -> Interval:
        first, second = (self._compared(examples, one) for one in (vectors, other))
        return verification.difference(self.metric, first, second, **how)

    def mistakes(self, rows: pa.Table, examples: SeveralTexts, vectors: Array, most: int) -> list[dict[str, Any]]:
        """Texts whose nearest is of another label, the surest first."""
        texts, ids, names = (rows.column(name) for name in ("input", "id", "target"))
        shown = []
        for score, row, best, right, own in verification.confused(vectors[:, 0], _labels(examples))[:most]:
            said = (("asked", row), ("found first", best), ("nearest of its own", right))
            shown.append(
                {
                    "id": ids[row].as_py(),
                    "texts": [[f"{what}, {names[at].as_py()}", texts[at].as_py()] for what, at in said],
                    "said": f"a cosine of {score:.2f} with a text of another label, and of {own:.2f} with the nearest of "
                    "its own",
                }
            )
        return shown

    def columns(self, rows: pa.Table, same: Indices, vectors: Array) -> dict[str, Any]:
        """`prediction`: the id of the most similar other row, and `similarity` to it; `embedding`."""
        ids = rows.column("id").to_pylist()
        nearest, alike = verification.nearest_other(vectors[:, 0])
        return {
            "prediction": [ids[row] for row in nearest],
            "similarity": alike.astype(np.float64),
            "embedding": pa.array(list(vectors[:, 0].astype(np.float32)), pa.list_(pa.float32())),
        }

    def compared(self, first: pa.Table, second: pa.Table, **how: Any) -> Interval:
        labels = np.unique(np.asarray(first.column("truth").to_pylist(), dtype=str), return_inverse=True)[1]
        one, other = (
            verification.compare(np.array(table.column("embedding").to_pylist(), dtype=np.float32), labels)
            for table in (first, second)
        )
        return verification.difference(self.metric, one, other, **how)


def by_row(examples: SeveralTexts) -> Indices:
    """(rows, texts) a number for each different text."""
    return examples.same.reshape(-1, examples.apart)


def _labels(examples: SeveralTexts) -> Indices:
    if examples.targets is None:
        raise RuntimeError("these rows have no label")
    return examples.targets
