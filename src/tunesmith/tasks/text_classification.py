"""text-classification: one label, several labels or a score for a text or a pair of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from tunesmith.contracts import Array, Batch, Batched, Indices, Loss, Model, Solved
from tunesmith.data import duplicates
from tunesmith.data import load as data
from tunesmith.data.tokens import Tokens
from tunesmith.errors import SettingsError
from tunesmith.metrics.interval import Interval
from tunesmith.models import probes, save
from tunesmith.models.heads import make_exact, outputs_of
from tunesmith.models.load import load_classifier
from tunesmith.models.tokenize import Reading, tokenize, truncation
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, Strict
from tunesmith.tasks import tiny
from tunesmith.tasks.problems import PROBLEMS, Problem

LONGEST_BY_DEFAULT = 512
"""Tokens; the cost of attention grows with the square, and few labels hang on what comes later."""


class TextClassification:
    """The first task. What depends on the kind of target lies in `tasks/problems.py`."""

    name = "text-classification"

    class Settings(Strict):
        """Settings under `task:`."""

        problem: Auto | Literal["single-label", "multi-label", "regression"] = "auto"
        """Kind of target; read off the target column when it is `auto`."""
        max_length: Auto | Annotated[int, Field(gt=0)] = "auto"
        """Longest input in tokens; the model's own limit, at most 512, when it is `auto`."""
        long_text: Literal["cut", "windows"] = "cut"
        """What becomes of longer texts: cut at the end, or read in overlapping windows whose outputs are averaged."""
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
        """Share of each training target that is spread over all classes; scores have none."""
        metric: Auto | str = "auto"
        """The primary metric, by which the best weights and the report's verdict go."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._problem: Problem | None = None

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {"model": str(tiny.write_bert(folder / "model")), "data": str(tiny.write_rows(folder / "rows.csv"))}

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

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        wanted = None if self.settings.problem == "auto" else self.settings.problem
        dataset = data.load(settings, cache, seed, wanted)
        self.adopt(dataset.problem)
        self.problem.learn({name: rows.column("target") for name, rows in dataset.splits.items()})
        return dataset

    def load_model(
        self, source: str, labels: Sequence[str], *, seed: int, fresh: bool = False, remote_code: bool = False
    ) -> Model:
        model = load_classifier(source, labels, self.problem.name, seed=seed, fresh=fresh, remote_code=remote_code)
        make_exact(model, self.problem.centre, self.problem.spread)
        wanted = self.settings.max_length
        if wanted == "auto":
            return dataclasses.replace(model, limit=min(model.limit, LONGEST_BY_DEFAULT))
        if wanted > model.limit:
            raise SettingsError(
                f"task.max_length is {wanted:,}, but {source} takes {model.limit:,} tokens.",
                f"Set it to {model.limit} or less, or task.long_text=windows.",
            )
        return dataclasses.replace(model, limit=wanted)

    def encode(self, rows: pa.Table, model: Model) -> Tokens:
        windows = self.settings.long_text == "windows"
        if windows and "pair" in rows.column_names:
            raise SettingsError("task.long_text=windows reads single texts only.", "Use task.long_text=cut for pairs.")
        targets = None
        if "target" in rows.column_names:
            targets = self.problem.targets(rows.column("target"), outputs_of(model))
        return tokenize(model.processor, rows, targets, Reading(model.limit, windows))

    def repeated(self, rows: pa.Table, others: pa.Table, threshold: float) -> int:
        if ("pair" in rows.column_names) != ("pair" in others.column_names):
            return 0  # a text is no pair of texts
        _, near = duplicates.clusters([others, rows], threshold)
        return int(np.isin(near[others.num_rows :], near[: others.num_rows]).sum())

    def truncation(self, examples: Tokens, model: Model) -> dict[str, Any]:
        return truncation(examples, model.limit)

    def inputs(self, examples: Tokens, indices: Indices, model: Model) -> Batch:
        ids, mask, kinds = examples.padded(indices, model.processor.pad_token_id)
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if examples.kinds is not None:
            batch["token_type_ids"] = torch.from_numpy(kinds)
        return batch

    def loss(self, logits: torch.Tensor, examples: Tokens, indices: Indices) -> Loss:
        targets = torch.from_numpy(_truth(examples)[examples.owner[indices]]).to(logits.device)
        weights = torch.from_numpy(examples.weights[indices]).to(logits.device)
        return Loss(
            (self.problem.loss(logits, targets, self.settings.label_smoothing) * weights).sum(), examples.count(indices)
        )

    def decode(self, examples: Tokens, logits: Array) -> Array:
        """The mean over the pieces of each row; (rows, outputs)."""
        if len(examples) == examples.rows:
            return logits
        summed = np.zeros((examples.rows, logits.shape[1]), dtype=np.float32)
        np.add.at(summed, examples.owner, logits * examples.weights[:, None])
        return summed

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int
    ) -> Solved:
        def quality(logits: Array) -> float:
            return self.score(validation.examples, self.decode(validation.examples, logits))[self.primary_metric]

        wanted = probes.Wanted(plan.precision, seed, phase.gentle, plan.standard_head, quality)
        best, start, tried = probes.find(model, train, validation, wanted)
        return Solved(start, best, tried)

    def score(self, examples: Tokens, logits: Array) -> Mapping[str, float]:
        return self.problem.score(_truth(examples), logits)

    def commonest(self, train: Tokens, rows: int, model: Model) -> Array:
        return self.problem.commonest(_truth(train), rows, outputs_of(model))

    def intervals(
        self, examples: Tokens, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        return self.problem.intervals(_truth(examples), logits, settings, seed, groups)

    def difference(
        self, examples: Tokens, logits: Array, other: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Interval:
        return self.problem.difference(_truth(examples), logits, other, settings, seed, groups)

    def temperature(self, examples: Tokens, logits: Array) -> float | None:
        return self.problem.temperature(_truth(examples), logits)

    def details(
        self, examples: Tokens, logits: Array, labels: Sequence[str], temperature: float | None
    ) -> dict[str, Any]:
        return self.problem.details(_truth(examples), logits, labels, temperature)

    def mistakes(
        self,
        rows: pa.Table,
        examples: Tokens,
        logits: Array,
        labels: Sequence[str],
        temperature: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        truth, answers = _truth(examples), self.problem.answers(logits, temperature)
        wrong = self.problem.wrong(truth, answers)
        worst = [int(row) for row in np.argsort(-wrong, kind="stable")[:most] if wrong[row] > 0]
        shown = rows.select([name for name in ("id", "input", "pair") if name in rows.column_names])
        shown = shown.take(np.array(worst, dtype=np.int64))
        return [
            {"text" if key == "input" else key: value for key, value in seen.items()}
            | self.problem.show(truth[row], answers[row], labels)
            for row, seen in zip(worst, shown.to_pylist(), strict=True)
        ]

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], temperature: float | None) -> pa.Table:
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        if "target" in rows.column_names:
            columns["truth"] = self.problem.spelled(rows.column("target").to_pylist(), labels)
        return pa.table(columns | self.problem.columns(self.problem.answers(logits, temperature), labels))

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

    def tried(self, rows: pa.Table, model: Model, most: int) -> tuple[list[list[str]], Tokens]:
        names = [name for name in ("input", "pair") if name in rows.column_names]
        few = rows.slice(0, most)
        raw = [[row[name] for name in names] for row in few.select(names).to_pylist()]
        return raw, tokenize(model.processor, few, None, Reading(model.limit))

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return save.loading_code(model, folder, self.problem.name, inputs)


def _truth(examples: Tokens) -> Array:
    if examples.targets is None:
        raise RuntimeError("these rows have no target")
    return examples.targets
