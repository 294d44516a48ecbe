"""seq2seq: a network that reads a text and writes another: summaries, translations, sentences of facts.

Each token of the target is learned from those before it and from all of the source. What counts is what the network writes by
itself: it is let write a few validation rows after each epoch, and the test rows at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
import transformers
from pydantic import Field, model_validator

from tunesmith import seeds
from tunesmith.contracts import Array, Batch, Batched, Features, Indices, Loading, Model, Solved, Variation
from tunesmith.data import load as data
from tunesmith.data.cells.sources import SOURCES
from tunesmith.data.source_target import SourceTarget
from tunesmith.data.targets.texts import Texts
from tunesmith.errors import ModelError, SettingsError
from tunesmith.metrics import perplexity
from tunesmith.metrics import renderings as metrics
from tunesmith.metrics.interval import Interval
from tunesmith.models import loading_code
from tunesmith.models.load import limited
from tunesmith.models.load_seq2seq import language_token, load_seq2seq, longest_output, reload_seq2seq
from tunesmith.models.tokenize import truncation
from tunesmith.models.told_places import PLACES
from tunesmith.models.two_sides import Writer, as_loaded, cut_of_others, marks, several, sides, writer_of
from tunesmith.models.writing import render
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, UserModel
from tunesmith.tasks import rendered_texts, tiny_renderings, written_outcomes
from tunesmith.tasks.generation import WRITTEN, Generation, usual_length, write_as
from tunesmith.tasks.language import Language, LanguageSettings, compared
from tunesmith.tasks.problems import how
from tunesmith.tasks.separate import Separate
from tunesmith.tasks.written_outcomes import COUNT, FIRST, LOSS, UNWRITTEN, texts

PROBLEM = "text"
LONGEST_TARGET = 512
"""Tokens of a target, at most, where nobody says otherwise."""


class Seq2Seq(Separate, Language):
    """A text of another text."""

    name = "seq2seq"
    cells = SOURCES
    network = transformers.AutoModelForSeq2SeqLM
    constant = "lead"
    alike = False

    class Settings(LanguageSettings):
        """Settings under `task:`."""

        max_length: Auto | Annotated[int, Field(gt=0)] = "auto"
        """Tokens of a source, at most; the model's own limit, at most 512, when it is `auto`. What is longer is cut at its
        end."""
        max_target_length: Auto | Annotated[int, Field(gt=0)] = "auto"
        """The same of a target."""
        prefix: str = ""
        """What stands before every source, such as `summarize: ` for a T5 that was taught so."""
        source_language: str | None = None
        """The language that is read, as a model of many languages spells it: `de_DE`, `deu_Latn`."""
        target_language: str | None = None
        """The language that is written."""
        several: bool | None = None
        """Whether a target is a list of texts, each of which would do; by the training rows when it is absent."""
        learn: Literal["each", "first"] = "each"
        """Of several targets of a row: `each` in turn, one an epoch, or the first alone."""
        metric: Literal["rouge_l", "rouge_1", "rouge_2", "bleu", "chrf", "perplexity"] = "rouge_l"
        """The metric that counts, by which the best epoch is chosen, too."""
        written_validation: Annotated[int, Field(ge=1)] = 64
        """Validation rows, drawn by the seed, that are written after each epoch, to be measured by `metric`."""
        written: Annotated[int, Field(ge=0)] = 1000
        """Test rows, drawn by the seed, that are written at the end, and as many of validation."""
        generation: Generation = Generation()
        """How texts are written at the end; the table below has its keys."""

        @model_validator(mode="after")
        def _something_to_measure(self) -> Seq2Seq.Settings:
            if not self.written and self.metric != "perplexity":
                raise ValueError(f"written is 0, which leaves nothing that {self.metric} could measure")
            return self

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._draw = 0
        self._writer: Writer
        """How the network at hand writes: known from when it is loaded."""
        self._marks: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._made, self._usual = False, WRITTEN[1]
        self._most = self._usual

    @property
    def primary_metric(self) -> str:  # type: ignore[override]
        return str(self.settings.metric)

    @property
    def writes(self) -> bool:  # type: ignore[override]
        return self.primary_metric != "perplexity"

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_renderings.write_bart(folder / "model")),
            "data": str(tiny_renderings.write_renderings(folder / "rows.jsonl")),
        }

    def adopt(self, problem: str) -> None:
        return

    @property
    def targets(self) -> Texts:
        """How targets are read."""
        learned = "the first is learned" if self.settings.learn == "first" else "each is learned in turn"
        return Texts(PROBLEM, self.settings.several, learned)

    def choices(self, model: Model) -> int:
        return 1  # however large the vocabulary is: the network knows it

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        self._draw = seed
        if self.settings.written:
            metrics.insist()
        return data.load(settings, cache, seed, self.targets, SOURCES)

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
            raise ModelError("model.python builds networks that read images, and this task reads text.")
        model = load_seq2seq(source, seed=seed, loading=loading, languages=self._languages, remote_code=remote_code)
        self._made = model.resized
        model = self._set_up(limited(model, self.settings.max_length))
        self._most = write_as(model, self._writer, self.settings.generation, self._usual)
        return model

    @property
    def _languages(self) -> tuple[str | None, str | None]:
        return self.settings.source_language, self.settings.target_language

    def _set_up(self, model: Model) -> Model:
        """Raise SettingsError where targets are to be longer than the network can write, or of a language that it cannot be
        told."""
        most, wanted = longest_output(model), self.settings.max_target_length
        if wanted != "auto" and wanted > most:
            raise SettingsError(
                f"task.max_target_length is {wanted:,}, but {model.source} writes {most:,} tokens.",
                f"Set it to {most} or less.",
            )
        self._writer = writer_of(model, min(most, LONGEST_TARGET) if wanted == "auto" else int(wanted))
        self._marks = marks(model, self._writer)
        for name, code, known in zip(("source", "target"), self._languages, self._marks, strict=True):
            if code is not None and language_token(model.processor, code) not in known:
                raise SettingsError(
                    f"task.{name}_language is {code!r}, but {model.source} marks no language in what it "
                    f"{'reads' if name == 'source' else 'writes'}.",
                    "Leave it away; where the model card puts a mark into the text that is read, such as >>fra<<, set "
                    "task.prefix.",
                )
        return model

    def calibrate(self, model: Model, train: SourceTarget) -> None:
        """Let the network know how long its texts are."""
        self._usual = usual_length(train.target.lengths)  # what is loaded later, to compare, writes as long texts
        self._most = write_as(model, self._writer, self.settings.generation, self._usual)

    def told(self) -> tuple[str, ...]:
        own = self.settings
        marked = [" and ".join(map(repr, one)) for one in self._marks if one]
        found = [f"Marks of languages: {' for what is read, '.join(marked)} for what is written."] * (len(marked) == 2)
        found += [
            "The files hold an encoder alone: it reads, and a copy of it that looks back only writes, with new layers that "
            "look at what was read."
        ] * self._made
        if own.metric == "perplexity":
            found.append("The best epoch is that of the lowest perplexity on validation.")
        else:
            found.append(
                f"The best epoch is that whose texts are best by {own.metric} (task.metric): {own.written_validation} "
                "validation rows are written after each, the likeliest token at each step."
            )
        found.append(self.settings.generation.told(self._most))
        return tuple(found)

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        return self._set_up(reload_seq2seq(folder, self._languages, remote_code=remote_code))

    def encode(self, rows: pa.Table, model: Model) -> SourceTarget:  # type: ignore[override]
        found = rendered_texts.references_of(rows)
        return sides(model, rows.column("input"), found, self.settings.prefix, self._writer)

    def inputs(self, examples: SourceTarget, indices: Indices, model: Model) -> Batch:  # type: ignore[override]
        pad = model.processor.pad_token_id
        ids, mask, _ = examples.source.padded(examples.owner[indices], pad)
        target, told, _ = examples.target.padded(indices, pad)
        given = np.roll(target, 1, axis=1)  # each token is told from those before it
        given[:, 0] = self._writer.begin
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "decoder_input_ids": torch.from_numpy(given),
            "decoder_attention_mask": torch.from_numpy(told),
            PLACES: torch.from_numpy(examples.target.asked_at(indices)),
        }

    def asked(self, examples: SourceTarget, indices: Indices) -> Indices | None:
        return examples.wanted_of(indices)[0]

    def outcome(self, logits: torch.Tensor, examples: SourceTarget, indices: Indices) -> torch.Tensor:  # type: ignore[override]
        return logits.float() if examples.plain else super().outcome(logits, examples, indices)  # type: ignore[arg-type]

    def decode(self, examples: SourceTarget, outcome: Array) -> Array:  # type: ignore[override]
        return outcome if examples.plain else super().decode(examples, outcome)  # type: ignore[arg-type]

    def score(self, examples: SourceTarget, logits: Array) -> Mapping[str, float]:  # type: ignore[override]
        found = perplexity.perplexity(logits[:, LOSS], examples.by_row[: examples.rows])
        own = {"loss": float(np.log(found)), "perplexity": found}
        if self.writes and logits.shape[1] > FIRST:
            own[self.primary_metric] = metrics.figure(self._counts(examples, logits), self.primary_metric)
        return own

    def truncation(self, examples: SourceTarget, model: Model) -> dict[str, Any]:
        """As for all texts, of the sources; and how many targets were cut, and by how many tokens."""
        lost = examples.cut[:, 1]
        source = dataclasses.replace(examples.source, lost=examples.cut[:, 0])
        return truncation(source, model.limit) | {
            "targets": {"limit": self._writer.limit, "rows_cut": int((lost > 0).sum()), "tokens_lost": int(lost.sum())}
        }

    def variation(self, examples: SourceTarget) -> Variation | None:
        most = max(map(len, examples.references or [[]]), default=1)
        if self.settings.learn == "first" or most < 2:
            return None
        texts, tokens = cut_of_others(self._writer, examples)
        told = "Rows have several targets, of which each epoch learns another one (task.learn)."
        if texts:
            told += (
                f" Of those behind the first, {texts:,} {'is' if texts == 1 else 'are'} longer than {self._writer.limit:,} "
                f"tokens: {tokens:,} tokens are cut from the end{'' if texts == 1 else 's'}, where no end is learned."
            )
        return Variation(most, told)

    def varied(self, examples: SourceTarget, views: int, seed: int) -> SourceTarget:
        return several(self._writer, examples, views)

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        raise NotImplementedError(f"{type(self).__name__} has no head that can be solved for")  # as `Model.head` says

    def solved_on(self, examples: SourceTarget) -> int:
        return 0

    def commonest(self, train: SourceTarget, examples: SourceTarget, model: Model) -> Array:
        """The first words of each source, as many as training targets have in the middle; and each token by how often it is
        learned in train, for the loss."""
        config: Any = model.module.config
        losses = rendered_texts.losses_by_frequency(train, examples, config.get_text_config(decoder=True).vocab_size)
        written = rendered_texts.leads(self._writer, train, examples, self._most)
        return np.concatenate([losses[:, None], examples.by_row[:, None], written], axis=1)

    def sampled(self, model: Model, examples: SourceTarget, logits: Array, precision: str) -> Array:
        """With what is written for a few rows, the likeliest token at each step; nothing where perplexity counts."""
        if not self.writes:
            return logits
        return self._written(model, examples, logits, precision, self.settings.written_validation, quick=True)

    def answered(
        self, model: Model, examples: SourceTarget, logits: Array, precision: str, *, every: bool = False
    ) -> Array:
        """(rows, 2 + tokens), see tasks/written_outcomes.py; all rows are written where none has a target."""
        some = (examples.by_row > 0).any() and not every
        return self._written(model, examples, logits, precision, self.settings.written if some else examples.rows)

    def _written(
        self, model: Model, examples: SourceTarget, logits: Array, precision: str, most: int, *, quick: bool = False
    ) -> Array:
        chosen = np.sort(seeds.generator(self._draw, "written rows").permutation(examples.rows)[:most])
        network: Any = model.module
        found = np.full((examples.rows, FIRST + network.generation_config.max_new_tokens), UNWRITTEN, dtype=np.float64)
        found[:, LOSS], found[:, COUNT] = logits[:, LOSS], examples.by_row
        if len(chosen):
            found[chosen, FIRST:] = render(model, examples.source, chosen, precision, quick=quick)
        return found

    def _counts(self, examples: SourceTarget, logits: Array) -> Array:
        """What the metrics take of each row, see metrics/renderings.py."""
        return metrics.counted(texts(logits, self._writer.tokenizer), examples.references or [])

    def intervals(  # type: ignore[override]
        self, examples: SourceTarget, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        drawn = how(settings, seed, groups)
        found = {"perplexity": perplexity.interval(logits[:, LOSS], examples.by_row, **drawn)}
        written = metrics.intervals(self._counts(examples, logits), **drawn) if logits.shape[1] > FIRST else {}
        return {**written, **found}

    def difference(  # type: ignore[override]
        self,
        examples: SourceTarget,
        logits: Array,
        other: Array,
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        drawn = how(settings, seed, groups)
        if not self.writes:
            return perplexity.difference(logits[:, LOSS], other[:, LOSS], examples.by_row, **drawn)
        one, two = (self._counts(examples, said) for said in (logits, other))
        return metrics.difference(one, two, self.primary_metric, **drawn)

    def fitted(self, examples: SourceTarget, logits: Array) -> float | None:
        return None

    def details(
        self, examples: SourceTarget, logits: Array, labels: Sequence[str], fitted: float | None
    ) -> dict[str, Any]:
        """`writing`: how many rows were written, how many texts came to an end, and how long they are beside the targets;
        `rows_measured` by the primary metric, which are these."""
        if logits.shape[1] <= FIRST or not (logits[:, FIRST] != UNWRITTEN).any():
            return {}
        found = {"writing": rendered_texts.described(examples, logits, self._writer.tokenizer)}
        return found | ({"rows_measured": found["writing"]["rows"]} if self.writes else {})

    def mistakes(
        self,
        rows: pa.Table,
        examples: SourceTarget,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        """The texts that share least with what could have been written."""
        if logits.shape[1] <= FIRST:
            return []
        names, sources = rows.column("id").to_pylist(), rows.column("input").to_pylist()
        said = texts(logits, self._writer.tokenizer)
        return written_outcomes.least_alike(names, sources, said, examples.references or [], most)

    def samples(
        self, rows: pa.Table, examples: SourceTarget, said: Mapping[str, Array], model: Model
    ) -> list[dict[str, Any]]:
        return rendered_texts.samples(rows, examples, said, model.processor)

    def learned(self, rows: pa.Table, examples: SourceTarget, model: Model) -> list[dict[str, Any]]:
        return rendered_texts.learned(rows, examples, model.processor)

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`prediction`: what is written, null beyond task.written; `loss`, over `tokens`, where a target is known."""
        references = rendered_texts.references_of(rows)
        return written_outcomes.predictions(rows, logits, self._writer.tokenizer, references)

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        drawn = how(settings, seed, groups)
        if not self.writes:
            return compared(first, second, drawn)
        truth = first.column("truth").to_pylist()
        one, other = (metrics.counted(table.column("prediction").to_pylist(), truth) for table in (first, second))
        return metrics.difference(one, other, self.primary_metric, **drawn)

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], SourceTarget]:
        """Sources with their targets, and the tokens that the public loader makes of both."""
        written = rendered_texts.references_of(rows) or []
        sources = [self.settings.prefix + text for text in rows.column("input").to_pylist()]
        raw = [[source, one[0]] for source, one in zip(sources, written, strict=True)]
        model.processor.model_max_length = model.limit
        return raw, as_loaded(model.processor, raw)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.rendering_code(model, folder, self.settings.prefix)
