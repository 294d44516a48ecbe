"""What all tasks share that read images: how files become pixels, how these are varied, and how images are shown."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pydantic import BeforeValidator

from tunesmith.contracts import Array, Batch, Indices, Model, Variation
from tunesmith.data import picture
from tunesmith.data.cells import Cells
from tunesmith.data.cells.image import IMAGES
from tunesmith.data.pixels import Pixels
from tunesmith.models import pixels
from tunesmith.models.augment import SETS, Augment, described, insist_installed
from tunesmith.models.layout import LAYOUT
from tunesmith.models.load_images import reading_of
from tunesmith.settings import Strict
from tunesmith.tasks.separate import Separate

THUMBNAIL = 96
"""Pixels of the longer side, in the report."""
SHEET_ROWS, SHEET_VIEWS = 6, 6
"""Of the sheet of varied images."""
Named = Annotated[str, BeforeValidator(lambda name: str(name) if isinstance(name, int) else name)]
"""A class; YAML reads such as 0 and 1 as numbers."""
FEW = 5_000
"""Training images, of which some see each often enough to learn it by heart."""
TRIED_SIDE = 256
"""Pixels of the longer side of images that the saved model is tried on."""


class ReadingSettings(Strict):
    """Settings that every task of the family has."""

    augment: Literal["none", "auto", "light", "strong"] | Augment = "none"
    """How training images are varied: a name, or a mapping of what is to be done. `auto`: lightly where they are few, by what
    leaves the targets of the task true."""


class ReadsImages(Separate):
    """A task whose inputs are images. `settings` have `augment`."""

    cells: ClassVar[Cells] = IMAGES
    settings: Any
    kept: Path | None = None
    """Where pixels are kept while a run lasts; None where they are read for predictions."""
    _unkept = False
    """Whether there was no room for them."""

    def pixels(self, rows: pa.Table, model: Model, targets: Array | None) -> Pixels:
        """The images of `rows` as the network takes them."""
        files, contents = (rows.column(name).to_pylist() for name in ("file", "content"))
        found = pixels.read_files(reading_of(model), files, contents, targets, self.kept)
        self._unkept |= self.kept is not None and isinstance(found.values, pixels.Decoded)
        return found

    def noted(self) -> tuple[str, ...]:
        if not self._unkept:
            return ()
        return (
            "The disk has too little room for the pixels of all images: each is decoded anew whenever it is passed.",
        )

    def repeated(self, rows: pa.Table, others: pa.Table, threshold: float) -> int:
        if "file" not in rows.column_names or "file" not in others.column_names:
            return 0  # a text is no image
        return super().repeated(rows, others, threshold)

    def truncation(self, examples: Pixels, model: Model) -> None:
        return None

    def variation(self, examples: Any) -> Variation | None:
        how = self.augment(examples)
        if not how.changes:
            return None
        insist_installed()
        few = f", as they are fewer than {FEW:,}" if self.settings.augment == "auto" else ""
        return Variation(how.views, f"Training images are varied{few}: {described(how)}.")

    def augment(self, examples: Pixels) -> Augment:
        """How the training images `examples` are varied. Nothing is mirrored unasked: left and right may mean something."""
        wanted = self.settings.augment
        if wanted == "auto":
            return self.safe if examples.rows < FEW else SETS["none"]
        return wanted if isinstance(wanted, Augment) else SETS[wanted]

    @property
    def safe(self) -> Augment:
        """What of `light` leaves every target of the task true."""
        return SETS["light"]

    def inputs(self, examples: Pixels, indices: Indices, model: Model) -> Batch:
        return {"pixel_values": torch.from_numpy(examples.batch(indices)).contiguous(memory_format=LAYOUT)}

    def tried_images(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Pixels]:
        """Small copies of the images, as PNG in text, and what the network is given of these."""
        reading = reading_of(model)
        raw, values = [], []
        for file in rows.column("file").to_pylist():
            image = picture.converted(picture.read(Path(file)), reading.channels)
            image.thumbnail((TRIED_SIDE, TRIED_SIDE))
            raw.append([encoded(image, "PNG")])
            values.append(reading.values(image))
        return raw, Pixels(np.stack(values), reading.scale, reading.shift, None, "tried")


def sheet(rows: pa.Table, plain: Pixels, seen: Pixels, views: int) -> list[tuple[str, Indices, list[Any]]]:
    """Some training rows in some of their views: the id, the examples of `seen` that these are, and the images."""
    count, found = len(plain), []
    for row in np.unique(np.linspace(0, count - 1, SHEET_ROWS).astype(np.int64)):
        chosen = row + count * np.arange(min(views, SHEET_VIEWS))
        unscaled = (seen.batch(chosen) - plain.shift[:, None, None]) / plain.scale[:, None, None]
        images = [Image.fromarray(one) for one in _as_bytes(unscaled, seen.values.dtype)]
        found.append((rows.column("id")[int(row)].as_py(), chosen, images))
    return found


def thumbnail(file: Path) -> str:
    """A small copy of an image file, as a data URI."""
    return data_uri(picture.converted(picture.read(file), 3))


def data_uri(image: Any) -> str:
    """A small copy."""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return uri(image)


def uri(image: Any) -> str:
    """An image as it is, as a data URI."""
    return f"data:image/jpeg;base64,{encoded(image, 'JPEG')}"


def sizes_of(rows: pa.Table) -> Indices:
    """(rows, 2) height and width of the images."""
    return np.stack([rows.column(name).to_numpy() for name in ("height", "width")], axis=1).astype(np.int64)


def encoded(image: Any, kind: str) -> str:
    """An image as a file of this kind, in text."""
    content = BytesIO()
    image.save(content, kind)
    return base64.b64encode(content.getvalue()).decode()


def _as_bytes(values: Array, kind: Any) -> Array:
    """(images, height, width) or (…, 3) bytes from (images, channels, height, width) in the unit of `kind`."""
    if kind != np.uint8:
        low, high = values.min(), values.max()
        values = 255 * (values - low) / max(float(high - low), 1e-6)
    found = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return found[:, 0] if found.shape[1] == 1 else found.transpose(0, 2, 3, 1)
