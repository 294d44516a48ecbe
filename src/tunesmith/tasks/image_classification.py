"""image-classification: one label, several labels or a score for an image."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pydantic import Field

from tunesmith.contracts import Array, Batch, Indices, Loading, Model, Variation
from tunesmith.data import load as data
from tunesmith.data import picture
from tunesmith.data.cells.image import IMAGES
from tunesmith.data.pixels import Pixels
from tunesmith.errors import SettingsError
from tunesmith.models import pixels, save
from tunesmith.models.augment import SETS, Augment, described, insist_installed
from tunesmith.models.heads import make_exact
from tunesmith.models.layout import LAYOUT
from tunesmith.models.load_images import load_image_classifier, reading_of, reload_image_classifier
from tunesmith.models.user_network import NOTES, load_user_network, reload_user_network
from tunesmith.models.varied import varied
from tunesmith.settings import Auto, DataSettings, UserModel
from tunesmith.tasks import tiny_images
from tunesmith.tasks.classifying import Classifying, ClassifyingSettings

THUMBNAIL = 96
"""Pixels of the longer side, in the report."""
SHEET_ROWS, SHEET_VIEWS = 6, 6
"""Of the sheet of varied images."""
TRIED_SIDE = 256
"""Pixels of the longer side of images that the saved model is tried on."""


class ImageClassification(Classifying):
    """Images; what they share with other inputs lies in `tasks/classifying.py`."""

    name = "image-classification"
    cells = IMAGES

    class Settings(ClassifyingSettings):
        """Settings under `task:`."""

        image_size: Auto | Annotated[int, Field(ge=8, le=4096)] = "auto"
        """Pixels of the square images that the network is given; `auto`: as many as its processor says. Position embeddings
        are interpolated where that is needed."""
        augment: Literal["none", "light", "strong"] | Augment = "none"
        """How training images are varied: a name, or a mapping of what is to be done."""

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
        side = None if self.settings.image_size == "auto" else self.settings.image_size
        if isinstance(source, UserModel):
            if side is not None:
                raise SettingsError("task.image_size is for models with an image processor.", "Set model.size.")
            model = load_user_network(source, labels, name, seed=seed, loading=loading)
        else:
            model = load_image_classifier(
                source, labels, name, seed=seed, loading=loading, remote_code=remote_code, side=side
            )
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

    def variation(self, examples: Pixels) -> Variation | None:  # type: ignore[override]
        how = self._augment
        if not how.changes:
            return None
        insist_installed()
        return Variation(how.views, f"Training images are varied: {described(how)}.")

    def varied(self, examples: Pixels, views: int, seed: int) -> Pixels:  # type: ignore[override]
        return varied(examples, self._augment, views, seed)

    def shown_views(self, rows: pa.Table, examples: Pixels, views: int, seed: int) -> list[dict[str, Any]]:  # type: ignore[override]
        seen, count = varied(examples, self._augment, views, seed), len(examples)
        shown = []
        for row in np.unique(np.linspace(0, count - 1, SHEET_ROWS).astype(np.int64)):
            batch = seen.batch(row + count * np.arange(min(views, SHEET_VIEWS)))
            plain = (batch - examples.shift[:, None, None]) / examples.scale[:, None, None]
            images = [_data_uri(Image.fromarray(one)) for one in _as_bytes(plain, seen.values.dtype)]
            shown.append({"id": rows.column("id")[int(row)].as_py(), "images": images})
        return shown

    @property
    def _augment(self) -> Augment:
        wanted = self.settings.augment
        return wanted if isinstance(wanted, Augment) else SETS[wanted]

    def inputs(self, examples: Pixels, indices: Indices, model: Model) -> Batch:
        return {"pixel_values": torch.from_numpy(examples.batch(indices)).contiguous(memory_format=LAYOUT)}

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
    return _data_uri(picture.converted(picture.read(file), 3))


def _data_uri(image: Any) -> str:
    """A small copy."""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return f"data:image/jpeg;base64,{_encoded(image, 'JPEG')}"


def _as_bytes(values: Array, kind: Any) -> Array:
    """(images, height, width) or (…, 3) bytes from (images, channels, height, width) in the unit of `kind`."""
    if kind != np.uint8:
        low, high = values.min(), values.max()
        values = 255 * (values - low) / max(float(high - low), 1e-6)
    found = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return found[:, 0] if found.shape[1] == 1 else found.transpose(0, 2, 3, 1)


def _encoded(image: Any, kind: str) -> str:
    content = BytesIO()
    image.save(content, kind)
    return base64.b64encode(content.getvalue()).decode()
