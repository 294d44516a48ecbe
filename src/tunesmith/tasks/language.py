"""What language models share, whether they tell the next token or a hidden one: reading texts, and perplexity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch.nn import functional

from tunesmith.contracts import Array, Batch, Indices, Loading, Loss, Model
from tunesmith.data.asked import Asked
from tunesmith.data.cells import Cells
from tunesmith.data.cells.text import ONE_TEXT
from tunesmith.data.load import Dataset, load_unlabelled
from tunesmith.errors import ModelError
from tunesmith.metrics import perplexity
from tunesmith.metrics.interval import Interval
from tunesmith.models.load import limited
from tunesmith.models.load_language import load_language_model
from tunesmith.models.told_places import PLACES, a_few
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, Strict, UserModel
from tunesmith.tasks.problems import how


class LanguageSettings(Strict):
    """Settings that every language model has."""

    max_length: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Tokens of a window; the model's own limit, at most 512, when it is `auto`."""


class Language(ABC):
    """A network that gives a logit to each token of the vocabulary, and texts without labels."""

    cells: Cells = ONE_TEXT
    keeps_head = True
    compares = False
    besides: Sequence[str] = ()
    alike = False
    relative: ClassVar[bool] = False
    writes: bool = False
    network: ClassVar[Any]
    """transformers' class."""
    new_head: ClassVar[bool] = False
    """Whether the head may be new; otherwise files without one are refused."""
    name: ClassVar[str]
    primary_metric: ClassVar[str]

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> Dataset:
        return load_unlabelled(settings, cache, seed, self.cells)

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
        model = load_language_model(
            source, self.network, seed=seed, loading=loading, remote_code=remote_code, new_head=self.new_head
        )
        return limited(model, self.settings.max_length)

    @abstractmethod
    def encode(self, rows: pa.Table, model: Model) -> Asked:
        """`rows` in windows, with what the network is asked for."""

    def inputs(self, examples: Asked, indices: Indices, model: Model) -> Batch:
        ids, mask, _ = examples.padded(indices, model.processor.pad_token_id)
        places = torch.from_numpy(examples.asked_at(indices))
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), PLACES: places}

    def read(self, output: Any) -> torch.Tensor:
        return output.logits  # type: ignore[no-any-return]  # over a whole vocabulary: fp32 comes a few tokens at a time

    def outcome(self, logits: torch.Tensor, examples: Asked, indices: Indices) -> torch.Tensor:
        """(len(indices), 1): the loss of each piece, summed over the tokens that it stands for."""
        piece, wanted = (torch.from_numpy(one).to(logits.device) for one in examples.wanted_of(indices))
        found = logits.new_zeros(len(indices), dtype=torch.float32)
        for some, owner, told in a_few(logits, piece, wanted):
            found = found.index_add(0, owner, functional.cross_entropy(some.float(), told, reduction="none"))
        scale = torch.from_numpy(examples.scale[indices]).to(logits.device)
        return (found * scale).unsqueeze(1)

    def loss(self, logits: torch.Tensor, examples: Asked, indices: Indices) -> Loss:
        return Loss(self.outcome(logits, examples, indices).sum(), examples.count(indices))

    def decode(self, examples: Asked, outcome: Array) -> Array:
        """(rows, 1): the loss of each row, summed over its tokens."""
        return np.bincount(examples.owner, weights=outcome[:, 0], minlength=examples.rows)[:, None]

    def levelled(self, logits: Array, validation: Callable[[], tuple[Any, Array]]) -> Array:
        return logits

    def score(self, examples: Asked, logits: Array) -> Mapping[str, float]:
        found = perplexity.perplexity(logits[:, 0], examples.by_row)
        return {"loss": float(np.log(found)), self.primary_metric: found}

    def intervals(
        self, examples: Asked, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        found = perplexity.interval(logits[:, 0], examples.by_row, **how(settings, seed, groups))
        return {self.primary_metric: found}

    def difference(
        self, examples: Asked, logits: Array, other: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Interval:
        return perplexity.difference(logits[:, 0], other[:, 0], examples.by_row, **how(settings, seed, groups))


def to_the_end(batch: Batch) -> Batch:
    """`batch` with logits everywhere, as the public loader's are."""
    return {key: value for key, value in batch.items() if key != PLACES}


def last_logits(logits: torch.Tensor, examples: Asked, indices: Indices) -> torch.Tensor:
    """(len(indices), vocabulary) after the last token of each piece, fp32."""
    last = torch.from_numpy(examples.lengths[indices] - 1).to(logits.device)
    return logits[torch.arange(len(indices), device=logits.device), last].float()


def compared(first: pa.Table, second: pa.Table, drawn: Mapping[str, Any]) -> Interval:
    """Perplexity of the predictions in `first`, with the columns loss and tokens, minus that of those in `second`; each over
    its own tokens, which other tokenizers and windows make others of the same text."""
    (one, tokens), (other, others) = (
        (table.column("loss").to_numpy(), table.column("tokens").to_numpy()) for table in (first, second)
    )
    return perplexity.difference(one, other, tokens, others, **drawn)
