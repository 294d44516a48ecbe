"""causal-lm: a network that tells each token from those before it, and so goes on with texts, answers prompts, and chats.

Of plain text every token is learned; of prompts and chats the answers alone, with what ends them. Several rows may stand in
one sequence, none of which sees another.
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
from pydantic import Field

from tunesmith import seeds
from tunesmith.contracts import Array, Batch, Batched, Features, Indices, Loading, Model, Packing, Solved
from tunesmith.data import load as data
from tunesmith.data.asked import NOTHING, Asked
from tunesmith.data.canonical import Canonical
from tunesmith.data.cells import Cells
from tunesmith.data.columns import Columns
from tunesmith.data.dialogue import Dialogue, plain
from tunesmith.data.readers import PLAIN
from tunesmith.data.targets import Settled
from tunesmith.data.targets.texts import Texts
from tunesmith.errors import DataError, ModelError, SettingsError
from tunesmith.metrics import perplexity
from tunesmith.metrics import written as metrics
from tunesmith.metrics.interval import Interval
from tunesmith.models import loading_code
from tunesmith.models.asking import next_tokens
from tunesmith.models.dialogues import Shape, dialogue, stops
from tunesmith.models.reload import reload_language_model
from tunesmith.models.tokenize import truncation
from tunesmith.models.told_places import PLACES
from tunesmith.models.writing import NONE, follow, room_for
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, UserModel
from tunesmith.tasks import tiny_prompts, written_outcomes
from tunesmith.tasks.generation import usual_length
from tunesmith.tasks.language import Language, compared, last_logits, to_the_end
from tunesmith.tasks.packing import keeps_apart, padding
from tunesmith.tasks.problems import how
from tunesmith.tasks.prompted import (
    LEARNS,
    READS,
    WritingSettings,
    answers_of,
    insist_on_some,
    parts_of,
    template_for,
    template_of,
    told_by,
)
from tunesmith.tasks.separate import Separate
from tunesmith.tasks.written_outcomes import COUNT, FIRST, LOSS, SAMPLES, UNWRITTEN, before, texts

GONE_ON_FROM = 16
"""Tokens of a plain text that the network is shown, to see how it goes on, and"""
OF_TEXTS = 64
"""tokens that it goes on with, at most."""
SHARE_WRITTEN = 2
"""What is written takes at most this part of what the network reads: the prompt needs room too."""


class CausalLm(Separate, Language):
    """Texts, prompts with answers, or chats."""

    name = "causal-lm"
    primary_metric = "perplexity"
    network = transformers.AutoModelForCausalLM
    constant = "frequencies"
    alike = False

    class Settings(WritingSettings):
        """Settings under `task:`."""

        problem: Auto | Literal["text", "completion", "instruction", "chat"] = "auto"
        """What a row is: text; a prompt with how it goes on, as both stand; an instruction with its answer, put into a
        template; or a chat. `auto` tells by the columns."""
        pack: Auto | bool = "auto"
        """Whether training rows are packed into full sequences, in which none sees another; where much would be padding, when
        it is `auto`."""
        ends: bool = False
        """Whether the token that ends a text is learned after each row of plain text, and counted where it is measured."""
        several: bool | None = None
        """Whether a target is a list of texts, each of which would do; by the training rows when it is absent."""
        written: Annotated[int, Field(ge=0)] = 100
        """Test rows, drawn by the seed, whose answers are written, to be held against the true ones."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._problem: str = "text" if settings.problem == "auto" else settings.problem
        self._template = None if settings.chat_template is None else template_of(settings.chat_template)
        self._draw = 0
        self._tokenizer: Any = None
        self._limit = 0

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_prompts.write_gpt2(folder / "model")),
            "data": str(tiny_prompts.write_prompts(folder / "rows.jsonl")),
        }

    def adopt(self, problem: str) -> None:
        self._problem = problem

    @property
    def cells(self) -> Cells:  # type: ignore[override]
        return READS[self._problem]

    @property
    def targets(self) -> Texts:
        """How answers are read."""
        return Texts(self._problem, self.settings.several)

    def choices(self, model: Model) -> int:
        return 1  # however large the vocabulary is: the network knows it

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        guesses: tuple[str, ...] = ()
        self._draw = seed
        if self.settings.problem == "auto":
            target = settings.target if isinstance(settings.target, str) else None
            self._problem = told_by(data.opened(settings)["train"].columns, target)
            guesses = (f"Rows are read as task.problem={self._problem}, by their columns.",)
        self._insist_on_ends(settings.train)
        cells = LEARNS[self._problem]
        if self._problem in ("text", "chat"):
            found = data.load_unlabelled(settings, cache, seed, cells)
        else:
            found = data.load(settings, cache, seed, self.targets, cells)
        if self._problem != "text" and self.settings.written:
            metrics.insist()
        columns = dataclasses.replace(found.columns, guesses=(*guesses, *found.columns.guesses))
        return dataclasses.replace(found, problem=self._problem, columns=columns)

    def _insist_on_ends(self, source: str) -> None:
        """Raise SettingsError where ends are asked for, and nothing ends, or all that is learned does anyway."""
        if self.settings.ends and self._problem != "text":
            raise SettingsError("task.ends is for plain text: where answers end is always learned.", "Leave it away.")
        if self.settings.ends and source.lower().endswith(PLAIN):
            raise SettingsError(
                f"task.ends is true, but {source} is read in passages, which end nowhere.",
                "Leave it away, or give a table with a text in each row.",
            )

    def load_labelled(
        self, source: str, settings: DataSettings, columns: Columns, settled: Settled, cache: Path
    ) -> Canonical:
        kind = None if self._problem in ("text", "chat") else self.targets
        return data.load_labelled(source, settings, columns, settled, cache, LEARNS[self._problem], kind)

    def told(self) -> tuple[str, ...]:
        what = {
            "text": "Every token of the texts is learned, and where each ends."
            if self._ends
            else "Every token of the texts is learned, but not where they end (task.ends).",
            "completion": "Of each row the completion is learned, with the token that ends it, and nothing of the prompt.",
            "instruction": "Of each row the answer is learned, with what ends it, and nothing of the instruction.",
            "chat": "Of each chat the turns of the assistant are learned, with what ends them, and nothing else.",
        }
        return (what[self._problem],)

    def load_model(
        self,
        source: str | UserModel,
        labels: Sequence[str],
        *,
        seed: int,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        remote_code: bool = False,
    ) -> Model:
        model = super().load_model(source, labels, seed=seed, loading=loading, remote_code=remote_code)
        most = self.settings.max_new_tokens
        if most != "auto" and most >= model.limit:
            raise SettingsError(
                f"task.max_new_tokens is {most:,}, and prompt and answer together have {model.limit:,} tokens at most: "
                "nothing of a prompt could be read.",
                "Set it lower, or raise task.max_length where the model takes more.",
            )
        return self._set_up(model)

    def _set_up(self, model: Model) -> Model:
        self._tokenizer, self._limit = model.processor, model.limit
        if self._template is not None:
            model.processor.chat_template = template_for(model.processor, self._template)
        network: Any = model.module
        templated = self._templated(model) and bool(model.processor.chat_template)
        stopping = self._problem != "text" or self._ends
        if stopping and (ends := stops(model.processor, network.generation_config, templated=templated)):
            network.generation_config.eos_token_id = ends
        return model

    @property
    def _ends(self) -> bool:
        """Whether it is learned where a row of plain text ends."""
        return self._problem == "text" and self.settings.ends

    def _templated(self, model: Model) -> bool:
        """Whether a chat template writes the rows."""
        return self._problem == "chat" or (self._problem == "instruction" and bool(model.processor.chat_template))

    def calibrate(self, model: Model, train: Dialogue) -> None:
        """Let the network know how long its answers are."""
        network: Any = model.module
        network.generation_config.max_new_tokens = self._most(train, model.limit)

    def _most(self, train: Dialogue | None, limit: int) -> int:
        if self.settings.max_new_tokens != "auto":
            return int(self.settings.max_new_tokens)
        most = max(1, limit // SHARE_WRITTEN)
        if self._problem == "text" or train is None or not len(train):
            return min(OF_TEXTS, most)
        lengths = train.lengths - train.begins
        return min(usual_length(lengths[lengths > 0]), most)

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        return self._set_up(reload_language_model(folder, self.network, remote_code=remote_code))

    def encode(self, rows: pa.Table, model: Model) -> Dialogue:
        if self._problem == "text":
            end = model.processor.eos_token_id if self._ends else None
            if self._ends and end is None:
                raise ModelError(f"The tokenizer of {model.source} has no end-of-text token.", "Leave task.ends away.")
            return _of_text(next_tokens(model.processor, rows, model.limit, end))
        room = room_for(self._length(model), model.limit)
        shape = Shape(model.limit, self.settings.too_long, room, starts=not self._templated(model))
        refused: list[DataError] = []
        parts = parts_of(rows, self._problem, model.processor, str(model.source), refused)
        found = dialogue(model.processor, parts, shape, answers_of(rows, self._problem))
        why = f"Of none of the {rows.num_rows:,} rows anything that is to be learned stands within {model.limit:,} tokens."
        insist_on_some(len(found), rows.num_rows, refused, why)
        return dataclasses.replace(found, refused=[error.what for error in refused])

    def inputs(self, examples: Dialogue, indices: Indices, model: Model) -> Batch:  # type: ignore[override]
        if not examples.room:
            batch = super().inputs(examples, indices, model)
            return to_the_end(batch) if examples.plain else batch
        ids, positions, places = examples.laid_out(indices, model.processor.pad_token_id)
        # Where no mask is given, positions that begin anew are what keeps pieces apart.
        return {
            "input_ids": torch.from_numpy(ids),
            "position_ids": torch.from_numpy(positions),
            PLACES: torch.from_numpy(places),
        }

    def asked(self, examples: Dialogue, indices: Indices) -> Indices | None:
        return examples.wanted_of(indices)[0]

    def outcome(self, logits: torch.Tensor, examples: Dialogue, indices: Indices) -> torch.Tensor:  # type: ignore[override]
        whole = last_logits if examples.plain else super().outcome
        return whole(logits, examples, indices)

    def decode(self, examples: Dialogue, outcome: Array) -> Array:  # type: ignore[override]
        return outcome if examples.plain else super().decode(examples, outcome)

    def truncation(self, examples: Dialogue, model: Model) -> dict[str, Any]:
        """As for all texts, with what was cut from the start and from the end, how many rows have nothing to learn, and how
        many tokens of a prompt are read where an answer is to be written."""
        asked = self._problem != "text" and not examples.by_row.any()  # nothing is known to follow: it is to be written
        room = room_for(self._length(model), model.limit)
        found = truncation(examples, room if asked else model.limit)
        return found | {
            "prompt_tokens": room,
            "side": {"cut-prompt": "start of the prompt", "cut-answer": "end"}.get(self.settings.too_long, "none"),
            "tokens_cut_from_start": int(examples.cut[:, 0].sum()),
            "tokens_cut_from_end": int(examples.cut[:, 1].sum()),
            "rows_left_out": examples.left_out,
            "rows_refused": len(examples.refused),
            "refused": next(iter(examples.refused), None),
        }

    def packing(self, examples: Dialogue, model: Model) -> Packing | None:
        if self.settings.pack is False or not len(examples):
            return None
        wanted = self.settings.pack is True
        if not keeps_apart(self, examples, model):
            if wanted:
                raise SettingsError(
                    f"task.pack is true, but {type(model.module).__name__} does not keep rows of one sequence apart.",
                    "Leave it away.",
                )
            return None
        return Packing(model.limit, wanted, lambda shape: padding(examples.lengths, shape, self._draw))

    def packed(self, examples: Dialogue, tokens: int) -> Dialogue:
        return examples.packed(tokens)

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        raise NotImplementedError(f"{type(self).__name__} has a head already")  # as `Model.head` says

    def solved_on(self, examples: Dialogue) -> int:
        return 0

    def commonest(self, train: Dialogue, examples: Dialogue, model: Model) -> Array:
        """Each token by how often it is learned in train, whatever comes before."""
        config: Any = model.module.config
        told = train.wanted[train.wanted != NOTHING]
        losses = perplexity.by_frequency(told, config.get_text_config().vocab_size)
        piece, wanted = examples.wanted_of(np.arange(len(examples)))
        found = np.bincount(piece, weights=losses[wanted], minlength=len(examples))
        return super().decode(examples, found[:, None])

    def answered(
        self, model: Model, examples: Dialogue, logits: Array, precision: str, *, every: bool = False
    ) -> Array:
        """(rows, 2 + tokens), see tasks/written_outcomes.py; some rows are written, all where none has an answer yet."""
        most = self._length(model)
        pieces = np.unique(examples.owner, return_index=True)[1]  # the first of each row that has one
        pieces = pieces[examples.begins[pieces] > 0]  # without a prompt there is nothing to go on from
        if (examples.by_row > 0).any() and not every:
            count = SAMPLES if self._problem == "text" else self.settings.written
            drawn = seeds.generator(self._draw, "written rows").permutation(len(pieces))[:count]
            pieces = pieces[np.sort(drawn)]
        found = np.full((examples.rows, FIRST + most), UNWRITTEN, dtype=np.float64)
        found[:, LOSS], found[:, COUNT] = logits[:, LOSS], examples.by_row
        if len(pieces):
            prompts = [before(examples, piece) for piece in pieces.tolist()]
            found[examples.owner[pieces], FIRST:] = follow(model, prompts, most, precision)
        return found

    def _length(self, model: Model) -> int:
        """Tokens that are written, at most."""
        network: Any = model.module
        known = network.generation_config.max_new_tokens if self.settings.max_new_tokens == "auto" else None
        return int(known or self._most(None, model.limit))

    def _scores(self, examples: Dialogue, logits: Array) -> Array | None:
        """(rows, 2) of what is written, where something is and it is known what could be."""
        if examples.references is None or logits.shape[1] <= FIRST:
            return None
        return metrics.scored(texts(logits, self._tokenizer), examples.references)

    def intervals(  # type: ignore[override]
        self, examples: Dialogue, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        found = super().intervals(examples, logits, settings, seed, groups)
        scores = self._scores(examples, logits)
        return found if scores is None else {**found, **metrics.intervals(scores, **how(settings, seed, groups))}

    def fitted(self, examples: Dialogue, logits: Array) -> float | None:
        return None

    def details(self, examples: Dialogue, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        if logits.shape[1] <= FIRST or self._problem == "text":
            return {}
        written = logits[logits[:, FIRST] != UNWRITTEN, FIRST:]
        if not len(written):
            return {}
        ended = float((written == NONE).any(axis=1).mean())
        most = written.shape[1]
        long = examples.begins > room_for(most, self._limit)
        cut = np.bincount(examples.owner, weights=long, minlength=examples.rows) + examples.cut[:, 0] > 0
        prompts_cut = int((cut & (logits[:, FIRST] != UNWRITTEN)).sum())
        return {"writing": {"rows": len(written), "ended": ended, "max_new_tokens": most, "prompts_cut": prompts_cut}}

    def mistakes(
        self,
        rows: pa.Table,
        examples: Dialogue,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        return written_outcomes.mistakes(rows, examples, logits, self._tokenizer, most)

    def samples(
        self, rows: pa.Table, examples: Dialogue, said: Mapping[str, Array], model: Model
    ) -> list[dict[str, Any]]:
        return written_outcomes.samples(rows, examples, said, model.processor)

    def learned(self, rows: pa.Table, examples: Dialogue, model: Model) -> list[dict[str, Any]]:
        return [] if self._problem == "text" else written_outcomes.learned(rows, examples, model.processor)

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`prediction`: what is written, null where nothing was; `loss`, over `tokens`, where an answer is known."""
        return written_outcomes.predictions(rows, logits, self._tokenizer, answers_of(rows, self._problem))

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        return compared(first, second, how(settings, seed, groups))

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Dialogue]:
        """What stands before the answers, as text, and the tokens that the public loader makes of it."""
        examples = self.encode(rows, model)
        given = [model.processor.decode(_begun(examples, piece).tolist()) for piece in range(len(examples))]
        # What is read back need not have the same tokens; both are asked about the text.
        ids = [model.processor(text, truncation=True, max_length=model.limit)["input_ids"] for text in given]
        return [[text] for text in given], plain(ids)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.writing_code(model, folder, self._problem, chats=self._templated(model))


def _begun(examples: Dialogue, piece: int) -> Array:
    """What stands before the answer, or, where nothing does, the answer's first token."""
    start = int(examples.offsets[piece])
    return before(examples, piece) if examples.begins[piece] else examples.ids[start : start + 1]


def _of_text(asked: Asked) -> Dialogue:
    """Plain text, all of which is learned; seen as what goes on from its first tokens."""
    first = np.diff(asked.owner, prepend=-1) != 0
    begins = np.where(first, np.minimum(GONE_ON_FROM, (asked.lengths + 1) // 2), asked.lengths)
    given = {field.name: getattr(asked, field.name) for field in dataclasses.fields(asked)}
    return Dialogue(**given, begins=begins, cut=np.zeros((asked.rows, 2), dtype=np.int64), references=None)
