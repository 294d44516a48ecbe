"""Vectors from loss to prediction: what is taught, what is measured on others, and what other loaders make of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional

import tunesmith
from tiny import write_image_model
from tunesmith import prepare, settings
from tunesmith.data.identified import identified
from tunesmith.data.pixels import Pixels
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import embedder
from tunesmith.models.forward import logits
from tunesmith.settings import UserModel
from tunesmith.tasks.image_similarity import ImageSimilarity

TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"task": "image-similarity", **ImageSimilarity.tiny(tmp_path_factory.mktemp("tiny"))}


def made(**own: Any) -> ImageSimilarity:
    task = ImageSimilarity(ImageSimilarity.Settings(**own))
    task.taught = ("a", "b", "c")
    return task


def some(names: list[str]) -> Any:
    ones = np.ones(3, dtype=np.float32)
    values = np.zeros((len(names), 3, 4, 4), dtype=np.uint8)
    return identified(Pixels(values, ones, 0 * ones, None, "k"), names, ("a", "b", "c"))


def answers(rows: int, width: int = 5) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    vectors = functional.normalize(torch.randn((rows, width), generator=draw), dim=1)
    prototypes = functional.normalize(torch.randn((3, width), generator=draw), dim=1)
    return torch.cat([vectors @ prototypes.T, vectors], dim=1)


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_the_loss_is_that_of_the_paper_and_the_same_however_a_step_is_cut(loss: str) -> None:
    task, given, found = made(loss=loss, margin=0.2, scale=8.0), some(["a", "c", "b", "a"]), answers(4)
    whole = task.loss(found, given, np.arange(4))
    wanted = 0.0
    for row, own in enumerate([0, 2, 1, 0]):
        cosines = found[row, :3].tolist()
        cosines[own] = math.cos(math.acos(cosines[own]) + 0.2) if loss == "arcface" else cosines[own] - 0.2
        scores = [8.0 * one for one in cosines]
        wanted += math.log(sum(map(math.exp, scores))) - scores[own]
    assert whole.count == 4
    assert whole.sum.item() == pytest.approx(wanted, rel=1e-4)
    parts = [task.loss(found[part], given, np.array(part)) for part in ([0], [1, 2], [3])]
    assert sum(part.sum.item() for part in parts) == pytest.approx(whole.sum.item(), rel=1e-5)


def test_the_margin_never_rewards_being_further_away() -> None:
    task = made(margin=0.5)
    cosines = torch.linspace(-0.999, 0.999, 400)[:, None]
    assert (task._nearer(cosines).diff(dim=0) > 0).all()


def test_no_identity_is_taught_and_measured(things: dict[str, Any], tmp_path: Path) -> None:
    ready = prepare.prepare(settings.parse({**things, "method": "full"}), tmp_path, torch.device("cpu"), lambda _: None)
    by_split = {name: set(rows.column("target").to_pylist()) for name, rows in ready.dataset.splits.items()}
    assert by_split["train"] == set(ready.task.taught)  # type: ignore[attr-defined]
    assert not by_split["train"] & by_split["test"]
    assert not by_split["validation"] & by_split["test"]


def test_prototypes_start_as_the_means_of_what_they_stand_for(things: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.finetune({**things, "method": "probe"}, run=tmp_path / "run")
    predictor = tunesmith.load(run.folder)
    rows = [f"{things['data']}/{name}/{view}.png" for name in predictor.task.taught[:3] for view in range(5)]  # type: ignore[attr-defined]
    vectors = np.array([row["embedding"] for row in predictor.predict(rows)]).reshape(3, 5, -1)
    means = vectors.sum(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    held = functional.normalize(predictor.model.module.head.weight.detach(), dim=1)[:3].numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(held, means, atol=2e-2)


def test_a_run_gives_vectors_that_transformers_gives_too(things: dict[str, Any], tmp_path: Path) -> None:
    given = {**things, "method": "full", "train": TRAIN}
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["primary_metric"] == "recall_at_1"
    assert {"recall_at_1", "map_at_r", "auroc", "eer"} <= set(report["metrics"]["test"])
    assert set(report["baselines"]) == {"majority", "probe"}
    assert 0 < report["verification"]["identities"] < 12
    predictor = tunesmith.load(run.folder)
    picture = Path(things["data"]) / "thing 00" / "0.png"
    [found] = predictor.predict([str(picture)])
    assert found["prediction"] in predictor.task.taught  # type: ignore[attr-defined]
    assert found["same"] == (found["similarity"] >= predictor.fitted)
    processor = transformers.AutoImageProcessor.from_pretrained(run.model, backend="pil")
    model = transformers.AutoModel.from_pretrained(run.model).eval()
    with Image.open(picture) as image, torch.no_grad():
        output = model(**processor(image, return_tensors="pt"))
    vector = functional.normalize(embedder.vector_of(output, model.config.embedding), dim=1)[0]
    np.testing.assert_allclose(found["embedding"], vector.numpy(), atol=1e-4 if predictor.precision == "fp32" else 3e-2)
    assert "recall_at_1" in predictor.evaluate(things["data"])["metrics"]["test"]
    other = tunesmith.finetune(given | {"method": "probe"}, run=tmp_path / "other")
    assert json.dumps(tunesmith.compare([run.folder, other.folder]))


@pytest.mark.parametrize(
    ("architecture", "how"),
    [("vit", "first"), ("beit", "pooled"), ("dinov2", "pooled"), ("resnet", "pooled"), ("swin", "pooled"),
     ("convnext", "pooled"), ("mobilenet-v2", "pooled")],
)  # fmt: skip
def test_backbones_of_every_kind_give_a_vector_and_come_back(tmp_path: Path, architecture: str, how: str) -> None:
    model = embedder.load_embedder(str(write_image_model(tmp_path / "model", architecture)), ["a", "b"], seed=0)
    model.module.eval()
    assert model.module.how == how
    embedder.write(model, tmp_path / "saved")
    model.processor.save_pretrained(tmp_path / "saved")
    again = embedder.reload_embedder(tmp_path / "saved")
    with torch.no_grad():
        one, other = (held.module(**model.example).logits for held in (model, again))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert one[0, 2:].norm().item() == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_compared_is_refused(things: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="r_drop"):
        tunesmith.finetune({**things, "method": "full", "train": TRAIN | {"r_drop": 1.0}}, run=tmp_path / "run")
    with pytest.raises(ModelError, match="vectors"):
        made().load_model(UserModel(python="nets:small"), (), seed=0)


def test_measuring_is_about_vectors_alone(things: dict[str, Any], tmp_path: Path) -> None:
    ready = prepare.prepare(settings.parse({**things, "method": "full"}), tmp_path, torch.device("cpu"), lambda _: None)
    found = logits(ready.task, ready.model, ready.validation, "fp32")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
    nothing = ready.task.score(ready.validation, ready.task.commonest(ready.train, ready.validation, ready.model))
    assert np.isfinite(nothing["loss"])
