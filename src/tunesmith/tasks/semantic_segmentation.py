"""semantic-segmentation: a class for every pixel of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from tunesmith.contracts import Array, Batched, Features, Indices, Loading, Loss, Model, Solved
from tunesmith.data import load as data
from tunesmith.data import picture
from tunesmith.data.segments import Segments
from tunesmith.data.targets.masks import PROBLEM, VOID, Masks, unpacked
from tunesmith.errors import ModelError
from tunesmith.metrics import by_class, segmentation
from tunesmith.metrics.interval import Interval
from tunesmith.models import loading_code, part_probe, pixel_probe
from tunesmith.models.heads import make_exact, outputs_of
from tunesmith.models.load_images import reload_images
from tunesmith.models.load_segmenter import KIND, load_segmenter
from tunesmith.models.pixels import with_masks
from tunesmith.models.running_statistics import fresh_norms, reestimate
from tunesmith.models.varied import varied_segments
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, UserModel
from tunesmith.tasks import mask_outcomes, overlays, tiny_masks
from tunesmith.tasks.classifying import ByClass, weights_of
from tunesmith.tasks.problems import how
from tunesmith.tasks.reading_images import Named, ReadingSettings, ReadsImages, data_uri, encoded, sheet, sizes_of, uri

Side = Annotated[int, Field(ge=8, le=4096)]
METRICS = ("mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy")
CALIBRATED = 32
"""Training images from which a new head's normalisations take their statistics."""
TOGETHER = 4
"""Of these in one pass; one alone has no variance where a head pools the whole map."""


