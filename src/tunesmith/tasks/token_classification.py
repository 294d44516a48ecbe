"""token-classification: which words of a text are names of what, or a tag for each word.

A text is read in words. The network answers for a word at its first token, and long texts are read in windows that overlap,
so that nothing is cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import transformers
from pydantic import Field
from torch.nn import functional

from tunesmith.contracts import Array, Batch, Batched, Features, Indices, Loading, Loss, Model, Solved
from tunesmith.data import load as data
from tunesmith.data.cells.words import WORDS
from tunesmith.data.tagged import UNKNOWN, Tagged
from tunesmith.data.targets import entities as targets
from tunesmith.data.targets.entity_counts import unknown_told, unknown_types
from tunesmith.errors import ModelError, SettingsError
from tunesmith.metrics import by_class, classification
from tunesmith.metrics.interval import Interval
from tunesmith.models import loading_code, part_probe, word_probe, word_tokens
from tunesmith.models.heads import make_exact, outputs_of
from tunesmith.models.load import limited, load_classifier
from tunesmith.models.reload import reload
from tunesmith.models.tokenize import truncation
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, Strict, UserModel
from tunesmith.tasks import tiny, tiny_tags
from tunesmith.tasks.marked_text import marked
from tunesmith.tasks.problems import how
from tunesmith.tasks.reading_images import Named
from tunesmith.tasks.separate import Separate
from tunesmith.tasks.word_problems import WORD_PROBLEMS, Tags, WordProblem

KIND = transformers.AutoModelForTokenClassification
MOST_CONFUSED = 100
"""Tags of which the report says what was taken for what."""


class TokenClassification(Separate):
    """Texts in words."""

    name = "token-classification"
    cells = WORDS
    keeps_head = False

    class Settings(Strict):
        """Settings under `task:`."""

        problem: Auto | Literal["entities", "tags"] = "auto"
        """Whether words in a row are found, or each word has a tag; read off the target column when it is `auto`."""
        classes: list[Named] | None = None
        """The tags by number, where cells hold numbers, or the types of entities; those of the training rows when absent."""
        max_length: Auto | Annotated[int, Field(gt=0)] = "auto"
        """Tokens of a window; the model's own limit, at most 512, when it is `auto`."""
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
        """Share of each training tag that is spread over all tags."""
        metric: Auto | str = "auto"
        """The primary metric, by which the best weights and the report's verdict go."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._problem: WordProblem | None = None
        self._metric = ""
        self._shared: int | None = None
        """Training words that lie in the token of the word before them, with another tag."""

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny.write_bert(folder / "model")),
            "data": str(tiny_tags.write_tags(folder / "rows.conll")),
        }

    @property
    def problem(self) -> WordProblem:
        if self._problem is None:
            raise RuntimeError("the kind of target is known once the data are loaded")
        return self._problem

    def adopt(self, problem: str) -> None:
        """Settle the kind of target, and the primary metric with it.

        Raises:
            SettingsError: task.metric is none of this problem's metrics.
        """
        self._problem = WORD_PROBLEMS[problem]()
        known = self._problem.selectable
        self._metric = known[0] if self.settings.metric == "auto" else self.settings.metric
        if self._metric not in known:
            raise SettingsError(
                f"task.metric is {self._metric!r}, which is no metric of {problem}.", f"Known: {', '.join(known)}."
            )

    def outputs(self, labels: Sequence[str]) -> Sequence[str]:
        return self.problem.tags(labels)

    @property
    def primary_metric(self) -> str:
        return self._metric

    @property
    def targets(self) -> targets.Entities:
        """How targets are read."""
        return targets.Entities(
            None if self.settings.problem == "auto" else self.settings.problem, self.settings.classes
        )

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        found = data.load(settings, cache, seed, self.targets, self.cells)
        assert found.problem is not None  # these rows have targets
        self.adopt(found.problem)
        return found

    def told(self) -> tuple[str, ...]:
        if not self._shared:
            return ()
        return (
            f"{self._shared:,} training words share a token with the word before them, which has another tag: this tokenizer "
            "does not tell them apart.",
        )

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
        tags = self.outputs(labels)
        more = {"seed": seed, "loading": loading, "remote_code": remote_code}
        model = load_classifier(source, tags, "single-label", kind=KIND, **more)  # type: ignore[arg-type]
        make_exact(model)
        return limited(model, self.settings.max_length)

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        return reload(folder, remote_code=remote_code, kind=KIND)

    def encode(self, rows: pa.Table, model: Model) -> Tagged:
        tags = None
        if "target" in rows.column_names:
            counts = (len(words) // 2 for words in rows.column("words").to_pylist())
            cells = zip(rows.column("target").to_pylist(), counts, strict=True)
            tags = np.concatenate([self.problem.encoded(target, count) for target, count in cells])
        found = word_tokens.tagged(model.processor, rows, tags, model.limit)
        if tags is None:
            return found
        if self._shared is None:  # of the training rows, which are read first
            self._shared = int((found.follows & (tags != tags[np.maximum(np.arange(len(tags)) - 1, 0)])).sum())
        target = rows.column("target")
        return dataclasses.replace(
            found,
            taught=self.problem.taught(tags, found.follows),
            unknown=pc.list_value_length(pc.struct_field(target, "unknown")).to_numpy().astype(np.int64),
            unknown_types=unknown_types(target),
        )

    def repeated(self, rows: pa.Table, others: pa.Table, threshold: float) -> int:
        if "file" in others.column_names or "pair" in others.column_names:
            return 0  # a text is no image, and no pair of texts
        return super().repeated(rows, others, threshold)

    def truncation(self, examples: Tagged, model: Model) -> dict[str, Any]:
        return truncation(examples, model.limit)

    def inputs(self, examples: Tagged, indices: Indices, model: Model) -> Batch:
        ids, mask, _ = examples.padded(indices, model.processor.pad_token_id)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def read(self, output: Any) -> torch.Tensor:
        return output.logits.float()  # type: ignore[no-any-return]

    def loss(self, logits: torch.Tensor, examples: Tagged, indices: Indices) -> Loss:
        assert examples.taught is not None
        piece, _, place, word = examples.asked(indices)
        truth = torch.from_numpy(examples.taught[word]).to(logits.device)
        smoothing = self.settings.label_smoothing
        loss = functional.cross_entropy(logits[piece, place], truth, reduction="sum", label_smoothing=smoothing)
        return Loss(loss, examples.count(indices))

    def outcome(self, logits: torch.Tensor, examples: Tagged, indices: Indices) -> torch.Tensor:
        """(len(indices), most words of a piece, tags): the logits of the words that each piece answers for."""
        piece, within, place, _ = examples.asked(indices)
        found = logits.new_zeros((len(indices), int(examples.answers.max(initial=0)), logits.shape[2]))
        found[piece, within] = logits[piece, place]
        return found

    def decode(self, examples: Tagged, logits: Array) -> Array:
        """(words of all rows, tags); of plain examples as they are."""
        return logits if examples.plain else examples.by_word(logits)

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        def quality(truth: Array, logits: Array) -> float:
            found = self.problem.decoded(logits, np.array([0, len(truth)]))
            counts = self.problem.counts([truth], [found], logits.shape[1], np.zeros(1, dtype=np.int64))
            return float(self.problem.metrics.from_counts(counts.sum(axis=0))[self.primary_metric])

        def drawn(given: Batched) -> dict[str, Array]:
            return word_probe.drawn(model, given, plan.precision, seed)

        best, start, tried = part_probe.find(model, train, validation, quality, drawn, gentle=phase.gentle, kept=kept)
        return Solved(start, best, tried)

    def solved_on(self, examples: Tagged) -> int:
        return min(int(examples.answers.sum()), part_probe.drawn_of(len(examples)) * len(examples))

    def _truth(self, examples: Tagged) -> list[Tags]:
        """The tags of each row."""
        assert examples.tags is not None
        return np.split(examples.tags, examples.word_offsets[1:-1])

    def _found(self, logits: Array, examples: Tagged) -> list[Tags]:
        """The best tags of each row."""
        return np.split(self.problem.decoded(logits, examples.word_offsets), examples.word_offsets[1:-1])

    def _counts(self, examples: Tagged, logits: Array) -> Array:
        assert examples.unknown is not None
        pair = self._truth(examples), self._found(logits, examples)
        return self.problem.counts(*pair, logits.shape[1], examples.unknown)

    def score(self, examples: Tagged, logits: Array) -> Mapping[str, float]:
        assert examples.taught is not None
        _, _, _, word = examples.asked(np.arange(len(examples)))
        words, truth = torch.from_numpy(logits[word]), torch.from_numpy(examples.taught[word])
        loss = float(functional.cross_entropy(words, truth, ignore_index=UNKNOWN))
        values = self.problem.metrics.from_counts(self._counts(examples, logits).sum(axis=0))
        return {"loss": loss, self.primary_metric: float(values[self.primary_metric])}

    def commonest(self, train: Tagged, examples: Tagged, model: Model) -> Array:
        assert train.tags is not None
        shares = np.bincount(train.tags, minlength=outputs_of(model)) + 1.0
        logits = np.log(shares / shares.sum()).astype(np.float32)
        return np.tile(logits, (int(examples.word_offsets[-1]), 1))

    def intervals(
        self, examples: Tagged, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        found: Mapping[str, Interval] = self.problem.metrics.intervals(
            self._counts(examples, logits), **how(settings, seed, groups)
        )
        return found

    def difference(
        self, examples: Tagged, logits: Array, other: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Interval:
        first, second = (self._counts(examples, one) for one in (logits, other))
        return self._apart(first, second, settings, seed, groups)

    def _apart(
        self, first: Array, second: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Interval:
        found: Interval = self.problem.metrics.difference(
            self.primary_metric, first, second, **how(settings, seed, groups)
        )
        return found

    def fitted(self, examples: Tagged, logits: Array) -> None:
        return None

    def details(self, examples: Tagged, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        counts = self._counts(examples, logits)
        rows = self.problem.metrics.per_class(counts)[:-1]  # the last one is what has no label
        found: dict[str, Any] = {
            "per_class": [{"label": label} | row for label, row in zip(labels, rows, strict=True)],
            "counted": self.problem.counted,
        }
        if types := examples.unknown_types:
            note = unknown_told(types, whole=self.problem.name == "tags")
            found["unknown"] = {"types": dict(types), "note": note}
        if self.problem.name == "tags" and len(labels) <= MOST_CONFUSED:
            truth, told = examples.tags, self.problem.decoded(logits, examples.word_offsets)
            assert truth is not None
            if (known := truth != UNKNOWN).any():
                counted = classification.confusion(truth[known], told[known], len(labels))
                found["confusion"] = {"counts": counted.tolist(), "unit": "words"}
        return found

    def class_intervals(
        self, examples: Tagged, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> tuple[str, Sequence[Interval | None]]:
        counts = self._counts(examples, logits)[:, :-1]  # without what has no label
        given = how(settings, seed, groups)
        return "f1", by_class.counted(by_class.f1, lambda some: counts[:, list(some)], *counts.shape[:2], **given)

    def mistakes(
        self,
        rows: pa.Table,
        examples: Tagged,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        """The texts with the most that was missed or is wrong, in parts that say what was to be found and what was."""
        assert examples.unknown is not None
        pairs = zip(self._truth(examples), self._found(logits, examples), strict=True)
        objects = [tuple(map(self.problem.objects, pair)) for pair in pairs]
        wrong = np.array([len(set(truth) ^ set(found)) for truth, found in objects]) + examples.unknown
        shown = []
        for row in np.argsort(-wrong, kind="stable")[:most].tolist():
            if not wrong[row]:
                break
            cells = rows.slice(row, 1).select(["id", "input", "words", "target"]).to_pylist()[0]
            unknown = cells["target"]["unknown"]
            names = [*labels, *(one["label"] for one in unknown)]
            truth = [
                *objects[row][0],
                *((one["first"], one["last"], len(labels) + at) for at, one in enumerate(unknown)),
            ]
            parts = marked(cells["input"], cells["words"], truth, objects[row][1], names)
            shown.append({"id": cells["id"], "parts": parts})
        return shown

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`prediction`, and what it says for programs: `entities` or `tags`; `truth` where it is known, and how much of it is
        of types that no training text has: `unknown`."""
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        cells = list(zip(*(rows.column(name).to_pylist() for name in ("input", "words")), strict=True))
        ends = np.concatenate([[0], np.cumsum([len(words) // 2 for _, words in cells])]).astype(np.int64)
        found, given = (np.split(one, ends[1:-1]) for one in (self.problem.decoded(logits, ends), logits))
        columns |= self.problem.answers(cells, found, given, labels)
        if "target" in rows.column_names:
            targets = rows.column("target")
            columns["truth"] = self.problem.truth(cells, targets.to_pylist(), labels)
            columns["unknown"] = pc.list_value_length(pc.struct_field(targets, "unknown"))
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
        one, other = (self.problem.counts_again(table, labels) for table in (first, second))
        return self._apart(one, other, settings, seed, groups)

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Tagged]:
        raw = [[text] for text in rows.column("input").to_pylist()]
        return raw, word_tokens.every_token(model.processor, rows, model.limit)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.tagging_code(model, folder, whole=self.problem.name == "entities")
