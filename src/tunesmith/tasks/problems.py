"""The three kinds of target, and everything about a task that depends on them: loss, scores, intervals, details.

A task that classifies or scores whole inputs (text, images, sound) holds one of these and hands it logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.nn import functional

from tunesmith.contracts import Array
from tunesmith.errors import DataError
from tunesmith.metrics import bootstrap, by_class, calibration, classification, multilabel, regression
from tunesmith.metrics.interval import Interval
from tunesmith.settings import EvaluateSettings

Groups = npt.NDArray[np.int64] | None


class Problem(ABC):
    """One kind of target. Logits are (rows, outputs), fp32; truth is what `targets` gives."""

    name: ClassVar[str]
    default_metric: ClassVar[str]
    selectable: ClassVar[tuple[str, ...]]
    """Metrics that may be primary: for all of them, higher is better."""

    def __init__(self, primary_metric: str) -> None:
        self.primary_metric = primary_metric
        self.centre, self.spread = 0.0, 1.0
        """Mean and standard deviation of the training targets where they are numbers: the unit of the loss."""

    def learn(self, targets: Mapping[str, pa.ChunkedArray]) -> None:  # noqa: B027 - classes have no unit
        """Take note of the targets of all splits, training first.

        Raises:
            DataError: the primary metric is not defined on one of them.
        """

    @abstractmethod
    def targets(self, column: pa.ChunkedArray, outputs: int) -> Array:
        """The target column as an array of rows."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """(rows,) losses, fp32; with this share of each target spread over all classes (Szegedy et al. 2016, section 7)."""

    @abstractmethod
    def answers(self, logits: Array, temperature: float | None) -> Array:
        """What the metrics take: probabilities (rows, outputs) or scores (rows,)."""

    @abstractmethod
    def commonest(self, truth: Array, rows: int, outputs: int) -> Array:
        """Logits (rows, outputs) of always answering what is commonest in `truth`."""

    @abstractmethod
    def details(self, truth: Array, logits: Array, labels: Sequence[str], temperature: float | None) -> dict[str, Any]:
        """Sections of the report beside the metrics."""

    def class_intervals(
        self, truth: Array, logits: Array, settings: EvaluateSettings, seed: int, groups: Groups
    ) -> tuple[str, Sequence[Interval | None]]:
        """The name of the figure of each class in `details` that has an interval, and the intervals."""
        return "", ()

    @abstractmethod
    def wrong(self, truth: Array, answers: Array) -> Array:
        """(rows,) how badly each row is wrong; 0 for a right answer."""

    @abstractmethod
    def show(self, truth: Any, answer: Array, labels: Sequence[str]) -> dict[str, Any]:
        """Truth, prediction and confidence of one row, for people."""

    @abstractmethod
    def spelled(self, targets: Sequence[Any], labels: Sequence[str]) -> list[Any]:
        """The target column in the user's words."""

    @abstractmethod
    def intervals(
        self, truth: Array, logits: Array, settings: EvaluateSettings, seed: int, groups: Groups
    ) -> Mapping[str, Interval]:
        """All metrics with their intervals."""

    @abstractmethod
    def columns(self, answers: Array, labels: Sequence[str]) -> dict[str, Any]:
        """Columns of the predictions file: prediction, and a score a label."""

    @abstractmethod
    def spoken(self, cells: Sequence[Any], labels: Sequence[str]) -> Array:
        """Cells in the user's words, as `spelled` and `columns` give them, back as truth."""

    @abstractmethod
    def as_answers(self, predicted: Array, labels: Sequence[str]) -> Array:
        """Predictions as `spoken` gives them, in the form that the metrics take."""

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Groups,
    ) -> Interval:
        """Primary metric of the predictions in `first` minus that of those in `second`, paired by row."""
        truth = self.spoken(first.column("truth").to_pylist(), labels)
        one, other = (
            self.as_answers(self.spoken(table.column("prediction").to_pylist(), labels), labels)
            for table in (first, second)
        )
        return bootstrap.paired_difference(
            self.primary, self.primary_metric, truth, one, other, **how(settings, seed, groups)
        )

    def temperature(self, truth: Array, logits: Array) -> float | None:
        """The temperature that calibrates the probabilities; None where there are none."""
        return None

    def difference(
        self, truth: Array, logits: Array, other: Array, settings: EvaluateSettings, seed: int, groups: Groups
    ) -> Interval:
        """Primary metric of `logits` minus that of `other`, paired by row."""
        return bootstrap.paired_difference(
            self.primary, self.primary_metric, truth, self.answers(logits, None), self.answers(other, None),
            **how(settings, seed, groups),
        )  # fmt: skip

    @abstractmethod
    def primary(self, truth: Array, answers: Array) -> Mapping[str, float]:
        """Metrics, the primary one among them, that are cheap enough to be computed a thousand times."""

    def score(self, truth: Array, logits: Array) -> dict[str, float]:
        """The primary metric and the mean loss, for the learning curve."""
        loss = float(self.loss(torch.from_numpy(logits), torch.from_numpy(truth)).mean())
        return {
            "loss": loss,
            self.primary_metric: self.primary(truth, self.answers(logits, None)).get(self.primary_metric, 0.0),
        }


