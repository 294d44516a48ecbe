"""image-similarity: which images show the same thing, a person, a product or an animal, among things that were never seen.

The network gives each image a vector, and vectors are compared by their cosine. It is taught to put images of one identity
near a prototype and away from all others, by a margin (ArcFace, Deng et al. 2019, equation 3, or CosFace, Wang et al. 2018,
equation 4): a loss of each image by itself. Or the images of a step are compared with each other, those of one identity and
those of others (triplets, or supervised contrastive). Splits that Tunesmith cuts share no identity, so that all figures are
about those that no training row shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch.nn import functional

from tunesmith.contracts import Array, Batched, Features, Head, Indices, Loading, Loss, Model, Solved
from tunesmith.data import batches
from tunesmith.data import load as data
from tunesmith.data.identified import UNSEEN, Identified, identified
from tunesmith.data.targets.identities import PROBLEM, Identities, doubts, insist_measurable
from tunesmith.errors import SettingsError
from tunesmith.metrics import verification
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.verification import unit
from tunesmith.models import embedder, user_embedder
from tunesmith.models.activations import HEAD_INPUT, features
from tunesmith.models.heads import install, last_layer, outputs_of, width_of
from tunesmith.models.pooling import OWN
from tunesmith.models.user_network import NOTES
from tunesmith.models.varied import varied_identified
from tunesmith.plans import Phase, Plan
from tunesmith.settings import Auto, DataSettings, EvaluateSettings, UserModel
from tunesmith.tasks import comparing, tiny_identities, tiny_images
from tunesmith.tasks.problems import how
from tunesmith.tasks.reading_images import ReadingSettings, ReadsImages, data_uri, sheet, thumbnail

LEAST_SCALE = 10.0
"""Of cosines in the loss, where there are few identities."""
MARGINS = {"arcface": 0.3, "cosface": 0.2, "triplet": 0.2}
"""Of the first two less than in the papers, which have thousands of images for each identity; of triplets as in FaceNet."""
CONTRASTIVE_SCALE = 10.0
"""One over the temperature of the paper."""
FALSE_ALARMS = 0.01
"""The share of images of strangers that may count as known."""
COMPARING = {"triplet": comparing.triplet, "contrastive": comparing.contrastive}
"""Losses that compare the images of a step."""


class ImageSimilarity(ReadsImages):
    """Images with identities."""

    name = "image-similarity"
    keeps_head = False

    class Settings(ReadingSettings):
        """Settings under `task:`."""

        loss: Literal["arcface", "cosface", "triplet", "contrastive"] = "arcface"
        """What teaches: a margin to prototypes of the identities, taken from the angle or from the cosine; or other images of
        the step: the furthest of the same identity and the nearest of another (triplet), or all of them (contrastive)."""
        margin: Auto | Annotated[float, Field(ge=0, le=1)] = "auto"
        """By how much an image must be nearer to its own identity; 0.3 radians for arcface, 0.2 for cosface and triplet when
        `auto`; contrastive has none."""
        scale: Auto | Annotated[float, Field(gt=0)] = "auto"
        """Of cosines in the loss; when it is `auto` by the number of identities (Zhang et al. 2019, equation 7), and 10 for
        contrastive; triplet has none."""
        together: Annotated[int, Field(ge=2)] = 4
        """Images of one identity that stand in a step together, for losses that compare them."""
        image_size: Auto | Annotated[int, Field(ge=8, le=4096)] = "auto"
        """Pixels of the square images that the network is given; `auto`: as many as its processor says."""
        metric: Literal["recall_at_1", "map_at_r", "auroc", "verification_accuracy"] = "recall_at_1"
        """The primary metric, by which the best weights and the report's verdict go."""

    def __init__(self, settings: Settings) -> None:
        """Raise SettingsError where the loss has not what is set of it."""
        for name, without in (("margin", "contrastive"), ("scale", "triplet")):
            if getattr(settings, name) != "auto" and settings.loss == without:
                raise SettingsError(f"task.{name} is set, but task.loss={without} has none.", "Leave it away.")
        self.settings = settings
        self.taught: tuple[str, ...] = ()
        self.familiar = (0, 0)
        """How many of the test identities are taught, and how many there are."""
        self.held: pa.Table | None = None
        """The validation rows, which say how similar a stranger may look."""
        self.prototypes: Array = np.zeros((0, 0), dtype=np.float32)
        """(identities, width) of the finished network, of length 1."""
        self.known: float | None = None
        """The similarity to the nearest prototype above which an image counts as of its identity."""

    @property
    def compares(self) -> bool:  # type: ignore[override]
        return self.settings.loss in COMPARING

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        return {
            "model": str(tiny_images.write_vit(folder / "model")),
            "data": str(tiny_identities.write_identities(folder / "things")),
        }

    def adopt(self, problem: str) -> None:
        assert problem == PROBLEM

    @property
    def targets(self) -> Identities:
        """How identities are read."""
        return Identities()

    @property
    def primary_metric(self) -> str:
        return str(self.settings.metric)

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> data.Dataset:
        self.kept = cache / "pixels"
        found = data.load(settings, cache, seed, self.targets, self.cells)
        names = {split: set(rows.column("target").to_pylist()) for split, rows in found.splits.items()}
        self.taught, self.held = tuple(sorted(names["train"])), found.splits["validation"]
        self.familiar = len(names["test"] & names["train"]), len(names["test"])
        return found

    def told(self) -> tuple[str, ...]:
        how = {
            "triplet": f"at a margin of {self._margin():g} (triplet)",
            "contrastive": f"at a scale of {self._scale():.3g} (contrastive)",
        }.get(
            self.settings.loss,
            f"each with a prototype, at a margin of {self._margin():g} ({self.settings.loss}) and a "
            f"scale of {self._scale():.3g}",
        )
        both, measured = self.familiar
        others = (
            f"{measured:,} identities, of which {both:,} {'is' if both == 1 else 'are'} taught" if both else "others"
        )
        told = f"{len(self.taught):,} identities are taught, {how}; figures are about {others}."
        beside = f"Up to {self.settings.together} images of one identity stand in a step together (task.together)."
        return (told, *[beside] * self.compares)

    def _margin(self) -> float:
        wanted = self.settings.margin
        return MARGINS.get(self.settings.loss, 0.0) if wanted == "auto" else wanted

    def _scale(self) -> float:
        wanted = self.settings.scale
        usual = max(LEAST_SCALE, math.sqrt(2) * math.log(max(2, len(self.taught) - 1)))
        usual = CONTRASTIVE_SCALE if self.settings.loss == "contrastive" else usual
        return usual if wanted == "auto" else float(wanted)

    def load_model(
        self,
        source: str | UserModel,
        labels: Sequence[str],
        *,
        seed: int,
        loading: Loading = Loading(),  # noqa: B008 - frozen
        remote_code: bool = False,
    ) -> Model:
        side = None if self.settings.image_size == "auto" else self.settings.image_size
        if isinstance(source, UserModel):
            if side is not None:
                raise SettingsError("task.image_size is for models with an image processor.", "Set model.size.")
            return user_embedder.load_user_embedder(source, self.taught, seed=seed, loading=loading)
        return embedder.load_embedder(
            source, self.taught, seed=seed, loading=loading, remote_code=remote_code, side=side
        )

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        if (folder / NOTES).is_file():
            model = user_embedder.reload_user_embedder(folder)
        else:
            model = embedder.reload_embedder(folder, remote_code=remote_code)
        config: Any = model.module.config
        self.taught = tuple(config.id2label[index] for index in range(outputs_of(model)))
        self.prototypes, self.known = embedder.prototypes_of(model), model.module.known  # type: ignore[assignment]
        return model

    def encode(self, rows: pa.Table, model: Model) -> Identified:
        names = rows.column("target").to_pylist() if "target" in rows.column_names else None
        return identified(self.pixels(rows, model, None), names, self.taught)

    def varied(self, examples: Identified, views: int, seed: int) -> Identified:
        return varied_identified(examples, self.augment(examples), views, seed)

    def shown_views(self, rows: pa.Table, examples: Identified, views: int, seed: int) -> list[dict[str, Any]]:
        seen = self.varied(examples, views, seed)
        return [
            {"id": name, "images": [data_uri(image) for image in images]}
            for name, _, images in sheet(rows, examples, seen, views)
        ]

    def read(self, output: Any) -> torch.Tensor:
        return output.logits.float()  # type: ignore[no-any-return]

    def loss(self, logits: torch.Tensor, examples: Identified, indices: Indices) -> Loss:
        assert examples.taught is not None
        target = torch.from_numpy(examples.taught[examples.owner[indices]]).to(logits.device)
        if compared := COMPARING.get(self.settings.loss):
            how = self._margin() if self.settings.loss == "triplet" else self._scale()
            return Loss(compared(logits[:, len(self.taught) :], target, how), examples.count(indices))
        cosines = logits[:, : len(self.taught)]
        own = cosines.gather(1, target[:, None])
        nearer = self._nearer(own) - own
        scores = self._scale() * cosines.scatter_add(1, target[:, None], nearer)
        return Loss(functional.cross_entropy(scores, target, reduction="sum"), examples.count(indices))

    def _nearer(self, own: torch.Tensor) -> torch.Tensor:
        """The cosines to the own prototypes as the loss has them: smaller, by the margin."""
        margin = self._margin()
        if self.settings.loss == "cosface":
            return own - margin
        angle = own.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        # Beyond half a turn less the margin the cosine would grow again; there it falls on, in a straight line.
        return torch.where(angle < math.pi - margin, (angle + margin).cos(), own - margin * math.sin(margin))

    def outcome(self, logits: torch.Tensor, examples: Identified, indices: Indices) -> torch.Tensor:
        return logits if examples.identity is None else logits[:, len(self.taught) :]

    def decode(self, examples: Identified, logits: Array) -> Array:
        return logits

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        """Prototypes that are the means of what they stand for (Qi et al. 2018, section 3.3)."""
        if not kept.by_split:
            for name, given in (("train", train), ("validation", validation)):
                kept.by_split[name] = {OWN: self._vectors(model, given, plan.precision)}
        head = Head(OWN, self._means(kept.by_split["train"][OWN], train.examples), np.zeros(len(self.taught)))
        score = self.score(validation.examples, kept.by_split["validation"][OWN])[self.primary_metric]
        return Solved(head, head, {OWN: score})

    def complete(self, model: Model, train: Identified, precision: str) -> None:
        """Prototypes that no loss has moved are the means of what they stand for, as the trained network sees it; and how
        similar to the nearest of them an image must be to count as known."""
        if self.compares:
            vectors = self._vectors(model, Batched(train, partial(self.inputs, train, model=model)), precision)
            install(last_layer(model), self._means(vectors, train), np.zeros(len(self.taught)))
        self.prototypes = embedder.prototypes_of(model)
        self.known = self._known(model, precision)
        model.module.known = self.known  # type: ignore[assignment]

    def _vectors(self, model: Model, given: Batched, precision: str) -> Array:
        """(images, width) of length 1."""
        return unit(features(model, [HEAD_INPUT], given.examples.lengths, given.collate, precision)[HEAD_INPUT])

    def _known(self, model: Model, precision: str) -> float | None:
        """What no more than FALSE_ALARMS of the validation images of strangers exceed; None where there are none."""
        assert self.held is not None
        examples = self.encode(self.held, model)
        strange = examples.taught == UNSEEN
        if not np.any(strange):
            return None
        vectors = self._vectors(model, Batched(examples, partial(self.inputs, examples, model=model)), precision)
        _, similarity = verification.most_like(vectors[strange], self.prototypes)
        return float(np.quantile(similarity, 1 - FALSE_ALARMS, method="higher"))

    def order(self, examples: Identified, seed: int, epoch: int) -> Indices | None:
        assert examples.taught is not None
        return batches.several_each(examples.taught, self.settings.together, seed, epoch) if self.compares else None

    def _means(self, vectors: Array, examples: Identified) -> Array:
        """(identities, width) of length 1: the mean direction of the `vectors` of each."""
        assert examples.taught is not None
        sums = np.zeros((len(self.taught), vectors.shape[1]))
        np.add.at(sums, examples.taught, vectors)
        return unit(sums)

    def solved_on(self, examples: Identified) -> int:
        return examples.rows

    def score(self, examples: Identified, logits: Array) -> Mapping[str, float]:
        assert examples.identity is not None
        found = verification.values(verification.compare(logits, examples.identity))
        loss = verification.loss(logits, examples.identity)
        return {"loss": loss, self.primary_metric: found.get(self.primary_metric, 0.0)}

    def commonest(self, train: Identified, examples: Identified, model: Model) -> Array:
        """The same vector for all."""
        width = width_of(model)
        return np.full((examples.rows, width), width**-0.5, dtype=np.float32)

    def _compared(self, examples: Identified, logits: Array) -> verification.Compared:
        assert examples.identity is not None
        return verification.compare(logits, examples.identity)

    def intervals(
        self, examples: Identified, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        return verification.intervals(self._compared(examples, logits), **how(settings, seed, groups))

    def difference(
        self,
        examples: Identified,
        logits: Array,
        other: Array,
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        first, second = (self._compared(examples, one) for one in (logits, other))
        return verification.difference(self.primary_metric, first, second, **how(settings, seed, groups))

    def fitted(self, examples: Identified, logits: Array) -> float | None:
        return verification.threshold(self._compared(examples, logits))

    def details(
        self, examples: Identified, logits: Array, labels: Sequence[str], fitted: float | None
    ) -> dict[str, Any]:
        assert examples.identity is not None
        images = np.bincount(examples.identity)
        insist_measurable("This data set", images)
        found = verification.described(self._compared(examples, logits), logits, examples.identity, fitted) | {
            "taught": len(self.taught),
            "identities_taught": len(np.unique(examples.identity[examples.taught != UNSEEN])),
            "known": self._strangers(examples, logits),
        }
        return {"verification": found | ({"notes": notes} if (notes := doubts("test", images)) else {})}

    def _strangers(self, examples: Identified, logits: Array) -> dict[str, Any]:
        """The similarity above which an image counts as of a taught identity, and how often that is said of strangers."""
        strange = examples.taught == UNSEEN
        found = {"threshold": self.known, "strangers": int(np.sum(strange)), "false_alarm_rate": None}
        if self.known is None or not np.any(strange):
            return found
        _, similarity = verification.most_like(logits[strange], self.prototypes)
        return found | {"false_alarm_rate": float((similarity > self.known).mean())}

    def mistakes(
        self,
        rows: pa.Table,
        examples: Identified,
        logits: Array,
        labels: Sequence[str],
        fitted: float | None,
        most: int,
    ) -> list[dict[str, Any]]:
        """Images whose nearest is of another identity, the surest first: the image, that one, and the nearest of its own."""
        assert examples.identity is not None
        shown = []
        for score, query, best, right, own_score in verification.confused(logits, examples.identity)[:most]:
            cells = rows.take([query, best, right]).select(["id", "input", "file", "target"]).to_pylist()
            shown.append(
                {
                    "id": cells[0]["id"],
                    "file": cells[0]["input"],
                    "panels": [thumbnail(Path(one["file"])) for one in cells],
                    "identities": [one["target"] for one in cells],
                    "similarity": score,
                    "own_similarity": own_score,
                }
            )
        return shown

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """`embedding`; of rows with an identity their nearest other row, of others the nearest identity that was taught, and
        whether it is the `same`: null where no threshold could be set."""
        columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
        if "target" in rows.column_names:
            ids, vectors = rows.column("id").to_pylist(), logits
            nearest, similarity = verification.nearest_other(logits)
            columns |= {"truth": rows.column("target"), "prediction": [ids[row] for row in nearest]}
            columns["similarity"] = similarity.astype(np.float64)
        else:
            cosines, vectors = logits[:, : len(self.taught)], logits[:, len(self.taught) :]
            nearest, similarity = cosines.argmax(axis=1), cosines.max(axis=1).astype(np.float64)
            same = [None] * len(logits) if self.known is None else similarity > self.known
            columns |= {"prediction": [self.taught[index] for index in nearest], "similarity": similarity}
            columns["same"] = pa.array(same, pa.bool_())
        return pa.table(columns | {"embedding": pa.array(list(vectors.astype(np.float32)), pa.list_(pa.float32()))})

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        identity = np.unique(np.asarray(first.column("truth").to_pylist(), dtype=str), return_inverse=True)[1]
        one, other = (
            verification.compare(np.array(table.column("embedding").to_pylist(), dtype=np.float32), identity)
            for table in (first, second)
        )
        return verification.difference(self.primary_metric, one, other, **how(settings, seed, groups))

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Identified]:
        raw, pixels = self.tried_images(rows, model)
        return raw, identified(pixels, None, self.taught)

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        own = isinstance(model.source, UserModel)
        return user_embedder.loading_code(model, folder) if own else embedder.loading_code(model, folder)