class SemanticSegmentation(ReadsImages):
    """Images with masks."""

    name = "semantic-segmentation"
    keeps_head = False

    class Settings(ReadingSettings):
        """Settings under `task:`."""

        classes: list[Named] | str | None = None
        """Names of the classes by index, or a file with one a line, perhaps with the three numbers of its colour; looked
        for beside the data when absent."""
        ignore: list[int] = Field(default=[])
        """Values of masks that mean "not labelled", beside 255."""
        class_weights: ByClass = "none"
        """How much the pixels of each class count in the loss: alike, by one over the root of the class's share, by one over
        its share, or as a mapping from class to weight says. The mean over all training pixels is always 1."""
        image_size: Auto | Side | tuple[Side, Side] = "auto"
        """Pixels of what the network is given, one side or [height, width]; images are resized to it, nothing is cropped.
        `auto`: as its processor says."""
        metric: Literal["mean_iou", "mean_dice", "pixel_accuracy", "mean_accuracy"] = "mean_iou"
        """The primary metric, by which the best weights and the report's verdict go."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._class_weights: torch.Tensor | None = None

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_masks.write_segformer(folder / "model")),
            "data": str(tiny_masks.write_masks(folder / "rows")),
        }

    def adopt(self, problem: str) -> None:
        assert problem == PROBLEM

    @property
    def targets(self) -> Masks:
        """How masks are read."""
        return Masks(self.settings.classes, self.settings.ignore)

    @property
    def primary_metric(self) -> str:
        return str(self.settings.metric)

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        self.kept = cache / "pixels"
        found = data.load(settings, cache, seed, self.targets, self.cells)
        if self.settings.class_weights != "none":
            counts = np.zeros(len(found.labels))
            for target in found.splits["train"].column("target").to_pylist():  # images count alike, whatever their size
                mask = unpacked(target["mask"])
                counts += np.bincount(mask[mask != VOID], minlength=len(counts)) / mask.size
            self._class_weights = torch.from_numpy(weights_of(self.settings.class_weights, counts, found.labels))
        return found

    def weighed(self) -> tuple[str, ...]:
        if self._class_weights is None:
            return ()
        low, high = (float(end) for end in (self._class_weights.min(), self._class_weights.max()))
        return (f"Pixels count by their class, from {low:.2g} to {high:.2g} (task.class_weights).",)

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
                "model.python builds networks that give one answer an image, and this task wants one a pixel.",
                "Give a folder or Hub id.",
            )
        wanted = self.settings.image_size
        size = None if wanted == "auto" else (wanted, wanted) if isinstance(wanted, int) else wanted
        model = load_segmenter(source, labels, seed=seed, loading=loading, remote_code=remote_code, size=size)
        make_exact(model)
        return model

    def calibrate(self, model: Model, train: Segments) -> None:
        """A new head's normalisations know nothing of what they will receive; a few images tell."""
        if norms := fresh_norms(model):
            rows = np.unique(np.linspace(0, train.rows - 1, min(CALIBRATED, train.rows)).astype(np.int64))
            parts = [part for part in np.array_split(rows, -(-len(rows) // TOGETHER)) if len(part)]
            reestimate(model.module, norms, (self.inputs(train, part, model) for part in parts), "fp32")

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        return reload_images(folder, KIND, remote_code=remote_code)

    def encode(self, rows: pa.Table, model: Model) -> Segments:
        masks = (
            [target["mask"] for target in rows.column("target").to_pylist()] if "target" in rows.column_names else None
        )
        return with_masks(self.pixels(rows, model, None), masks, sizes_of(rows), self.kept)

    def varied(self, examples: Segments, views: int, seed: int) -> Segments:
        return varied_segments(examples, self.augment(examples), views, seed)

    def shown_views(self, rows: pa.Table, examples: Segments, views: int, seed: int) -> list[dict[str, Any]]:
        seen = varied_segments(examples, self.augment(examples), views, seed)
        return [
            {
                "id": name,
                "images": [
                    data_uri(overlays.overlaid(image, mask))
                    for image, mask in zip(images, seen.truth(chosen), strict=True)
                ],
            }
            for name, chosen, images in sheet(rows, examples, seen, views)
        ]

    def read(self, output: Any) -> torch.Tensor:
        return output.logits.float()  # type: ignore[no-any-return]

    def loss(self, logits: torch.Tensor, examples: Segments, indices: Indices) -> Loss:
        weights = self._weights(logits.device)
        losses = mask_outcomes.pixel_losses(logits, examples.truth(indices), weights)
        return Loss(losses.sum(), examples.count(indices))

    def _weights(self, device: torch.device) -> torch.Tensor | None:
        return None if self._class_weights is None else self._class_weights.to(device)

    def outcome(self, logits: torch.Tensor, examples: Segments, indices: Indices) -> torch.Tensor:
        if examples.masks is None:
            return logits
        return mask_outcomes.kept(logits.float(), examples, indices, self._weights(logits.device))

    def decode(self, examples: Segments, logits: Array) -> Array:
        return logits

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        def quality(truth: Array, logits: Array) -> float:
            counts = segmentation.confusion(truth, logits.argmax(axis=1), logits.shape[1], VOID)
            return float(segmentation.from_counts(counts)[self.primary_metric])

        def drawn(given: Batched) -> dict[str, Array]:
            return pixel_probe.drawn(model, given, plan.precision, seed)

        weights = None if self._class_weights is None else self._class_weights.numpy()
        best, start, tried = part_probe.find(
            model, train, validation, quality, drawn, gentle=phase.gentle, kept=kept, weights=weights
        )
        return Solved(start, best, tried)

    def solved_on(self, examples: Segments) -> int:
        return part_probe.drawn_of(examples.rows) * examples.rows

    def score(self, examples: Segments, logits: Array) -> Mapping[str, float]:
        counts = mask_outcomes.counts_of(logits, examples.sizes).sum(axis=0)
        value = float(segmentation.from_counts(counts)[self.primary_metric])
        return {"loss": mask_outcomes.loss_of(logits), self.primary_metric: value}

    def commonest(self, train: Segments, examples: Segments, model: Model) -> Array:
        counts = np.ones(outputs_of(model))
        for row in range(train.rows):
            mask = train.truth(np.array([row]))[0]
            counts += np.bincount(mask[mask != VOID], minlength=len(counts))
        shares = counts / counts.sum()
        return mask_outcomes.constant(examples, shares)

    def intervals(
        self, examples: Segments, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        return segmentation.intervals(mask_outcomes.counts_of(logits, examples.sizes), **how(settings, seed, groups))

    def difference(
        self,
        examples: Segments,
        logits: Array,
        other: Array,
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        first, second = (mask_outcomes.counts_of(one, examples.sizes) for one in (logits, other))
        return segmentation.difference(self.primary_metric, first, second, **how(settings, seed, groups))

    def fitted(self, examples: Segments, logits: Array) -> None:
        return None

    def details(self, examples: Segments, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        counts = mask_outcomes.counts_of(logits, examples.sizes)
        rows = segmentation.per_class(counts)
        return {
            "per_class": [{"label": label} | row for label, row in zip(labels, rows, strict=True)],
            "confusion": {"counts": counts.sum(axis=0).tolist(), "unit": "pixels"},
            "legend": [{"label": label, "colour": overlays.spelled(index)} for index, label in enumerate(labels)],
        }

    def class_intervals(
        self, examples: Segments, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> tuple[str, Sequence[Interval | None]]:
        counts = segmentation.by_class(mask_outcomes.counts_of(logits, examples.sizes))
        given = how(settings, seed, groups)
        return "iou", by_class.counted(by_class.iou, lambda some: counts[:, list(some)], *counts.shape[:2], **given)

    def mistakes(
        self,
        rows: pa.Table,
        examples: Segments,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        counts = mask_outcomes.counts_of(logits, examples.sizes)
        values, grids = segmentation.from_counts(counts), mask_outcomes.grids_of(logits)
        shown = []
        for row in np.argsort(values["pixel_accuracy"], kind="stable")[:most].tolist():
            if values["pixel_accuracy"][row] == 1:
                break
            cells = rows.slice(row, 1).select(["id", "input", "file"]).to_pylist()[0]
            image = overlays.small(picture.converted(picture.read(Path(cells["file"])), 3))
            masks = (examples.drawn(row), grids[row])
            panels = [image, *(overlays.overlaid(image, mask) for mask in masks)]
            shown.append(
                {
                    "id": cells["id"],
                    "file": cells["input"],
                    "panels": [uri(one) for one in panels],
                    "pixel_accuracy": float(values["pixel_accuracy"][row]),
                    "mean_iou": float(values["mean_iou"][row]),
                }
            )
        return shown

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        if "target" not in rows.column_names:
            answers = [_answer(one, size) for one, size in zip(logits, sizes_of(rows).tolist(), strict=True)]
            shares = np.stack([np.bincount(one.reshape(-1), minlength=len(labels)) / one.size for one in answers])
            masks = {"mask": [encoded(overlays.palette_png(one), "PNG") for one in answers]}
            return pa.table(columns | _named(shares, labels) | masks)
        counts = mask_outcomes.counts_of(logits, sizes_of(rows))
        values = segmentation.from_counts(counts)
        found = counts.sum(axis=1)
        shares = found / np.maximum(found.sum(axis=1, keepdims=True), 1)
        columns["truth"] = [target["file"] for target in rows.column("target").to_pylist()]
        columns |= _named(shares, labels) | {name: values[name] for name in METRICS}
        return pa.table(columns | {"counts": counts.reshape(len(counts), -1).tolist()})

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        size = (-1, len(labels), len(labels))
        one, other = (np.array(table.column("counts").to_pylist()).reshape(size) for table in (first, second))
        return segmentation.difference(self.primary_metric, one, other, **how(settings, seed, groups))

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Segments]:
        raw, pixels = self.tried_images(rows, model)
        return raw, with_masks(pixels, None, np.tile(pixels.values.shape[2:], (pixels.rows, 1)), None)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.segmentation_code(model, folder)


def _answer(logits: Array, size: Sequence[int]) -> Array:
    """(height, width) classes, from logits (classes, height, width) of another size."""
    whole = mask_outcomes.upsampled(torch.from_numpy(logits)[None], (size[0], size[1]))
    return whole[0].argmax(dim=0).numpy().astype(np.uint8)


def _named(shares: Array, labels: Sequence[str]) -> dict[str, Any]:
    """Columns of the predictions: the classes that were found, the largest first, and the share of the image of each."""
    chosen = [[labels[index] for index in np.argsort(-row, kind="stable") if row[index] > 0] for row in shares]
    named = pa.array(chosen, pa.list_(pa.string()))
    return {"prediction": named} | {f"score_{label}": shares[:, index] for index, label in enumerate(labels)}