class SingleLabel(Problem):
    """One of several classes. Truth: (rows,) class indices."""

    name = "single-label"
    default_metric = "accuracy"
    selectable = ("accuracy", "macro_f1", "weighted_f1", "mcc")

    def targets(self, column: pa.ChunkedArray, outputs: int) -> Array:
        return np.array(column.to_numpy(), dtype=np.int64)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)

    def answers(self, logits: Array, temperature: float | None) -> Array:
        return calibration.softmax(logits, temperature or 1.0)

    def primary(self, truth: Array, answers: Array) -> Mapping[str, float]:
        counts = classification.confusion(truth, answers.argmax(axis=1), answers.shape[1]).astype(np.float64)
        found = classification.from_counts(np.diag(counts), counts.sum(axis=1), counts.sum(axis=0))
        return {name: float(value) for name, value in found.items()}

    def spelled(self, targets: Sequence[Any], labels: Sequence[str]) -> list[Any]:
        return [labels[target] for target in targets]

    def spoken(self, cells: Sequence[Any], labels: Sequence[str]) -> Array:
        index = {label: position for position, label in enumerate(labels)}
        return np.array([index[cell] for cell in cells], dtype=np.int64)

    def as_answers(self, predicted: Array, labels: Sequence[str]) -> Array:
        return np.eye(len(labels))[predicted]

    def commonest(self, truth: Array, rows: int, outputs: int) -> Array:
        shares = (np.bincount(truth, minlength=outputs) + 1e-3) / len(truth)
        return np.tile(np.log(shares).astype(np.float32), (rows, 1))

    def temperature(self, truth: Array, logits: Array) -> float | None:
        return calibration.fit_temperature(logits, truth)

    def details(self, truth: Array, logits: Array, labels: Sequence[str], temperature: float | None) -> dict[str, Any]:
        raw, scaled = self.answers(logits, None), self.answers(logits, temperature)
        predicted = raw.argmax(axis=1)
        rows = classification.per_class(truth, predicted, len(labels))
        return {
            "per_class": [{"label": label} | row for label, row in zip(labels, rows, strict=True)],
            "confusion": {"counts": classification.confusion(truth, predicted, len(labels)).tolist()},
            "calibration": {
                "ece": calibration.expected_calibration_error(truth, raw),
                "brier": calibration.brier(truth, raw),
                "temperature": temperature,
                "ece_scaled": calibration.expected_calibration_error(truth, scaled),
                "brier_scaled": calibration.brier(truth, scaled),
                "bins": calibration.reliability(truth, raw),
                "bins_scaled": calibration.reliability(truth, scaled),
            },
        }

    def class_intervals(
        self, truth: Array, logits: Array, settings: EvaluateSettings, seed: int, groups: Groups
    ) -> tuple[str, Sequence[Interval | None]]:
        def counts(some: Sequence[int]) -> Array:
            true, found = (one[:, None] == np.array(some) for one in (truth, logits.argmax(axis=1)))
            return np.stack([true, found, true & found], axis=2)

        return "f1", by_class.counted(by_class.f1, counts, *logits.shape, **how(settings, seed, groups))

    def wrong(self, truth: Array, answers: Array) -> Array:
        predicted = answers.argmax(axis=1)
        return np.where(predicted == truth, 0.0, answers.max(axis=1))

    def show(self, truth: Any, answer: Array, labels: Sequence[str]) -> dict[str, Any]:
        best = int(answer.argmax())
        return {"truth": labels[int(truth)], "prediction": labels[best], "confidence": float(answer[best])}

    def columns(self, answers: Array, labels: Sequence[str]) -> dict[str, Any]:
        return {"prediction": [labels[index] for index in answers.argmax(axis=1)]} | _scores(answers, labels)

    def intervals(
        self, truth: Array, logits: Array, settings: EvaluateSettings, seed: int, groups: Groups
    ) -> dict[str, Interval]:
        return bootstrap.single_label_intervals(truth, self.answers(logits, None), **how(settings, seed, groups))


