"""preference: a language model that is to like the answers that people chose better than those that they rejected.

Direct preference optimisation (Rafailov et al. 2023): each row is a prompt with both answers, and what counts is how their
log-probabilities have moved from where they were before training. Those of before are two numbers a row, computed once:
there is no second network, whatever trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from tunesmith import seeds
from tunesmith.contracts import Array, Batch, Indices, Loss, Model, Packing
from tunesmith.data import load as data
from tunesmith.data.canonical import Canonical
from tunesmith.data.cells.chats import ASSISTANT
from tunesmith.data.cells.preferences import ANSWERS, CHATS, TEXTS, Preferences, in_turns
from tunesmith.data.columns import Columns, choose
from tunesmith.data.dialogue import Dialogue
from tunesmith.data.pairs import CHOSEN, REJECTED, Pairs, pairs
from tunesmith.data.targets import Settled
from tunesmith.errors import DataError, SettingsError
from tunesmith.metrics import bootstrap
from tunesmith.metrics import preference as metrics
from tunesmith.metrics.interval import Interval
from tunesmith.models.dialogues import Shape, dialogue, loaded_turns
from tunesmith.models.forward import logits as passed
from tunesmith.models.writing import follow
from tunesmith.settings import Auto, DataSettings, EvaluateSettings
from tunesmith.tasks import tiny_preferences, tiny_prompts, written_outcomes
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.preference_losses import Name, Wanted, losses
from tunesmith.tasks.problems import how
from tunesmith.tasks.prompted import WritingSettings, insist_on_some, sides_of
from tunesmith.tasks.written_outcomes import FIRST, SAMPLES, UNWRITTEN, before

MARGIN, GROWN = 0, 1
"""The columns of an outcome: by how much more the log-probability of the chosen answer grew than that of the rejected one,
and by how much that of the chosen answer; from column `FIRST` on, what is written."""
SHOWN = 2
"""Pairs that the report shows in their tokens."""


class Preference(CausalLm):
    """Prompts with a chosen and a rejected answer."""

    name = "preference"
    primary_metric = metrics.PRIMARY
    constant = "longer"
    relative = True
    alike = True  # each pair counts once, however long it is
    rows_each = 2
    besides = (metrics.PRIMARY, "reward_margin", "reward_chosen", "reward_rejected")
    pace = 0.1  # what published recipes come to: docs/preference.md

    class Settings(WritingSettings):
        """Settings under `task:`."""

        problem: Auto | Literal["completion", "instruction", "chat"] = "auto"
        """What a row is: texts as they stand, an instruction with answers, put into a template, or turns of chats. `auto`
        tells by what the cells hold and the columns are called."""
        loss: Name = "dpo"
        """How pairs are learned: `dpo`; `ipo`, which asks for a margin and no more; or `hinge`, which ends at one."""
        beta: Annotated[float, Field(gt=0)] = 0.1
        """How much it costs to move away from the network from before training: the less, the further it may go."""
        label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
        """The share of pairs that are taken to be the wrong way round; of `dpo` alone."""
        sft: Annotated[float, Field(ge=0)] = 0.0
        """How much the chosen answers are learned as such too, so that they do not become less likely with the rejected."""

    def __init__(self, settings: Settings) -> None:
        """Raise SettingsError where a setting would do nothing."""
        super().__init__(settings)  # type: ignore[arg-type]  # it reads of them what both have
        if settings.label_smoothing and settings.loss != "dpo":
            raise SettingsError(
                f"task.label_smoothing is a part of the loss dpo, and task.loss is {settings.loss}.", "Leave it away."
            )
        self._problem = "completion" if settings.problem == "auto" else settings.problem
        self._wanted = Wanted(settings.loss, settings.beta, settings.label_smoothing, settings.sft)

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_prompts.write_gpt2(folder / "model")),
            "data": str(tiny_preferences.write_pairs(folder / "rows.jsonl")),
        }

    @property
    def _learns(self) -> Preferences:
        return CHATS if self._problem == "chat" else TEXTS

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        self._draw = seed
        guesses: tuple[str, ...] = ()
        if self.settings.problem == "auto":
            source = data.opened(settings)["train"]
            inputs = choose(source.columns, settings, source.name, TEXTS, None).inputs
            turns = in_turns(source, inputs)
            asked = len(inputs) == 3 and inputs[0].casefold() != "prompt"
            self._problem = "chat" if turns else "instruction" if asked else "completion"
            why = "cells hold lists of turns" if turns else f"the columns are {', '.join(inputs)}"
            guesses = (f"Rows are read as task.problem={self._problem}, as {why}.",)
        found = data.load_unlabelled(settings, cache, seed, self._learns)
        # What is asked is what new inputs have.
        columns = dataclasses.replace(
            found.columns,
            inputs=found.columns.inputs[:1],
            targets=found.columns.inputs[-2:],
            guesses=(*guesses, *found.columns.guesses),
        )
        told = {"inputs": list(columns.inputs), "targets": list(columns.targets), "guesses": list(columns.guesses)}
        audit = found.audit | {"columns": found.audit["columns"] | told}
        return dataclasses.replace(found, problem=self._problem, columns=columns, audit=audit)

    def load_labelled(
        self, source: str, settings: DataSettings, columns: Columns, settled: Settled, cache: Path
    ) -> Canonical:
        asked = tuple(name for name in columns.inputs if name not in columns.targets)
        whole = dataclasses.replace(columns, inputs=(*asked, *columns.targets), targets=())
        return data.load_labelled(source, settings, whole, settled, cache, self._learns, None)

    def told(self) -> tuple[str, ...]:
        own = self._wanted
        found = (
            f"Of each pair the answers are learned, by the loss {own.loss} with beta {own.beta:g}: how their "
            "log-probabilities move away from those before training, which were computed once.",
        )
        return (*found, f"To it comes {own.sft:g} times the loss of the chosen answer.") if own.sft else found

    def calibrate(self, model: Model, train: Any) -> None:
        super().calibrate(model, train.side(CHOSEN))

    def encode(self, rows: pa.Table, model: Model) -> Any:
        """Pairs, or prompts alone where `rows` have no answers."""
        if ANSWERS[0] not in rows.column_names:
            return super().encode(rows, model)
        templated = self._problem == "chat" or (self._problem == "instruction" and model.processor.chat_template)
        shape = Shape(model.limit, self.settings.too_long, starts=not templated, sides=2)
        refused: list[DataError] = []
        parts = sides_of(rows, self._problem, model.processor, str(model.source), refused)
        found = pairs(dialogue(model.processor, parts, shape, None))
        why = (
            f"Of none of the {rows.num_rows:,} pairs both answers begin within {model.limit:,} tokens and differ there."
        )
        insist_on_some(len(found), rows.num_rows, refused, why)
        return dataclasses.replace(found, refused=[error.what for error in refused])

    def anchored(self, examples: Pairs, original: Model, precision: str) -> Pairs:
        """`examples` with the log-probabilities of their answers under `original`."""
        nothing = examples.referred(np.zeros((len(examples), 2)))
        task: Any = self
        found = passed(task, original, nothing, precision)[examples.owner]
        return examples.referred(np.stack([found[:, GROWN], found[:, GROWN] - found[:, MARGIN]], axis=1))

    def asked(self, examples: Any, indices: Indices) -> Indices | None:
        return None  # the loss itself holds the answers near those of the network from before

    def packing(self, examples: Any, model: Model) -> Packing | None:
        return None  # a pair is two rows, which are measured together

    def inputs(self, examples: Any, indices: Indices, model: Model) -> Batch:
        if isinstance(examples, Pairs):
            return super().inputs(examples.both, examples.pieces(indices), model)
        return super().inputs(examples, indices, model)

    def outcome(self, logits: torch.Tensor, examples: Any, indices: Indices) -> torch.Tensor:
        """Of pairs (len(indices), 2): the log-probabilities of the chosen and of the rejected answer."""
        if isinstance(examples, Pairs):
            return -super().outcome(logits, examples.both, examples.pieces(indices)).reshape(-1, 2)
        return super().outcome(logits, examples, indices)

    def loss(self, logits: torch.Tensor, examples: Any, indices: Indices) -> Loss:
        now = self.outcome(logits, examples, indices)
        reference, tokens = (torch.from_numpy(one[indices]).to(now) for one in (examples.reference, examples.tokens))
        rewards = self._wanted.beta * (now.detach() - reference)
        margins = rewards[:, CHOSEN] - rewards[:, REJECTED]
        told = (torch.heaviside(margins, margins.new_tensor(0.5)), margins, rewards[:, CHOSEN], rewards[:, REJECTED])
        loss = losses(now, reference, tokens, self._wanted).sum()
        return Loss(loss, examples.count(indices), [one.sum() for one in told])

    def decode(self, examples: Any, outcome: Array) -> Array:
        """Of pairs (rows, 2): see `MARGIN` and `GROWN`; not a number where nothing of a row could be learned."""
        if not isinstance(examples, Pairs):
            return super().decode(examples, outcome)
        grown = outcome.astype(np.float64) - examples.reference
        found = np.full((examples.rows, 2), np.nan)
        found[examples.owner] = np.stack([grown[:, CHOSEN] - grown[:, REJECTED], grown[:, CHOSEN]], axis=1)
        return found

    def score(self, examples: Any, logits: Array) -> Mapping[str, float]:
        """The loss, the primary metric, and the rewards of both answers.

        Where nothing is known but which answer is preferred, the loss is that of a network that prefers neither.
        """
        reference, tokens = (torch.from_numpy(one) for one in (examples.reference, examples.tokens))
        margin, chosen = (torch.from_numpy(logits[examples.owner, column]) for column in (MARGIN, GROWN))
        grown = torch.where(chosen.isnan().unsqueeze(1), 0.0, torch.stack([chosen, chosen - margin], dim=1))
        loss = float(losses(reference + grown, reference, tokens, self._wanted).mean())
        values = self._by_row(examples, logits)
        shown = {self.primary_metric, "reward_margin", "reward_chosen", "reward_rejected"} & values.keys()
        return {"loss": loss} | {name: float(one.mean()) for name, one in values.items() if name in shown}

    def _by_row(self, examples: Pairs, logits: Array) -> dict[str, Array]:
        """The metrics of each pair."""
        margins, grown = logits[examples.owner, MARGIN], logits[examples.owner, GROWN]
        return metrics.by_row(margins, grown, examples.reference, examples.tokens, self._wanted.beta)

    def intervals(
        self, examples: Any, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        kept = None if groups is None else groups[examples.owner]
        return metrics.intervals(self._by_row(examples, logits), **how(settings, seed, kept))

    def difference(
        self, examples: Any, logits: Array, other: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Interval:
        kept = None if groups is None else groups[examples.owner]
        first, second = (self._by_row(examples, one)[self.primary_metric] for one in (logits, other))
        return bootstrap.paired_mean_difference(first, second, **how(settings, seed, kept))

    def truncation(self, examples: Any, model: Model) -> dict[str, Any]:
        """As for all that is written after prompts, of pairs; `sides`: of how many the one or the other answer was cut."""
        if not isinstance(examples, Pairs):
            return super().truncation(examples, model)
        cut = examples.both.lost.reshape(-1, 2) > 0
        rows = int(cut.any(axis=1).sum())
        return super().truncation(examples.both, model) | {
            "rows_cut": rows,
            "share": rows / max(1, examples.rows),
            "sides": {side: int(cut[:, place].sum()) for place, side in enumerate(ANSWERS)},
            "rows_left_out": examples.left_out,
            "rows_refused": len(examples.refused),
            "refused": next(iter(examples.refused), None),
        }

    def commonest(self, train: Any, examples: Any, model: Model) -> Array:
        """The longer answer is preferred, whatever it says."""
        found = np.full((examples.rows, 2), np.nan)
        found[examples.owner, MARGIN] = examples.whole[:, CHOSEN] - examples.whole[:, REJECTED]
        return found

    def answered(self, model: Model, examples: Any, logits: Array, precision: str, *, every: bool = False) -> Array:
        """(rows, 2 + tokens): some prompts of pairs are answered, or all, and all that stand alone."""
        most = self._length(model)
        found = np.full((examples.rows, FIRST + most), UNWRITTEN, dtype=np.float64)
        if isinstance(examples, Pairs):
            drawn = np.sort(
                seeds.generator(self._draw, "written rows").permutation(len(examples))[: None if every else SAMPLES]
            )
            rows, prompts = examples.owner[drawn], [examples.prompt(pair) for pair in drawn.tolist()]
            found[:, :FIRST] = logits
        else:
            rows, prompts = examples.owner, [before(examples, piece) for piece in range(len(examples))]
            found[:, :FIRST] = 0.0
        found[rows, FIRST:] = follow(model, prompts, most, precision)
        return found

    def details(self, examples: Any, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        return {}

    def mistakes(
        self, rows: pa.Table, examples: Any, logits: Array, labels: Sequence[str], fitted: float | None, most: int
    ) -> list[dict[str, Any]]:
        """The pairs of which the rejected answer is furthest ahead."""
        margins = np.nan_to_num(logits[:, MARGIN])
        order = np.argsort(margins, kind="stable")[: min(most, int((margins < 0).sum()))]
        beta = self._wanted.beta
        found = []
        for row, place in zip(rows.take(order).to_pylist(), order.tolist(), strict=True):
            reward = beta * float(logits[place, GROWN])
            margin = beta * float(logits[place, MARGIN])
            found.append(
                {
                    "id": row["id"],
                    **{name: self._readable(row[name]) for name in ("input", *ANSWERS)},
                    "rewards": [reward, reward - margin],
                    "margin": margin,
                }
            )
        return found

    def _readable(self, text: str) -> str:
        """A prompt or an answer for people: of turns who says what, unless one answer is all that there is."""
        if self._problem != "chat":
            return text
        turns = loaded_turns(text)
        if len(turns) == 1 and turns[0]["role"] == ASSISTANT:
            return turns[0]["content"]
        return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)

    def samples(
        self,
        rows: pa.Table,
        examples: Any,
        said: Mapping[str, Array],
        model: Model,
    ) -> list[dict[str, Any]]:
        return super().samples(rows, examples.side(CHOSEN), said, model)

    def learned(self, rows: pa.Table, examples: Any, model: Model) -> list[dict[str, Any]]:
        """The first pairs, the sequence with the chosen answer and then that with the rejected one."""
        found = [written_outcomes.learned(rows, examples.side(side), model.processor) for side in (CHOSEN, REJECTED)]
        return [
            {**one, "id": f"{one['id']}, {name}"}
            for pair in list(zip(*found, strict=True))[:SHOWN]
            for one, name in zip(pair, ANSWERS, strict=True)
        ]

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`prediction`: what is written; of pairs for a few alone, with `margin`, `reward_chosen` and `reward_rejected`."""
        if ANSWERS[0] not in rows.column_names:
            return super().predictions(rows, logits, labels, fitted)
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        columns["prediction"] = pa.array(written_outcomes.texts(logits, self._tokenizer), pa.string())
        margin, grown = (self._wanted.beta * logits[:, column] for column in (MARGIN, GROWN))
        rewards = {"margin": margin, "reward_chosen": grown, "reward_rejected": grown - margin}
        return pa.table(columns | {name: pa.array(one, from_pandas=True) for name, one in rewards.items()})

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        one, other = (metrics.hits(table.column("margin").to_numpy()) for table in (first, second))
        kept = ~(np.isnan(one) | np.isnan(other))
        groups = None if groups is None else groups[kept]
        return bootstrap.paired_mean_difference(one[kept], other[kept], **how(settings, seed, groups))

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Dialogue]:
        return super().tried(rows.drop_columns(list(ANSWERS)), model)
