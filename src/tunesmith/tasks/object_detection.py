"""object-detection: what stands where in an image, as boxes with a class each.

A detector keeps all it knows but its layers for classes; a backbone without one gets a light head (see
models/load_detector.py). Neither can be solved for, so that the head trains by gradient, at a rate of its own. Images are
resized, with their sides as they are asked for, and boxes are shares of the sides, so that they stay what they are.
"""

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
from tunesmith.data.boxed import Boxed, boxed
from tunesmith.data.targets.boxes import PROBLEM, Boxes
from tunesmith.errors import DataError, ModelError
from tunesmith.metrics import by_class, detection
from tunesmith.metrics.interval import Interval
from tunesmith.models import loading_code
from tunesmith.models.augment import SETS, Augment
from tunesmith.models.heads import outputs_of
from tunesmith.models.load_detector import load_detector, queries_of, reload_detector
from tunesmith.models.varied import varied_boxed
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, UserModel
from tunesmith.tasks import box_outcomes, drawn_boxes, overlays, tiny_boxes
from tunesmith.tasks.problems import how
from tunesmith.tasks.reading_images import THUMBNAIL, Named, ReadingSettings, ReadsImages, sheet, sizes_of, uri
from tunesmith.tasks.set_loss import set_losses

Side = Annotated[int, Field(ge=32, le=4096)]


