"""masked-lm: a network that tells hidden words from those around them, and so learns the language of a field from its texts.

Whole words are hidden (data/masked.py), other ones in each epoch; those of validation and test are drawn once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from torch.nn import functional

from tunesmith.contracts import Array, Batch, Batched, Examples, Features, Indices, Loss, Model, Solved, Variation
from tunesmith.data.dialogue import Dialogue, plain
from tunesmith.data.load import Dataset
from tunesmith.data.masked import MASKED, NO_WORD, RANDOM, SHARE, Masked, Views
from tunesmith.data.targets.texts import Texts
from tunesmith.errors import ModelError
from tunesmith.metrics import hidden as metrics
from tunesmith.metrics import perplexity
from tunesmith.metrics.interval import Interval
from tunesmith.models import loading_code
from tunesmith.models.hidden_words import hidden_words
from tunesmith.models.reload import reload_language_model
from tunesmith.models.tokenize import truncation
from tunesmith.models.told_places import a_few
from tunesmith.plans import Phase, Plan
from tunesmith.settings import DataSettings, EvaluateSettings
from tunesmith.tasks import hidden_outcomes, tiny_hidden
from tunesmith.tasks.hidden_outcomes import LOSS, RIGHT
from tunesmith.tasks.language import Language, LanguageSettings, compared, last_logits, to_the_end
from tunesmith.tasks.problems import how
from tunesmith.tasks.separate import Separate

PROBLEM = "text"
DRAW = 0
"""What words of validation and test are drawn by, whatever the seed of a run: other runs and `evaluate` ask for the same."""


class MaskedLm(Separate, Language):
    """Texts without labels."""

    name = "masked-lm"
    primary_metric = metrics.PERPLEXITY
    network = transformers.AutoModelForMaskedLM
    new_head = True
    constant = "frequencies"

    class Settings(LanguageSettings):
        """Settings under `task:`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._tokenizer: Any = None
        self._head_is_new = False

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_hidden.write_masked_bert(folder / "model")),
            "data": str(tiny_hidden.write_texts(folder / "texts.csv")),
        }

    def adopt(self, problem: str) -> None:
        return

    @property
    def targets(self) -> Texts:
        """There are none to be read."""
        return Texts(PROBLEM)

    def choices(self, model: Model) -> int:
        return 1  # however large the vocabulary is: the embeddings know it

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> Dataset:
        return dataclasses.replace(super().load_data(settings, cache, seed), problem=PROBLEM)

    def load_model(self, *given: Any, **more: Any) -> Model:
        model = self._set_up(super().load_model(*given, **more))
        self._head_is_new = model.head == "new"
        return model

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        return self._set_up(reload_language_model(folder, self.network, remote_code=remote_code))

    def _set_up(self, model: Model) -> Model:
        if model.processor.mask_token_id is None:
            raise ModelError(f"The tokenizer of {model.source} has no mask token.", "Use task: causal-lm.")
        self._tokenizer = model.processor
        return model

    def told(self) -> tuple[str, ...]:
        new = "The files hold no head that tells hidden words, so it is new; its matrix is that of the embeddings."
        return (new,) if self._head_is_new else ()

    def encode(self, rows: pa.Table, model: Model) -> Masked:
        found = hidden_words(model.processor, rows, model.limit, DRAW)
        if not found.own_masks().any():
            metrics.insist(found.by_row)
        return found

    def inputs(self, examples: Any, indices: Indices, model: Model) -> Batch:
        if isinstance(examples, Dialogue):
            return to_the_end(super().inputs(examples, indices, model))
        found, pieces = examples.drawn(indices)
        return super().inputs(found, pieces, model)

    def outcome(self, logits: torch.Tensor, examples: Any, indices: Indices) -> torch.Tensor:
        """(len(indices), 2): the loss of each piece over its hidden tokens, and how many of them are told."""
        if isinstance(examples, Dialogue):
            return last_logits(logits, examples, indices)
        found, pieces = examples.drawn(indices)
        piece, wanted = (torch.from_numpy(one).to(logits.device) for one in found.wanted_of(pieces))
        kept = logits.new_zeros(len(indices), 2, dtype=torch.float32)
        for some, owner, told in a_few(logits, piece, wanted):
            losses = functional.cross_entropy(some.float(), told, reduction="none")
            right = (some.argmax(dim=1) == told).float()
            kept = kept.index_add(0, owner, torch.stack([losses, right], dim=1))
        return kept

    def loss(self, logits: torch.Tensor, examples: Any, indices: Indices) -> Loss:
        return Loss(self.outcome(logits, examples, indices)[:, LOSS].sum(), examples.count(indices))

    def decode(self, examples: Any, outcome: Array) -> Array:
        """(rows, 2): the same of each row."""
        if isinstance(examples, Dialogue):
            return outcome
        summed = [np.bincount(examples.owner, weights=column, minlength=examples.rows) for column in outcome.T]
        return np.stack(summed, axis=1)

    def truncation(self, examples: Masked, model: Model) -> dict[str, Any]:
        """As for all texts, with how many rows have no word to tell."""
        return truncation(examples, model.limit) | {"rows_left_out": examples.left_out}

    def variation(self, examples: Masked) -> Variation:
        metrics.insist(examples.by_row)  # masks of their own are all that some texts have
        return Variation(
            None,
            f"{100 * SHARE:.0f} % of the words of each window are hidden, others in each epoch, and told from the rest: "
            f"{100 * MASKED:.0f} % behind the mask, {100 * RANDOM:.0f} % behind random tokens; the others are shown.",
        )

    def varied(self, examples: Masked, views: int, seed: int) -> Examples:
        return Views(examples, views, seed)

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        raise NotImplementedError(f"{type(self).__name__} has a head already")  # as `Model.head` says

    def solved_on(self, examples: Masked) -> int:
        return 0

    def commonest(self, train: Masked, examples: Masked, model: Model) -> Array:
        """Each token by how often it stands in train, whatever stands around it."""
        config: Any = model.module.config
        shown = train.whole[train.words != NO_WORD]
        losses = perplexity.by_frequency(shown, config.get_text_config().vocab_size)
        piece, wanted = examples.wanted_of(np.arange(len(examples)))
        found = np.zeros((len(examples), 2))
        np.add.at(found, piece, np.stack([losses[wanted], wanted == losses.argmin()], axis=1))
        return self.decode(examples, found)

    def answered(self, model: Model, examples: Masked, logits: Array, precision: str, *, every: bool = False) -> Array:
        """(rows, 2 + tokens), see tasks/hidden_outcomes.py."""
        return np.concatenate([logits, hidden_outcomes.said(self, model, examples, precision)], axis=1)

    def score(self, examples: Masked, logits: Array) -> Mapping[str, float]:  # type: ignore[override]
        found = perplexity.perplexity(logits[:, LOSS], examples.by_row)
        return {"loss": float(np.log(found)), self.primary_metric: found}

    def intervals(  # type: ignore[override]
        self, examples: Masked, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        return metrics.intervals(logits[:, LOSS], logits[:, RIGHT], examples.by_row, **how(settings, seed, groups))

    def fitted(self, examples: Masked, logits: Array) -> float | None:
        return None

    def details(self, examples: Masked, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        return {"hidden": {"tokens": int(examples.by_row.sum()), "rows_left_out": examples.left_out}}

    def mistakes(
        self,
        rows: pa.Table,
        examples: Masked,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        return []  # another word may do as well: `samples` shows what is said

    def samples(
        self, rows: pa.Table, examples: Masked, said: Mapping[str, Array], model: Model
    ) -> list[dict[str, Any]]:
        return hidden_outcomes.samples(rows, examples, said, model.processor)

    def learned(self, rows: pa.Table, examples: Masked, model: Model) -> list[dict[str, Any]]:
        return hidden_outcomes.learned(rows, examples, model.processor)

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`prediction`: the text, or its first window, with the words that are told; `loss` and `right`, over `tokens`."""
        return hidden_outcomes.predictions(rows, logits, self._tokenizer)

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
        """The texts as they are, and the tokens that the public loader makes of them."""
        texts = rows.column("input").to_pylist()
        ids = [model.processor(text, truncation=True, max_length=model.limit)["input_ids"] for text in texts]
        return [[text] for text in texts], plain(ids)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.filling_code(model, folder)
