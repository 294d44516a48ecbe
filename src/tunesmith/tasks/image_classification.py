"""image-classification: one label, several labels or a score for an image."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tunesmith.contracts import Batch, Indices, Loading, Model
from tunesmith.data import load as data
from tunesmith.data import picture
from tunesmith.data.cells.image import IMAGES
from tunesmith.data.pixels import Pixels
from tunesmith.models import pixels, save
from tunesmith.models.heads import make_exact
from tunesmith.models.load_images import load_image_classifier, reading_of, reload_image_classifier
from tunesmith.models.user_network import NOTES, load_user_network, reload_user_network
from tunesmith.settings import DataSettings, UserModel
from tunesmith.tasks import tiny_images
from tunesmith.tasks.classifying import Classifying, ClassifyingSettings

THUMBNAIL = 96
"""Pixels of the longer side, in the report."""
TRIED_SIDE = 256
"""Pixels of the longer side of images that the saved model is tried on."""


class ImageClassification(Classifying):
    """Images; what they share with other inputs lies in `tasks/classifying.py`."""

    name = "image-classification"
    cells = IMAGES

    class Settings(ClassifyingSettings):
        """Settings under `task:`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._kept: Path | None = None
        """Where pixels are kept while a run lasts; None where they are read for predictions."""

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_images.write_vit(folder / "model")),
            "data": str(tiny_images.write_images(folder / "images")),
        }

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        self._kept = cache / "pixels"
        return super().load_data(settings, cache, seed)

    def load_model(
        self,
        source: str | UserModel,
        labels: Sequence[str],
        *,
        seed: int,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        remote_code: bool = False,
    ) -> Model:
        name = self.problem.name
        if isinstance(source, UserModel):
            model = load_user_network(source, labels, name, seed=seed, loading=loading)
        else:
            model = load_image_classifier(source, labels, name, seed=seed, loading=loading, remote_code=remote_code)
        make_exact(model, self.problem.centre, self.problem.spread)
        return model

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        if (folder / NOTES).is_file():
            return reload_user_network(folder)
        return reload_image_classifier(folder, remote_code=remote_code)

    def encode(self, rows: pa.Table, model: Model) -> Pixels:
        files, contents = (rows.column(name).to_pylist() for name in ("file", "content"))
        return pixels.read_files(reading_of(model), files, contents, self.targets(rows, model), self._kept)

    def truncation(self, examples: Pixels, model: Model) -> None:
        return None

    def inputs(self, examples: Pixels, indices: Indices, model: Model) -> Batch:
        return {"pixel_values": torch.from_numpy(examples.batch(indices))}

    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        return [
            {"id": row["id"], "image": _thumbnail(Path(row["file"])), "file": row["input"]}
            for row in rows.select(["id", "input", "file"]).to_pylist()
        ]

    def tried(self, rows: pa.Table, model: Model, most: int) -> tuple[list[list[str]], Pixels]:
        reading = reading_of(model)
        raw, values = [], []
        for file in rows.column("file").slice(0, most).to_pylist():
            image = picture.converted(picture.read(Path(file)), reading.channels)
            image.thumbnail((TRIED_SIDE, TRIED_SIDE))
            raw.append([_encoded(image, "PNG")])
            values.append(reading.values(image))
        return raw, Pixels(np.stack(values), reading.scale, reading.shift, None, "tried")

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return save.loading_code(model, folder, self.problem.name, inputs)


def _thumbnail(file: Path) -> str:
    """A small copy as a data URI."""
    image = picture.converted(picture.read(file), 3)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return f"data:image/jpeg;base64,{_encoded(image, 'JPEG')}"


def _encoded(image: Any, kind: str) -> str:
    content = BytesIO()
    image.save(content, kind)
    return base64.b64encode(content.getvalue()).decode()