class MultiLabel(Problem):
    """Any number of labels. Truth: (rows, labels) of 0 and 1."""

    name = "multi-label"
    default_metric = "micro_f1"
    selectable = ("micro_f1", "macro_f1", "samples_f1", "exact_match")
    threshold = 0.5

    def targets(self, column: pa.ChunkedArray, outputs: int) -> Array:
        truth = np.zeros((len(column), outputs), dtype=np.float32)
        for row, indices in enumerate(column.to_pylist()):
            truth[row, indices] = 1.0
        return truth

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        soft = targets * (1 - smoothing) + smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(dim=1)

    def answers(self, logits: Array, temperature: float | None) -> Array:
        return np.asarray(1.0 / (1.0 + np.exp(-logits.astype(np.float64) / (temperature or 1.0))))

    def primary(self, truth: Array, answers: Array) -> Mapping[str, float]:
        found = multilabel.counted(truth.astype(bool), answers >= self.threshold, np.ones((1, len(truth))))
        return {name: float(value[0]) for name, value in found.items()}

    def spelled(self, targets: Sequence[Any], labels: Sequence[str]) -> list[Any]:
        return [[labels[index] for index in target] for target in targets]

    def spoken(self, cells: Sequence[Any], labels: Sequence[str]) -> Array:
        index = {label: position for position, label in enumerate(labels)}
        truth = np.zeros((len(cells), len(labels)), dtype=np.float32)
        for row, cell in enumerate(cells):
            truth[row, [index[name] for name in cell]] = 1.0
        return truth

    def as_answers(self, predicted: Array, labels: Sequence[str]) -> Array:
        return predicted

    def commonest(self, truth: Array, rows: int, outputs: int) -> Array:
        shares = np.clip(truth.mean(axis=0), 1e-4, 1 - 1e-4)
        return np.tile(np.log(shares / (1 - shares)).astype(np.float32), (rows, 1))

    def details(self, truth: Array, logits: Array, labels: Sequence[str], temperature: float | None) -> dict[str, Any]:
        rows = multilabel.per_label(truth.astype(bool), self.answers(logits, None))
        return {"per_class": [{"label": label} | row for label, row in zip(labels, rows, strict=True)]}

    def class_intervals(
        self, truth: Array, logits: Array, settings: EvaluateSettings, seed: int, groups: Groups
    ) -> tuple[str, Sequence[Interval | None]]:
        chosen = self.answers(logits, None) >= self.threshold

        def counts(some: Sequence[int]) -> Array:
            true, found = (one[:, list(some)] for one in (truth.astype(bool), chosen))
            return np.stack([true, found, true & found], axis=2)

        return "f1", by_class.counted(by_class.f1, counts, *logits.shape, **how(settings, seed, groups))

    def wrong(self, truth: Array, answers: Array) -> Array:
        mistaken = (answers >= self.threshold) != truth.astype(bool)
        return np.asarray(np.where(mistaken, np.abs(answers - truth), 0.0).max(axis=1))

    def show(self, truth: Any, answer: Array, labels: Sequence[str]) -> dict[str, Any]:
        chosen = answer >= self.threshold
        return {
            "truth": self._names(np.asarray(truth) > 0, labels),
            "prediction": self._names(chosen, labels),
            "confidence": float(
                np.where(chosen, answer, 1 - answer)[chosen != (np.asarray(truth) > 0)].max(initial=0.0)
            ),
        }

    def columns(self, answers: Array, labels: Sequence[str]) -> dict[str, Any]:
        chosen = [[labels[int(index)] for index in np.flatnonzero(row >= self.threshold)] for row in answers]
        return {"prediction": pa.array(chosen, pa.list_(pa.string()))} | _scores(answers, labels)

    @staticmethod
    def _names(mask: Array, labels: Sequence[str]) -> str:
        return ", ".join(labels[int(index)] for index in np.flatnonzero(mask)) or "(none)"

    def intervals(
        self, truth: Array, logits: Array, settings: EvaluateSettings, seed: int, groups: Groups
    ) -> dict[str, Interval]:
        return bootstrap.multi_label_intervals(
            truth.astype(bool), self.answers(logits, None), **how(settings, seed, groups)
        )


