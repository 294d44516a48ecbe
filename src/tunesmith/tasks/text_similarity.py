"""text-similarity: which texts mean the same, or belong together.

The network gives each text a vector, and vectors are compared by their cosine, so that those of many texts can be kept and
searched. Data say what is alike by scores of pairs, by pairs that belong together, by triplets, or by labels
(`data/forms.py`); all losses compare the texts of a step with each other. Nothing is added to the network: it is saved as
sentence-transformers opens it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from tunesmith.contracts import Array, Batch, Batched, Features, Head, Indices, Loading, Loss, Model, Solved
from tunesmith.data import load as data
from tunesmith.data.cells.compared import COMPARED
from tunesmith.data.cells.text import TEXTS
from tunesmith.data.forms import LABELS, WITHOUT, form_of
from tunesmith.data.several_texts import SeveralTexts, numbered, side_by_side
from tunesmith.data.targets import Targets
from tunesmith.data.targets.alike import Alike, Together
from tunesmith.errors import ModelError, SettingsError
from tunesmith.metrics.interval import Interval
from tunesmith.models import loading_code, sentence_encoder
from tunesmith.models.forward import logits as logits_of
from tunesmith.models.heads import width_of
from tunesmith.models.load import limited
from tunesmith.models.pooling import FIRST, LAST, MEAN, OWN
from tunesmith.models.tokenize import Reading, tokenize, truncation
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, Strict, UserModel
from tunesmith.tasks import tiny, tiny_pairs
from tunesmith.tasks.found_likeness import Labelled, PositivePairs, Triplets
from tunesmith.tasks.likeness import Likeness
from tunesmith.tasks.problems import how
from tunesmith.tasks.scored_likeness import BinaryPairs, ScoredPairs
from tunesmith.tasks.separate import Separate

PROBLEMS: dict[str, type[Likeness]] = {
    kind.name: kind for kind in (ScoredPairs, BinaryPairs, PositivePairs, Triplets, Labelled)
}
POOLED_ROWS = 500
"""Training rows on which ways of pooling are compared."""


class TextSimilarity(Separate):
    """Texts that are compared."""

    name = "text-similarity"
    cells = COMPARED
    keeps_head = False
    compares = True

    class Settings(Strict):
        """Settings under `task:`."""

        problem: Auto | Literal["scored-pairs", "binary-pairs", "positive-pairs", "triplets", "labels"] = "auto"
        """How the data say what is alike; read off the columns when it is `auto`."""
        loss: Auto | Literal["cosent", "cosine", "ranking", "contrastive"] = "auto"
        """What teaches. Scores and 0 and 1: the order of pairs (cosent, the usual one) or their cosines themselves (cosine);
        pairs that belong together and triplets: one's own among all of the step (ranking); labels: contrastive."""
        scale: Auto | Annotated[float, Field(gt=0)] = "auto"
        """Of cosines in the loss, one over its temperature: 20, and 10 for contrastive, when it is `auto`."""
        together: Annotated[int, Field(ge=2)] = 4
        """Texts of one label that stand in a step together, where there are labels."""
        pooling: Auto | Literal["mean", "first", "last"] = "auto"
        """How the vectors of a text's tokens become one. `auto`: as the files of a sentence-transformers model say; otherwise
        what is best on training rows before training."""
        max_length: Auto | Annotated[int, Field(gt=0)] = "auto"
        """Longest text in tokens; the model's own limit, at most 512, when it is `auto`."""
        metric: Auto | str = "auto"
        """The primary metric, by which the best weights and the report's verdict go."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._likeness: Likeness | None = None
        self.pooled = ""
        """How the pooling came about, as a sentence."""
        self.settled = False
        """Whether user or files say how to pool."""
        self.unprompted: tuple[str, ...] = ()
        """What the model's files put before texts, and this does not, as a sentence."""

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny.write_bert(folder / "model")),
            "data": str(tiny_pairs.write_pairs(folder / "pairs.csv")),
        }

    @property
    def likeness(self) -> Likeness:
        if self._likeness is None:
            raise RuntimeError("the form of the data is known once they are loaded")
        return self._likeness

    def adopt(self, problem: str) -> None:
        """Raise SettingsError where the form of the data has not the metric, the loss or the scale that is set."""
        kind, wanted = PROBLEMS[problem], self.settings
        metric = kind.default_metric if wanted.metric == "auto" else wanted.metric
        loss = kind.losses[0] if wanted.loss == "auto" else wanted.loss
        for key, value, known in (("metric", metric, kind.selectable), ("loss", loss, kind.losses)):
            if value not in known:
                raise SettingsError(
                    f"task.{key} is {value!r}, which is none of {problem}.", f"Known there: {', '.join(known)}."
                )
        if loss == "cosine" and wanted.scale != "auto":
            raise SettingsError("task.scale is set, but task.loss=cosine has none.", "Leave it away.")
        self._likeness = kind(metric, loss, None if wanted.scale == "auto" else float(wanted.scale))

    @property
    def targets(self) -> Targets:
        """How targets are read, where there are any."""
        wanted = self.settings.problem if self._likeness is None else self.likeness.name
        return Together() if wanted == LABELS else Alike(None if wanted == "auto" else wanted)

    @property
    def primary_metric(self) -> str:
        return self.likeness.metric

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        form = form_of(settings, None if self.settings.problem == "auto" else self.settings.problem)
        if form.problem is not None:
            self.adopt(form.problem)
        if form.problem in WITHOUT:
            found = data.load_unlabelled(settings, cache, seed, self.cells)
        else:
            found = data.load(settings, cache, seed, self.targets, self.cells)
        if form.problem is None:
            assert found.problem is not None
            self.adopt(found.problem)
        columns = dataclasses.replace(found.columns, guesses=(*found.columns.guesses, *form.guesses))
        train = found.splits["train"]
        self.likeness.learn(train.column("target") if "target" in train.column_names else None)
        return dataclasses.replace(found, problem=self.likeness.name, columns=columns)

    def told(self) -> tuple[str, ...]:
        return (self.likeness.told(), self.pooled, *self.unprompted)

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
        wanted = None if self.settings.pooling == "auto" else self.settings.pooling
        model, self.settled = sentence_encoder.load_encoder(source, wanted, loading=loading, remote_code=remote_code)
        self.pooled = self._pooling_of(model, "task.pooling" if wanted else "the model's files say so")
        if prompt := sentence_encoder.usual_prompt(model.folder):
            self.unprompted = (
                f"The model's files put {prompt!r} before each text (default_prompt_name). That is not done here, nor by the "
                "saved model: write it into the texts if they are to begin so.",
            )
        return limited(model, self.settings.max_length)

    def _pooling_of(self, model: Model, why: str) -> str:
        module = model.module
        assert isinstance(module, sentence_encoder.SentenceEncoder)
        what = {MEAN: "the mean of its tokens' vectors", FIRST: "its first token's", LAST: "its last token's"}
        return f"The vector of a text is {what[module.how]} ({why})."

    def calibrate(self, model: Model, train: SeveralTexts) -> None:
        """Choose the pooling, where nobody says: the one that is best on some training rows, before anything is trained."""
        module = model.module
        assert isinstance(module, sentence_encoder.SentenceEncoder)
        if self.settled:
            return
        few = train.few(np.linspace(0, train.rows - 1, min(POOLED_ROWS, train.rows)).astype(np.int64))
        tried = {}
        for pooling in (MEAN, FIRST, LAST):
            module.how = pooling
            tried[pooling] = self.score(few, logits_of(cast("Any", self), model, few, "fp32"))[self.primary_metric]
        module.how = max(tried, key=tried.__getitem__)
        self.pooled = self._pooling_of(model, "the best on training rows before training; task.pooling sets another")

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        return sentence_encoder.reload_encoder(folder, remote_code=remote_code)

    def choices(self, model: Model) -> int:
        return 1

    def encode(self, rows: pa.Table, model: Model) -> SeveralTexts:
        columns = [rows.column(name) for name in TEXTS if name in rows.column_names]
        tokens = [
            tokenize(model.processor, pa.table({"input": column}), None, Reading(model.limit)) for column in columns
        ]
        return side_by_side(tokens, [column.to_pylist() for column in columns], self._truth(rows))

    def _truth(self, rows: pa.Table) -> Array | None:
        if "target" not in rows.column_names:
            return None
        kind = np.int64 if self.likeness.name == LABELS else np.float32
        return np.array(rows.column("target").to_numpy(), dtype=kind)

    def repeated(self, rows: pa.Table, others: pa.Table, threshold: float) -> int:
        if {name for name in TEXTS if (name in rows.column_names) != (name in others.column_names)}:
            return 0  # a text is no pair of texts
        return super().repeated(rows, others, threshold)

    def truncation(self, examples: SeveralTexts, model: Model) -> dict[str, Any]:
        return truncation(examples, model.limit)

    def inputs(self, examples: SeveralTexts, indices: Indices, model: Model) -> Batch:
        ids, mask, _ = examples.padded(indices, model.processor.pad_token_id)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def together(self, examples: SeveralTexts) -> int:
        return examples.apart

    def order(self, examples: SeveralTexts, seed: int, epoch: int) -> Indices | None:
        return self.likeness.order(examples, self.settings.together, seed, epoch)

    def read(self, output: Any) -> torch.Tensor:
        return output.logits.float()  # type: ignore[no-any-return]

    def loss(self, logits: torch.Tensor, examples: SeveralTexts, indices: Indices) -> Loss:
        """Of whole rows, whose texts stand among `indices` in any order."""
        order = np.argsort(indices)
        rows = examples.owner[indices[order][:: examples.apart]]
        vectors = logits[torch.from_numpy(order).to(logits.device)].reshape(len(rows), examples.apart, -1)
        return Loss(self.likeness.loss(vectors, examples, rows), examples.count(indices))

    def outcome(self, logits: torch.Tensor, examples: SeveralTexts, indices: Indices) -> torch.Tensor:
        return logits

    def decode(self, examples: SeveralTexts, logits: Array) -> Array:
        """(rows, texts × width)."""
        return logits.reshape(examples.rows, -1)

    def _vectors(self, logits: Array, texts: int) -> Array:
        """(rows, texts, width)."""
        return logits.reshape(len(logits), texts, -1)

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        """There is nothing to solve for: the network as it is."""
        found = logits_of(cast("Any", self), model, validation.examples, plan.precision, validation.collate)
        head = Head(OWN, np.zeros((0, width_of(model))), np.zeros(0))
        module = model.module
        assert isinstance(module, sentence_encoder.SentenceEncoder)
        return Solved(head, head, {module.how: self.score(validation.examples, found)[self.primary_metric]})

    def solved_on(self, examples: SeveralTexts) -> int:
        return 0

    def score(self, examples: SeveralTexts, logits: Array) -> Mapping[str, float]:
        vectors = self._vectors(logits, examples.apart)
        found = self.likeness.values(examples, vectors).get(self.primary_metric, 0.0)
        return {"loss": self.likeness.mean_loss(examples, vectors, self.settings.together), self.primary_metric: found}

    def commonest(self, train: SeveralTexts, examples: SeveralTexts, model: Model) -> Array:
        """The same vector for all."""
        width = width_of(model)
        return np.full((examples.rows, examples.apart * width), width**-0.5, dtype=np.float32)

    def intervals(
        self, examples: SeveralTexts, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        vectors = self._vectors(logits, examples.apart)
        return self.likeness.intervals(examples, vectors, **how(settings, seed, groups))

    def difference(
        self,
        examples: SeveralTexts,
        logits: Array,
        other: Array,
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        one, second = (self._vectors(found, examples.apart) for found in (logits, other))
        return self.likeness.difference(examples, one, second, **how(settings, seed, groups))

    def fitted(self, examples: SeveralTexts, logits: Array) -> float | None:
        found = self.likeness.fitted(examples, self._vectors(logits, examples.apart))
        self.keep(found)
        return found

    def keep(self, fitted: float | None) -> None:
        if fitted is not None:
            self.likeness.threshold = fitted

    def details(
        self, examples: SeveralTexts, logits: Array, labels: Sequence[str], fitted: float | None
    ) -> dict[str, Any]:
        return self.likeness.details(examples, self._vectors(logits, examples.apart))

    def mistakes(
        self,
        rows: pa.Table,
        examples: SeveralTexts,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        return self.likeness.mistakes(_in_words(rows, labels), examples, self._vectors(logits, examples.apart), most)

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`prediction`: how alike the texts of a pair are, 1 or 0 where that is asked, or the most similar other text; see
        docs/text-similarity.md."""
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        if "target" in rows.column_names:
            columns["truth"] = _in_words(rows, labels).column("target")
        same = numbered([rows.column(name).to_pylist() for name in TEXTS if name in rows.column_names])
        return pa.table(columns | self.likeness.columns(rows, same, self._vectors(logits, same.shape[1])))

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        return self.likeness.compared(first, second, **how(settings, seed, groups))

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], SeveralTexts]:
        texts = rows.column("input")
        return [[text] for text in texts.to_pylist()], self.encode(pa.table({"input": texts}), model)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.similarity_code(model, folder)


def _in_words(rows: pa.Table, labels: Sequence[str]) -> pa.Table:
    """`rows` with labels, where there are some, in the user's words."""
    if not labels or "target" not in rows.column_names:
        return rows
    names = pa.array([labels[index] for index in rows.column("target").to_pylist()], pa.string())
    return rows.set_column(rows.schema.get_field_index("target"), "target", names)
