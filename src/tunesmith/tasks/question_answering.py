"""question-answering: the part of a passage that answers a question, or that there is none.

The network says of each token of the passage how likely the answer starts and ends there, and by the first token how likely
none does. Passages are read in windows that overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from tunesmith.contracts import Array, Batch, Batched, Features, Indices, Loading, Loss, Model, Solved
from tunesmith.data import load as data
from tunesmith.data.cells.questions import QUESTIONS
from tunesmith.data.passages import Passages
from tunesmith.data.targets.answers import PROBLEM, Answers
from tunesmith.errors import ModelError
from tunesmith.metrics import answers as metrics
from tunesmith.metrics.answers import NAMES
from tunesmith.metrics.interval import Interval
from tunesmith.models import loading_code, part_probe, passage_tokens, span_probe
from tunesmith.models.load import limited
from tunesmith.models.load_answerer import load_answerer, reload_answerer
from tunesmith.models.tokenize import truncation
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, Strict, UserModel
from tunesmith.tasks import span_outcomes, tiny, tiny_answers
from tunesmith.tasks.marked_text import around
from tunesmith.tasks.problems import how
from tunesmith.tasks.separate import Separate
from tunesmith.tasks.span_outcomes import LOSS, NONE

ALWAYS = math.inf
"""The margin above which none is answered, where every question has an answer."""
RIGHT = 0.999
"""An F1 above which nothing is wrong."""


class QuestionAnswering(Separate):
    """Questions with passages."""

    name = "question-answering"
    cells = QUESTIONS
    keeps_head = False

    class Settings(Strict):
        """Settings under `task:`."""

        max_length: Auto | Annotated[int, Field(ge=32)] = "auto"
        """Tokens of a window, the question's among them; the model's own limit, at most 512, when it is `auto`."""
        max_answer: Annotated[int, Field(gt=0)] = 30
        """Tokens of the longest answer that is given."""
        metric: Literal["f1", "exact_match"] = "f1"
        """The primary metric, by which the best weights and the report's verdict go."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._threshold = 0.0
        self._told: tuple[str, ...] | None = None

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny.write_bert(folder / "model")),
            "data": str(tiny_answers.write_answers(folder / "rows.jsonl")),
            "task": {"name": "question-answering", "max_length": 40},
        }

    def adopt(self, problem: str) -> None:
        assert problem == PROBLEM

    @property
    def targets(self) -> Answers:
        """How answers are read."""
        return Answers()

    def choices(self, model: Model) -> int:
        """The places of a window."""
        return model.limit

    @property
    def primary_metric(self) -> str:
        return str(self.settings.metric)

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        return data.load(settings, cache, seed, self.targets, self.cells)

    def told(self) -> tuple[str, ...]:
        return self._told or ()

    def load_model(
        self,
        source: str | UserModel,
        labels: Sequence[str],
        *,
        seed: int,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        remote_code: bool = False,
    ) -> Model:
        if isinstance(source, UserModel):
            raise ModelError(
                "model.python builds networks that read images, and this task reads text.", "Give a folder or Hub id."
            )
        model = load_answerer(source, seed=seed, loading=loading, remote_code=remote_code)
        return limited(model, self.settings.max_length)

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        return reload_answerer(folder, remote_code=remote_code)

    def encode(self, rows: pa.Table, model: Model) -> Passages:
        found = passage_tokens.passages(model.processor, rows, model.limit)
        if self._told is None and found.answers is not None:  # of the training rows, which are read first
            self._told = self._too_long(found, model.limit)
        return found

    def _too_long(self, examples: Passages, limit: int) -> tuple[str, ...]:
        lengths = examples.answer_lengths
        long, unseen = lengths > self.settings.max_answer, examples.answerable & (lengths == 0)
        told = []
        if long.any():
            told.append(
                f"The answers of {int(long.sum()):,} training questions ({100 * long.mean():.1f} %) have more than "
                f"{self.settings.max_answer:,} tokens, up to {lengths.max():,}, and are never given whole (task.max_answer)."
            )
        if unseen.any():
            told.append(
                f"The answers of {int(unseen.sum()):,} training questions are in no window of {limit:,} tokens whole: these "
                "questions teach that there is none."
            )
        return tuple(told)

    def repeated(self, rows: pa.Table, others: pa.Table, threshold: float) -> int:
        if "pair" not in others.column_names:
            return 0  # a text by itself is no question with its passage
        return super().repeated(rows, others, threshold)

    def truncation(self, examples: Passages, model: Model) -> dict[str, Any]:
        return truncation(examples, model.limit)

    def inputs(self, examples: Passages, indices: Indices, model: Model) -> Batch:
        ids, mask, kinds = examples.padded(indices, model.processor.pad_token_id)
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if examples.kinds is not None:
            batch["token_type_ids"] = torch.from_numpy(kinds)
        return batch

    def read(self, output: Any) -> torch.Tensor:
        return output.logits.float()  # type: ignore[no-any-return]

    def loss(self, logits: torch.Tensor, examples: Passages, indices: Indices) -> Loss:
        weights = torch.from_numpy(examples.weights[indices]).to(logits.device)
        return Loss((span_outcomes.losses(logits, examples, indices) * weights).sum(), examples.count(indices))

    def outcome(self, logits: torch.Tensor, examples: Passages, indices: Indices) -> torch.Tensor:
        if not examples.plain:
            return span_outcomes.outcomes(logits, examples, indices, self.settings.max_answer)
        found = logits.new_zeros((len(indices), int(examples.lengths.max()), logits.shape[2]))
        inside = torch.from_numpy(examples.places(indices)[0]).to(logits.device)
        found[:, : logits.shape[1]] = logits * inside[..., None]  # what stands at padding means nothing
        return found

    def decode(self, examples: Passages, logits: Array) -> Array:
        return logits if examples.plain else span_outcomes.by_row(examples, logits)

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        """Start and end each as a logistic regression over tokens, whose log-odds are logits."""

        def quality(truth: Array, logits: Array) -> float:
            return -float(np.logaddexp(0, np.where(truth > 0, -logits, logits)).mean())

        def drawn(given: Batched) -> dict[str, Array]:
            return span_probe.drawn(model, given, plan.precision, seed)

        best, start, _ = part_probe.find(model, train, validation, quality, drawn, gentle=phase.gentle, kept=kept)
        return Solved(start, best, {})  # how good the answers are would take one more pass over validation

    def solved_on(self, examples: Passages) -> int:
        return part_probe.drawn_of(len(examples)) * len(examples)

    def _scored(self, examples: Passages, outcomes: Array, threshold: float) -> Array:
        """(rows, 2) exact match and F1 of what is answered."""
        assert examples.answers is not None
        return metrics.scored(span_outcomes.answers(outcomes, list(examples.passages), threshold), examples.answers)

    def score(self, examples: Passages, logits: Array) -> Mapping[str, float]:
        found = self._scored(examples, logits, self._fitted(examples, logits))
        values = dict(zip(NAMES, found.mean(axis=0).tolist(), strict=True))
        return {"loss": float(logits[:, LOSS].mean()), self.primary_metric: values[self.primary_metric]}

    def commonest(self, train: Passages, examples: Passages, model: Model) -> Array:
        """No answer."""
        places = np.add.reduceat(examples.spans[:, 0] >= 0, examples.offsets[:-1]) + 1.0
        found = np.zeros((len(examples), 5), dtype=np.float32)
        found[:, LOSS] = np.log(places)
        return span_outcomes.by_row(examples, found)

    def intervals(
        self, examples: Passages, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        found = self._scored(examples, logits, self._threshold)
        return metrics.intervals(found, examples.answerable, **how(settings, seed, groups))

    def difference(
        self,
        examples: Passages,
        logits: Array,
        other: Array,
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        first, second = (self._scored(examples, one, self._threshold) for one in (logits, other))
        given = how(settings, seed, groups)
        return metrics.difference(self.primary_metric, first, second, examples.answerable, **given)

    def _fitted(self, examples: Passages, logits: Array) -> float:
        """The margin above which no answer does best on these rows; where none has an answer, there is nothing to weigh."""
        if examples.answerable.all():
            return ALWAYS
        if not examples.answerable.any():
            return 0.0
        place = NAMES.index(self.primary_metric)
        given, none = (self._scored(examples, logits, margin)[:, place] for margin in (ALWAYS, -ALWAYS))
        return float(metrics.threshold(span_outcomes.margins(logits), given, none))

    def fitted(self, examples: Passages, logits: Array) -> float | None:
        found = self._fitted(examples, logits)
        self.keep(None if found == ALWAYS else found)
        return None if found == ALWAYS else found

    def keep(self, fitted: float | None) -> None:
        self._threshold = ALWAYS if fitted is None else fitted

    def levelled(self, logits: Array, validation: Callable[[], tuple[Any, Array]]) -> Array:
        """With no answer less likely by as much as the network's own margin is above the kept one."""
        if self._threshold == ALWAYS:
            return logits
        found = logits.copy()
        found[:, NONE] += self._threshold - self._fitted(*validation())
        return found

    def details(self, examples: Passages, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        return {"answering": {"threshold": fitted, "unanswerable": float(1 - examples.answerable.mean())}}

    def mistakes(
        self,
        rows: pa.Table,
        examples: Passages,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        """Questions that were answered wrongly, the surest first, with what stands around both answers."""
        assert examples.answers is not None
        scores = self._scored(examples, logits, self._threshold)[:, 1]
        said = span_outcomes.answers(logits, list(examples.passages), self._threshold)
        margins = span_outcomes.margins(logits)
        away = 0.0 if fitted is None else fitted
        sure = np.array(
            [margin - away if not text else away - margin for margin, text in zip(margins, said, strict=True)]
        )
        wrong = np.flatnonzero(scores < RIGHT)
        chosen = sorted(wrong.tolist(), key=lambda row: (scores[row], -sure[row]))[:most]
        shown = []
        for row in chosen:
            cells = rows.slice(row, 1).select(["id", "input", "pair", "target"]).to_pylist()[0]
            target = cells["target"]
            true = (target["starts"][0], target["ends"][0]) if target["starts"] else None
            found = span_outcomes.span_of(logits[row]) if said[row] else None
            parts = around(cells["pair"], true, found)
            shown.append(
                {
                    "id": cells["id"],
                    "question": cells["input"],
                    "parts": parts,
                    "said": said[row],
                    "truth": target["texts"][:1],
                }
            )
        return shown

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`prediction`: the answer, empty where there is none; `start` and `end` in the passage; `margin`: by how much no
        answer is likelier than the best one."""
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        self.keep(fitted)
        passages = rows.column("pair").to_pylist()
        said = span_outcomes.answers(logits, passages, self._threshold)
        spans = [span_outcomes.span_of(row) if text else (None, None) for row, text in zip(logits, said, strict=True)]
        columns |= {
            "prediction": said,
            "start": pa.array([start for start, _ in spans], pa.int64()),
            "end": pa.array([end for _, end in spans], pa.int64()),
            "margin": span_outcomes.margins(logits),
        }
        if "target" in rows.column_names:
            truth = [target["texts"] for target in rows.column("target").to_pylist()]
            columns["truth"] = pa.array(truth, pa.list_(pa.string()))
        return pa.table(columns)

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        truth = first.column("truth").to_pylist()
        one, other = (metrics.scored(table.column("prediction").to_pylist(), truth) for table in (first, second))
        answerable = np.array([bool(answers) for answers in truth])
        return metrics.difference(self.primary_metric, one, other, answerable, **how(settings, seed, groups))

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Passages]:
        few = rows.select(["input", "pair"])
        raw = [[row["input"], row["pair"]] for row in few.to_pylist()]
        return raw, passage_tokens.plain(model.processor, few, model.limit)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.answering_code(model, folder, self.settings.max_answer, self._threshold)
