"""image-classification: one label, several labels or a score for an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field

from tunesmith.contracts import Loading, Model
from tunesmith.data import load as data
from tunesmith.data.pixels import Pixels
from tunesmith.errors import SettingsError
from tunesmith.models import loading_code
from tunesmith.models.augment import SETS, Augment
from tunesmith.models.heads import make_exact
from tunesmith.models.load_images import load_image_classifier, reload_images
from tunesmith.models.user_network import NOTES, load_user_network, reload_user_network
from tunesmith.models.varied import varied
from tunesmith.settings import Auto, DataSettings, UserModel
from tunesmith.tasks import tiny_images
from tunesmith.tasks.classifying import Classifying, ClassifyingSettings
from tunesmith.tasks.reading_images import ReadingSettings, ReadsImages, data_uri, sheet, thumbnail


class ImageClassification(ReadsImages, Classifying):
    """Images; what they share with other inputs and other tasks lies in `classifying.py` and `reading_images.py`."""

    name = "image-classification"

    class Settings(ReadingSettings, ClassifyingSettings):
        """Settings under `task:`."""

        image_size: Auto | Annotated[int, Field(ge=8, le=4096)] = "auto"
        """Pixels of the square images that the network is given; `auto`: as many as its processor says. Position embeddings
        are interpolated where that is needed."""

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_images.write_vit(folder / "model")),
            "data": str(tiny_images.write_images(folder / "images")),
        }

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        self.kept = cache / "pixels"
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
        return reload_images(folder, remote_code=remote_code)

    @property
    def safe(self) -> Augment:
        """For scores colour alone: how many there are, how large, or at what angle, may be what the score says. Of several
        labels each may be about something small, which a crop would cut out."""
        light, kind = SETS["light"], self.problem.name
        if kind == "regression":
            return Augment(colour=light.colour)
        return light if kind == "single-label" else light.model_copy(update={"crop": 1.0})

    def encode(self, rows: pa.Table, model: Model) -> Pixels:
        return self.pixels(rows, model, self.answers(rows, model))

    def varied(self, examples: Pixels, views: int, seed: int) -> Pixels:
        return varied(examples, self.augment(examples), views, seed)

    def shown_views(self, rows: pa.Table, examples: Pixels, views: int, seed: int) -> list[dict[str, Any]]:
        seen = varied(examples, self.augment(examples), views, seed)
        return [
            {"id": name, "images": [data_uri(image) for image in images]}
            for name, _, images in sheet(rows, examples, seen, views)
        ]

    def shown(self, rows: pa.Table) -> list[dict[str, Any]]:
        return [
            {"id": row["id"], "image": thumbnail(Path(row["file"])), "file": row["input"]}
            for row in rows.select(["id", "input", "file"]).to_pylist()
        ]

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Pixels]:
        return self.tried_images(rows, model)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.classification_code(model, folder, self.problem.name, inputs)