class Regression(Problem):
    """A score. Truth: (rows,) numbers."""

    name = "regression"
    default_metric = "spearman"
    selectable = ("spearman", "pearson", "r2")

    def learn(self, targets: Mapping[str, pa.ChunkedArray]) -> None:
        for name, column in targets.items():
            if len(column) < 2 or pc.min_max(column)["min"] == pc.min_max(column)["max"]:
                raise DataError(
                    f"The {name} split has {len(column):,} row{'s' if len(column) > 1 else ''} with one and the same "
                    f"score, so {self.primary_metric} is not defined there.",
                    "Give more rows, or bring the splits yourself.",
                )
        values = next(iter(targets.values())).to_numpy()
        self.centre, self.spread = float(values.mean()), float(values.std())

    def targets(self, column: pa.ChunkedArray, outputs: int) -> Array:
        return np.array(column.to_numpy(), dtype=np.float32)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        """Squared error in units of the training targets' variance: 1 is what always giving their mean has."""
        return functional.mse_loss(logits[:, 0], targets, reduction="none") / self.spread**2

    def answers(self, logits: Array, temperature: float | None) -> Array:
        return logits[:, 0].astype(np.float64)

    def primary(self, truth: Array, answers: Array) -> Mapping[str, float]:
        return regression.regression(truth, answers)

    def spelled(self, targets: Sequence[Any], labels: Sequence[str]) -> list[Any]:
        return list(targets)

    def spoken(self, cells: Sequence[Any], labels: Sequence[str]) -> Array:
        return np.array(cells, dtype=np.float64)

    def as_answers(self, predicted: Array, labels: Sequence[str]) -> Array:
        return predicted

    def commonest(self, truth: Array, rows: int, outputs: int) -> Array:
        return np.full((rows, 1), truth.mean(), dtype=np.float32)

    def details(self, truth: Array, logits: Array, labels: Sequence[str], temperature: float | None) -> dict[str, Any]:
        pairs = np.stack([truth, self.answers(logits, None)], axis=1)
        return {"scatter": pairs[:2000].round(4).tolist()}

    def wrong(self, truth: Array, answers: Array) -> Array:
        return np.asarray(np.abs(answers - truth))

    def show(self, truth: Any, answer: Array, labels: Sequence[str]) -> dict[str, Any]:
        return {"truth": round(float(truth), 4), "prediction": round(float(answer), 4)}

    def columns(self, answers: Array, labels: Sequence[str]) -> dict[str, Any]:
        return {"prediction": answers.tolist()}

    def intervals(
        self, truth: Array, logits: Array, settings: EvaluateSettings, seed: int, groups: Groups
    ) -> dict[str, Interval]:
        return bootstrap.regression_intervals(truth, self.answers(logits, None), **how(settings, seed, groups))


def _scores(answers: Array, labels: Sequence[str]) -> dict[str, Any]:
    return {f"score_{label}": answers[:, index].tolist() for index, label in enumerate(labels)}


def how(settings: EvaluateSettings, seed: int, groups: Groups) -> dict[str, Any]:
    """How intervals are made, as functions of `metrics` take it."""
    return {"seed": seed, "groups": groups, "resamples": settings.resamples, "confidence": settings.confidence}


PROBLEMS: dict[str, type[Problem]] = {kind.name: kind for kind in (SingleLabel, MultiLabel, Regression)}
