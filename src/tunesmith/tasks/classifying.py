"""What all tasks share that give a whole input its label, labels or score, whatever the input is.

What depends on the kind of target lies in `problems.py`; a task of this family adds how its inputs are read and shown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import BeforeValidator, Field

from tunesmith.contracts import Array, Batched, Examples, Features, Indices, Loss, Model, Solved
from tunesmith.data import load as data
from tunesmith.data.cells import Cells
from tunesmith.data.targets.classes import Classes
from tunesmith.errors import SettingsError, did_you_mean
from tunesmith.metrics.interval import Interval
from tunesmith.models import probes
from tunesmith.models.heads import outputs_of
from tunesmith.plans import Comparison, Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, Strict
from tunesmith.tasks import comparing
from tunesmith.tasks.problems import PROBLEMS, Problem
from tunesmith.tasks.separate import Separate


def _named(value: Any) -> Any:
    """YAML reads classes such as 0 and 1 as numbers, and yes and no as booleans."""
    if not isinstance(value, Mapping):
        return value
    if any(isinstance(key, bool) for key in value):
        raise ValueError("a class is called yes, no, true or false: put its name into quotes")
    return {str(key): weight for key, weight in value.items()}


UNBALANCED = 3
"""Times as many rows as the smallest class has, beyond which the plan says how classes count. That it is alike by default
was measured: of tiles of magnets, 12 to 1, weights changed nothing that three seeds show (docs/benchmarks.md)."""
ByClass = Annotated[
    Literal["none", "root", "balanced"] | dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_named)
]
"""How much each class counts."""


class ClassifyingSettings(Strict):
    """Settings that every task of the family has."""

    problem: Auto | Literal["single-label", "multi-label", "regression"] = "auto"
    """Kind of target; read off the target column when it is `auto`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each training target that is spread over all classes; scores have none."""
    class_weights: ByClass = "none"
    """How much the rows of each class count in the loss: alike, by one over the root of the class's size, by one over its
    size, or as a mapping from class to weight says. The mean over all training rows is always 1."""
    metric: Auto | str = "auto"
    """The primary metric, by which the best weights and the report's verdict go."""