class ObjectDetection(ReadsImages):
    """Images with boxes."""

    name = "object-detection"
    keeps_head = False

    class Settings(ReadingSettings):
        """Settings under `task:`."""

        classes: list[Named] | str | None = None
        """Names of the classes by index, or a file with one a line, where boxes name them by number."""
        box_format: Literal["auto", "corners", "xywh"] = "auto"
        """What four numbers in a list are: two corners, or left, top, width and height; `auto` goes by their name."""
        image_size: Auto | Side | tuple[Side, Side] = "auto"
        """Pixels of what the network is given, one side or [height, width]; images are resized to it, nothing is cropped.
        `auto`: as a detector's processor says; for a backbone about the shape of the images, of 100,000 pixels at most."""
        metric: Literal["map", "map_50"] = "map"
        """The primary metric, by which the best weights and the report's verdict go."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.classes = 0
        self._usual = (480, 640)
        self._most = 0
        self._told: tuple[str, ...] = ()
        self._threshold = 0.5

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_boxes.write_backbone(folder / "model")),
            "data": str(tiny_boxes.write_boxes(folder / "rows")),
        }

    def adopt(self, problem: str) -> None:
        assert problem == PROBLEM

    @property
    def targets(self) -> Boxes:
        """How boxes are read."""
        return Boxes(self.settings.classes, self.settings.box_format)

    @property
    def primary_metric(self) -> str:
        return str(self.settings.metric)

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        self.kept = cache / "pixels"
        found = data.load(settings, cache, seed, self.targets, self.cells)
        for split, rows in found.splits.items():
            if not any(rows.column("target").combine_chunks().field("classes").value_lengths().to_pylist()):
                raise DataError(
                    f"The {split} split has no box that counts, so nothing could be "
                    f"{'learned from' if split == 'train' else 'measured on'} it.",
                    "Bring splits with boxes (data.validation, data.test), or leave them away to have them cut.",
                )
        rows = found.splits["train"]
        height, width = np.median(sizes_of(rows), axis=0)
        self._usual = (round(float(height)), round(float(width)))
        self._most = max(len(target["classes"]) for target in rows.column("target").to_pylist())
        return found

    def told(self) -> tuple[str, ...]:
        return self._told

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
                "model.python builds networks that give one answer an image, and this task wants boxes.",
                "Give a folder or Hub id.",
            )
        wanted = self.settings.image_size
        size = None if wanted == "auto" else (wanted, wanted) if isinstance(wanted, int) else wanted
        model = load_detector(
            source,
            labels,
            seed=seed,
            loading=loading,
            remote_code=remote_code,
            size=size,
            usual=self._usual,
            most=self._most,
        )
        self.classes = len(labels)
        self._told = self._started_from(model)
        return model

    def _started_from(self, model: Model) -> tuple[str, ...]:
        """What of the network is new, and what it cannot do."""
        height, width = model.example["pixel_values"].shape[2:]
        what = {
            "new": f"{model.source} has no head that finds things: a small RT-DETR's, with new weights, is put on it.",
            "kept": "The checkpoint's classes are those of the data, so that its layers for them are kept, as all else is.",
        }.get(model.head, "The layers that tell classes apart are new; all else is kept.")
        told = [what, f"Images are resized to {width} × {height} pixels (task.image_size)."]
        if self._most > queries_of(model):
            told.append(f"An image has {self._most:,} boxes, and the network finds {queries_of(model):,} at most.")
        return tuple(told)

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        model = reload_detector(folder, remote_code=remote_code)
        self.classes = outputs_of(model)
        return model

    @property
    def safe(self) -> Augment:
        """Without turns: the upright box about a turned one is larger than what it holds."""
        return SETS["light"].model_copy(update={"rotate": 0.0})

    def encode(self, rows: pa.Table, model: Model) -> Boxed:
        targets = rows.column("target").to_pylist() if "target" in rows.column_names else None
        return boxed(self.pixels(rows, model, None), targets, sizes_of(rows))

    def varied(self, examples: Boxed, views: int, seed: int) -> Boxed:
        return varied_boxed(examples, self.augment(examples), views, seed)

    def shown_views(self, rows: pa.Table, examples: Boxed, views: int, seed: int) -> list[dict[str, Any]]:
        seen = varied_boxed(examples, self.augment(examples), views, seed)
        found = []
        for name, chosen, images in sheet(rows, examples, seen, views):
            drawn = []
            for image, (boxes, classes) in zip(images, seen.truth(chosen), strict=True):
                corners = box_outcomes.in_pixels(boxes, np.array([image.height, image.width]))
                drawn.append(drawn_boxes.drawn(image, corners, classes, [""] * len(boxes), 2 * THUMBNAIL))
            found.append({"id": name, "images": [uri(one) for one in drawn]})
        return found

    def read(self, output: Any) -> torch.Tensor:
        return box_outcomes.answers_of(output)

    def loss(self, logits: torch.Tensor, examples: Boxed, indices: Indices) -> Loss:
        losses = set_losses(logits, examples.truth(indices), self.classes)
        return Loss(losses.sum(), examples.count(indices))

    def outcome(self, logits: torch.Tensor, examples: Boxed, indices: Indices) -> torch.Tensor:
        if examples.boxes is None:
            return logits[:, 0]
        return box_outcomes.kept(logits, examples.truth(indices), self.classes)

    def decode(self, examples: Boxed, logits: Array) -> Array:
        return logits

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        raise NotImplementedError("plans for a detector solve for nothing")  # Facts.head says so

    def solved_on(self, examples: Boxed) -> int:
        return 0

    def score(self, examples: Boxed, logits: Array) -> Mapping[str, float]:
        values = detection.values(self._matched(examples, logits, areas=False))
        return {"loss": box_outcomes.loss_of(logits), self.primary_metric: values.get(self.primary_metric, 0.0)}

    def _matched(self, examples: Boxed, logits: Array, *, areas: bool = True) -> detection.Matched:
        found = box_outcomes.found_in(logits, examples.sizes)
        return detection.match(box_outcomes.true_in(examples), found, self.classes, areas=areas)

    def commonest(self, train: Boxed, examples: Boxed, model: Model) -> Array:
        assert train.boxes is not None
        assert train.classes is not None
        queries = queries_of(model)
        counts = np.bincount(np.concatenate(train.classes), minlength=self.classes)
        shares = (counts + 1) / (counts.sum() + train.rows * queries)
        box = np.concatenate(train.boxes).mean(axis=0)
        return box_outcomes.constant(examples, shares, box, _logits_of(model), queries)

    def intervals(
        self, examples: Boxed, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        matched = self._matched(examples, logits)
        if not matched.truths.any():
            raise DataError("These images have no box that counts, so nothing can be measured on them.", "Give others.")
        return detection.intervals(matched, **how(settings, seed, groups))

    def difference(
        self, examples: Boxed, logits: Array, other: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Interval:
        first, second = (self._matched(examples, one, areas=False) for one in (logits, other))
        return detection.difference(self.primary_metric, first, second, **how(settings, seed, groups))

    def fitted(self, examples: Boxed, logits: Array) -> float:
        self._threshold = detection.best_threshold(self._matched(examples, logits, areas=False))
        return self._threshold

    def details(self, examples: Boxed, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        assert fitted is not None
        rows = detection.per_class(self._matched(examples, logits, areas=False), fitted)
        return {
            "per_class": [{"label": label} | row for label, row in zip(labels, rows, strict=True)],
            "threshold": fitted,
            "legend": [{"label": label, "colour": overlays.spelled(index)} for index, label in enumerate(labels)],
        }

    def class_intervals(
        self, examples: Boxed, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> tuple[str, Sequence[Interval | None]]:
        matched = self._matched(examples, logits, areas=False)

        def measure(weights: Array) -> Array:
            return np.asarray(detection.average_precision(matched, weights)[:, 0].mean(axis=1))  # over overlaps

        return "ap", by_class.intervals(measure, len(matched), **how(settings, seed, groups))

    def mistakes(
        self,
        rows: pa.Table,
        examples: Boxed,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        assert fitted is not None
        truth = box_outcomes.true_in(examples)
        found = [sure(one, fitted) for one in box_outcomes.found_in(logits, examples.sizes)]
        tallies = [detection.tally(one, other) for one, other in zip(truth, found, strict=True)]
        wrong = np.array([missed + many for _, missed, many in tallies])
        shown = []
        for row in np.argsort(-wrong, kind="stable")[:most].tolist():
            if not wrong[row]:
                break
            cells = rows.slice(row, 1).select(["id", "input", "file"]).to_pylist()[0]
            image = picture.converted(picture.read(Path(cells["file"])), 3)
            pairs = zip(found[row].classes, found[row].scores, strict=True)
            said = [f"{labels[index]} {score:.2f}" for index, score in pairs]
            named = [labels[index] for index in truth[row].classes]
            panels = [
                drawn_boxes.drawn(image, truth[row].corners, truth[row].classes, named),
                drawn_boxes.drawn(image, found[row].corners, found[row].classes, said),
            ]
            shown.append(
                {
                    "id": cells["id"],
                    "file": cells["input"],
                    "panels": [uri(one) for one in panels],
                    **dict(zip(("found", "missed", "too_many"), tallies[row], strict=True)),
                }
            )
        return shown

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`boxes`: of rows without truth those that are sure enough; otherwise all that are kept, so that runs compare."""
        assert fitted is not None
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        if "target" not in rows.column_names:
            last = torch.from_numpy(logits)
            logits = box_outcomes.packed(*box_outcomes.surest(last, self.classes)).numpy()
            logits = np.concatenate([np.zeros((len(logits), 2)), logits], axis=1)
        found = box_outcomes.found_in(logits, sizes_of(rows))
        chosen = [sure(one, fitted) for one in found]
        columns["prediction"] = pa.array([[labels[index] for index in one.classes] for one in chosen], TEXTS)
        if "target" not in rows.column_names:
            columns["boxes"] = pa.array([_spelled(one, labels) for one in chosen], BOXES)
            return pa.table(columns)
        truth = [_true_boxes(target, labels) for target in rows.column("target").to_pylist()]
        columns["boxes"] = pa.array([_spelled(one, labels) for one in found], BOXES)
        return pa.table(columns | {"truth": pa.array(truth, TRUTH)})

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        one, other = (_matched_again(table, labels) for table in (first, second))
        return detection.difference(self.primary_metric, one, other, **how(settings, seed, groups))

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Boxed]:
        raw, pixels = self.tried_images(rows, model)
        return raw, boxed(pixels, None, np.tile(pixels.values.shape[2:], (pixels.rows, 1)))

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        return loading_code.detection_code(model, folder, self._threshold)


