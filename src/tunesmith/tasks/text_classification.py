"""text-classification: one label, several labels or a score for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import torch
from pydantic import Field

from tunesmith.contracts import Batch, Indices, Loading, Model
from tunesmith.data.cells.text import TEXT
from tunesmith.data.tokens import Tokens
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import loading_code
from tunesmith.models.heads import make_exact
from tunesmith.models.load import limited, load_classifier
from tunesmith.models.reload import reload
from tunesmith.models.tokenize import Reading, tokenize, truncation
from tunesmith.settings import Auto, UserModel
from tunesmith.tasks import tiny
from tunesmith.tasks.classifying import Classifying, ClassifyingSettings


class TextClassification(Classifying):
    """Texts and pairs of texts; what they share with other inputs lies in `tasks/classifying.py`."""

    name = "text-classification"
    cells = TEXT

    class Settings(ClassifyingSettings):
        """Settings under `task:`."""

        max_length: Auto | Annotated[int, Field(gt=0)] = "auto"
        """Longest input in tokens; the model's own limit, at most 512, when it is `auto`."""
        long_text: Literal["cut", "windows"] = "cut"
        """What becomes of longer texts: cut at the end, or read in overlapping windows whose outputs are averaged."""

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {"model": str(tiny.write_bert(folder / "model")), "data": str(tiny.write_rows(folder / "rows.csv"))}

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
                "model.python builds networks that read images, and this task reads text.",
                "Give a folder or Hub id, or set task=image-classification.",
            )
        model = load_classifier(source, labels, self.problem.name, seed=seed, loading=loading, remote_code=remote_code)
        make_exact(model, self.problem.centre, self.problem.spread)
        return limited(model, self.settings.max_length, ", or task.long_text=windows")

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        return reload(folder, remote_code=remote_code)

    def encode(self, rows: pa.Table, model: Model) -> Tokens:
        windows = self.settings.long_text == "windows"
        if windows and "pair" in rows.column_names:
            raise SettingsError("task.long_text=windows reads single texts only.", "Use task.long_text=cut for pairs.")
        return tokenize(model.processor, rows, self.answers(rows, model), Reading(model.limit, windows))

    def truncation(self, examples: Tokens, model: Model) -> dict[str, Any]:
        return truncation(examples, model.limit)

    def inputs(self, examples: Tokens, indices: Indices, model: Model) -> Batch:
        ids, mask, kinds = examples.padded(indices, model.processor.pad_token_id)
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if examples.kinds is not None:
            batch["token_type_ids"] = torch.from_numpy(kinds)
        return batch

    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        columns = [name for name in ("id", "input", "pair") if name in rows.column_names]
        return [
            {"text" if key == "input" else key: value for key, value in seen.items()}
            for seen in rows.select(columns).to_pylist()
        ]

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Tokens]:
        names = [name for name in ("input", "pair") if name in rows.column_names]
        raw = [[row[name] for name in names] for row in rows.select(names).to_pylist()]
        return raw, tokenize(model.processor, rows, None, Reading(model.limit))

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.classification_code(model, folder, self.problem.name, inputs)