class Classifying(Separate, ABC):
    """A task that holds a Problem and hands it logits."""

    cells: ClassVar[Cells]
    keeps_head = False
    joins = True

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._problem: Problem | None = None
        self._class_weights: Array | None = None
        """(classes,), mean 1 over the training rows; None where all rows count alike."""
        self._weighed = ""
        """What the plan says of that."""

    @property
    def problem(self) -> Problem:
        if self._problem is None:
            raise RuntimeError("the kind of target is known once the data are loaded")
        return self._problem

    def adopt(self, problem: str) -> None:
        """Settle the kind of target, and the primary metric with it.

        Raises:
            SettingsError: task.metric is none of this problem's metrics.
        """
        kind = PROBLEMS[problem]
        metric = kind.default_metric if self.settings.metric == "auto" else self.settings.metric
        if metric not in kind.selectable:
            raise SettingsError(
                f"task.metric is {metric!r}, which is no metric of a {problem} problem.",
                f"Known: {', '.join(kind.selectable)}.",
            )
        if problem == "regression" and self.settings.label_smoothing:
            raise SettingsError(
                "task.label_smoothing spreads targets over classes, but the target is a score.", "Set it to 0."
            )
        self._problem = kind(metric)

    @property
    def primary_metric(self) -> str:
        return self.problem.primary_metric

    @property
    def targets(self) -> Classes:
        """How targets are read."""
        return Classes(None if self.settings.problem == "auto" else self.settings.problem)

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        dataset = data.load(settings, cache, seed, self.targets, self.cells)
        assert dataset.problem is not None  # these rows have targets
        self.adopt(dataset.problem)
        self.problem.learn({name: rows.column("target") for name, rows in dataset.splits.items()})
        if dataset.problem == "single-label":
            self._weigh(dataset)
        elif self.settings.class_weights != "none":
            raise SettingsError(
                f"task.class_weights are for single labels, but the target is {dataset.problem}.", "Leave them away."
            )
        return dataset

    def _weigh(self, dataset: data.Dataset) -> None:
        """Settle what rows count by their class, and the sentence about it."""
        counts = np.bincount(dataset.splits["train"].column("target").to_numpy(), minlength=len(dataset.labels))
        least, most = int(counts.min()), int(counts.max())
        if self.settings.class_weights != "none":
            self._class_weights = weights_of(self.settings.class_weights, counts, dataset.labels)
            low, high = self._class_weights.min(), self._class_weights.max()
            self._weighed = f"Rows count by their class, from {low:.2g} to {high:.2g} (task.class_weights)."
        elif most > UNBALANCED * least:
            self._weighed = (
                f"Classes have from {least:,} to {most:,} training rows, and all rows count alike; "
                "task.class_weights=root or balanced lets rare classes count more."
            )

    def weighed(self) -> tuple[str, ...]:
        return (self._weighed,) if self._weighed else ()

    def answers(self, rows: pa.Table, model: Model) -> Array | None:
        """The target column of `rows` as the loss takes it; None where there is none."""
        if "target" not in rows.column_names:
            return None
        return self.problem.targets(rows.column("target"), outputs_of(model))

    def repeated(self, rows: pa.Table, others: pa.Table, threshold: float) -> int:
        columns = {name for name in ("pair", "file") if (name in rows.column_names) != (name in others.column_names)}
        if columns:
            return 0  # a text is no pair of texts, and no image
        return super().repeated(rows, others, threshold)

    def read(self, output: Any) -> torch.Tensor:
        return output.logits.float()  # type: ignore[no-any-return]

    def loss(self, logits: torch.Tensor, examples: Examples, indices: Indices) -> Loss:
        targets = torch.from_numpy(_truth(examples)[examples.owner[indices]]).to(logits.device)
        own = examples.weights[indices]
        if self._class_weights is not None:
            own = own * self._class_weights[_truth(examples)[examples.owner[indices]]]
        weights = torch.from_numpy(own).to(logits.device)
        return Loss(
            (self.problem.loss(logits, targets, self.settings.label_smoothing) * weights).sum(), examples.count(indices)
        )

    def classes_of(self, examples: Examples) -> Indices | None:
        return _truth(examples)[examples.owner] if self.problem.name == "single-label" else None

    def contrast(self, vectors: torch.Tensor, examples: Examples, indices: Indices, how: Comparison) -> Loss:
        target = torch.from_numpy(_truth(examples)[examples.owner[indices]]).to(vectors.device)
        return Loss(comparing.contrastive(vectors, target, how.scale), float(len(indices)))

    def outcome(self, logits: torch.Tensor, examples: Examples, indices: Indices) -> torch.Tensor:
        return logits

    def decode(self, examples: Examples, logits: Array) -> Array:
        """The mean over the pieces of each row; (rows, outputs)."""
        if len(examples) == examples.rows:
            return logits
        summed = np.zeros((examples.rows, logits.shape[1]), dtype=np.float32)
        np.add.at(summed, examples.owner, logits * examples.weights[:, None])
        return summed

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        def quality(logits: Array) -> float:
            return self.score(validation.examples, self.decode(validation.examples, logits))[self.primary_metric]

        by_class = self._class_weights
        wanted = probes.Wanted(
            plan.precision, seed, phase.gentle, plan.standard_head, quality, by_class, phase.strength
        )
        best, start, tried = probes.find(model, train, validation, wanted, kept)
        return Solved(start, best, tried)

    def solved_on(self, examples: Examples) -> int:
        return min(len(examples), probes.MOST_ROWS)

    def score(self, examples: Examples, logits: Array) -> Mapping[str, float]:
        return self.problem.score(_truth(examples), logits)

    def commonest(self, train: Examples, examples: Examples, model: Model) -> Array:
        return self.problem.commonest(_truth(train), examples.rows, outputs_of(model))

    def intervals(
        self, examples: Examples, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        return self.problem.intervals(_truth(examples), logits, settings, seed, groups)

    def difference(
        self,
        examples: Examples,
        logits: Array,
        other: Array,
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        return self.problem.difference(_truth(examples), logits, other, settings, seed, groups)

    def fitted(self, examples: Examples, logits: Array) -> float | None:
        return self.problem.temperature(_truth(examples), logits)

    def details(self, examples: Examples, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        return self.problem.details(_truth(examples), logits, labels, fitted)

    def class_intervals(
        self, examples: Examples, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> tuple[str, Sequence[Interval | None]]:
        return self.problem.class_intervals(_truth(examples), logits, settings, seed, groups)

    def mistakes(
        self,
        rows: pa.Table,
        examples: Examples,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        truth, answers = _truth(examples), self.problem.answers(logits, fitted)
        wrong = self.problem.wrong(truth, answers)
        worst = [int(row) for row in np.argsort(-wrong, kind="stable")[:most] if wrong[row] > 0]
        shown = self.shown(rows.take(np.array(worst, dtype=np.int64)))
        return [
            seen | self.problem.show(truth[row], answers[row], labels) for row, seen in zip(worst, shown, strict=True)
        ]

    @abstractmethod
    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        """A few inputs as the report shows them: `id`, and `text` or `image`."""

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        if "target" in rows.column_names:
            columns["truth"] = self.problem.spelled(rows.column("target").to_pylist(), labels)
        return pa.table(columns | self.problem.columns(self.problem.answers(logits, fitted), labels))

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        return self.problem.compared(first, second, labels, settings, seed, groups)


def weights_of(wanted: str | Mapping[str, float], counts: Array, labels: Sequence[str]) -> Array:
    """(classes,) fp32: what a row of each class counts, so that all training rows together count as many as they are.

    Args:
        wanted: "root", "balanced", or the weight by label.
        counts: (classes,) training rows of each.

    Raises:
        SettingsError: `wanted` names an unknown label, or leaves one out.
    """
    if isinstance(wanted, Mapping):
        wrong = next((name for name in wanted if name not in labels), None)
        if wrong is not None:
            raise SettingsError(f"task.class_weights names {wrong!r}, which is no class{did_you_mean(wrong, labels)}")
        if missing := [label for label in labels if label not in wanted]:
            raise SettingsError(f"task.class_weights has no weight for {missing[0]!r}.", "Give one for each class.")
        raw = np.array([wanted[label] for label in labels], dtype=np.float64)
    else:
        # A class without a training row has no row to weigh.
        raw = 1.0 / np.maximum(counts, 1) ** (0.5 if wanted == "root" else 1.0)
    return np.asarray(raw * counts.sum() / (raw * counts).sum(), dtype=np.float32)


def _truth(examples: Examples) -> Array:
    if examples.targets is None:
        raise RuntimeError("these rows have no target")
    return examples.targets