def sure(found: detection.Found, threshold: float) -> detection.Found:
    """The boxes of an image whose score is at least `threshold`."""
    return detection.Found(*(part[found.scores >= threshold] for part in found))


TEXTS = pa.list_(pa.string())
_PLACE: list[tuple[str, pa.DataType]] = [(end, pa.float64()) for end in ("x0", "y0", "x1", "y1")]
BOXES = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float64()), *_PLACE]))
TRUTH = pa.list_(pa.struct([("label", pa.string()), ("ignored", pa.bool_()), *_PLACE]))


def _logits_of(model: Model) -> int:
    """How many logits a box has: as many as classes, or one more."""
    device = next(model.module.parameters()).device
    with torch.no_grad():
        output = model.module(**{name: value.to(device) for name, value in model.example.items()})
    return int(output.logits.shape[-1])


def _spelled(found: detection.Found, labels: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"label": labels[index], "score": score, **_ends(box)}
        for box, index, score in zip(*(part.tolist() for part in found), strict=True)
    ]


def _true_boxes(target: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    parts = (("boxes", "classes", False), ("ignored", "ignored_classes", True))
    return [
        {"label": labels[index], "ignored": ignored, **_ends(box)}
        for corners, classes, ignored in parts
        for box, index in zip(np.reshape(target[corners], (-1, 4)).tolist(), target[classes], strict=True)
    ]


def _ends(box: Sequence[float]) -> dict[str, float]:
    return dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))


def _matched_again(table: pa.Table, labels: Sequence[str]) -> detection.Matched:
    """The found boxes of a table of predictions, matched with the true ones."""
    place = {label: index for index, label in enumerate(labels)}

    def corners(boxes: list[dict[str, Any]]) -> Array:
        return np.array([[box[end] for end in ("x0", "y0", "x1", "y1")] for box in boxes]).reshape(-1, 4)

    def classes(boxes: list[dict[str, Any]]) -> Indices:
        return np.array([place[box["label"]] for box in boxes], dtype=np.int64)

    truth = [
        detection.Boxes(corners(one), classes(one), np.array([box["ignored"] for box in one], dtype=bool))
        for one in table.column("truth").to_pylist()
    ]
    found = [
        detection.Found(corners(one), classes(one), np.array([box["score"] for box in one]))
        for one in table.column("boxes").to_pylist()
    ]
    return detection.match(truth, found, len(labels), areas=False)
