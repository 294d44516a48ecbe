"""Vectors from loss to prediction: what is taught, what is measured on others, and what other loaders make of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional

import tunesmith
from tiny import write_identities, write_image_model, write_processor
from tunesmith import console, prepare, settings
from tunesmith.data.identified import identified
from tunesmith.data.pixels import Pixels
from tunesmith.errors import DataError, ModelError, SettingsError
from tunesmith.models import embedder
from tunesmith.models.forward import logits
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
    same = report["verification"]
    assert 0 < same["identities"] < 12
    assert same["identities_taught"] == 0
    assert same["identities_with_pairs"] == same["identities"]
    assert same["queries"] == same["images"] == same["known"]["strangers"] == report["data"]["test"]
    assert max(same["false_accept_rate"], same["false_reject_rate"], same["known"]["false_alarm_rate"]) <= 1
    assert "images ask, of " in run.page.read_text()
    assert "same" not in pyarrow.parquet.read_schema(run.predictions).names
    predictor = tunesmith.load(run.folder)
    picture = Path(things["data"]) / "thing 00" / "0.png"
    [found] = predictor.predict([str(picture)])
    assert found["prediction"] in predictor.task.taught  # type: ignore[attr-defined]
    assert found["same"] == (found["similarity"] > predictor.task.known)  # type: ignore[attr-defined]
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
    [("vit", "first"), ("deit", "first"), ("beit", "pooled"), ("dinov2", "pooled"), ("resnet", "pooled"), ("swin", "pooled"),
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


def test_measuring_is_about_vectors_alone(things: dict[str, Any], tmp_path: Path) -> None:
    ready = prepare.prepare(settings.parse({**things, "method": "full"}), tmp_path, torch.device("cpu"), lambda _: None)
    found = logits(ready.task, ready.model, ready.validation, "fp32")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
    nothing = ready.task.score(ready.validation, ready.task.commonest(ready.train, ready.validation, ready.model))
    assert np.isfinite(nothing["loss"])


def test_a_stranger_counts_as_known_as_rarely_on_validation_as_is_said(things: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.finetune({**things, "method": "probe"}, run=tmp_path / "run")
    predictor = tunesmith.load(run.folder)
    task: Any = predictor.task
    _, dataset = prepare.load_data(settings.parse({**things, "method": "probe"}), tmp_path / "cache")
    report = json.loads(run.report.read_text())
    for name, most in (("validation", 0.01), ("test", report["verification"]["known"]["false_alarm_rate"])):
        rows = predictor.predict(dataset.splits[name].column("file").to_pylist())
        accepted = [row["same"] for row in rows]
        assert np.mean(accepted) <= most
        for row in rows:  # the nearest prototype is what decides, however many there are
            assert row["similarity"] == pytest.approx(max(task.prototypes @ row["embedding"]), abs=1e-4)
    assert report["verification"]["known"]["threshold"] == task.known


def test_where_no_threshold_can_be_set_none_is_claimed(
    things: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = Path(things["data"])  # the identities of validation and test are all taught
    data = {"train": str(same), "validation": str(same), "test": str(same)}
    run = tunesmith.finetune({**things, "data": data, "method": "probe"}, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["verification"]["identities_taught"] == report["verification"]["identities"] == 24
    assert report["verification"]["known"] == {"threshold": None, "strangers": 0, "false_alarm_rate": None}
    page = run.page.read_text()
    assert "which no training image shows" not in page
    assert "of which 24 were taught" in page
    assert "No similarity could be set from which an image counts as of a taught identity" in page
    task, _ = prepare.load_data(settings.parse({**things, "data": data, "method": "full"}), tmp_path / "cache")
    assert task.told()[0].endswith("figures are about 24 identities, of which 24 are taught.")
    predictor = tunesmith.load(run.folder)
    found = predictor.predict([str(same / "thing 00" / "0.png")])
    assert found[0]["same"] is None
    console.show_predictions(found)
    assert "unknown, nearest thing 00 " in capsys.readouterr().out


def test_pairs_of_one_kind_alone_set_no_threshold() -> None:
    task = made()
    one = answers(4)[:, 3:].numpy()
    for names in (["a", "a", "a", "a"], ["a", "b", "c", "d"]):
        assert task.fitted(some(names), one) is None
    task.prototypes, task.known = one[:3], 0.5
    found = task.details(some(["a", "a", "b", "d"]), one, (), None)["verification"]
    assert (found["threshold"], found["false_accept_rate"], found["false_reject_rate"]) == (None, None, None)
    assert (found["queries"], found["images"], found["identities_with_pairs"], found["identities_taught"]) == (
        2,
        4,
        1,
        2,
    )
    assert found["known"]["strangers"] == 1
    rows = pa.table({"id": ["x", "y", "z", "w"]})
    assert task.predictions(rows, answers(4).numpy(), (), None).column("same").null_count == 0


@pytest.mark.parametrize(
    ("names", "why"), [("aaaa", "images of one identity only"), ("abcd", "no identity with two images")]
)
def test_other_data_that_can_measure_nothing_are_refused(names: str, why: str) -> None:
    task = made()
    with pytest.raises(DataError, match=why):
        task.details(some(list(names)), answers(4)[:, 3:].numpy(), (), 0.5)


def test_evaluating_says_what_it_is_about(things: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.finetune({**things, "method": "probe"}, run=tmp_path / "run")
    predictor = tunesmith.load(run.folder)
    found = predictor.evaluate(things["data"])["verification"]
    assert found["identities_taught"] == len(predictor.task.taught)  # type: ignore[attr-defined]
    assert found["identities"] == 24
    assert "notes" not in found
    few = predictor.evaluate(str(write_identities(tmp_path / "few", identities=3, seed=5)))["verification"]
    assert few["notes"] == ["test: figures on 3 identities say little about others."]
    with pytest.raises(DataError, match="This data set has images of one identity only"):
        predictor.evaluate(str(write_identities(tmp_path / "one", identities=1, seed=6)))


def test_what_is_printed_says_that_an_image_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "x.png", "prediction": "cup", "similarity": 0.41234, "embedding": [1.0]}
    console.show_predictions([row | {"same": same} for same in (True, False, None)])
    said = "x.png\tunknown, nearest cup 0.412"
    assert capsys.readouterr().out.splitlines() == ["x.png\tcup 0.412", said, f"{said} (no threshold could be set)"]


SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}


def written(folder: Path, config: Any) -> str:
    """A checkpoint of what AutoModel makes of `config`, with random weights."""
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    write_processor(folder)
    return str(folder)


@pytest.mark.parametrize("kind", [transformers.CLIPConfig, transformers.SiglipConfig])
def test_of_networks_that_read_text_too_the_vision_tower_is_trained(
    things: dict[str, Any], tmp_path: Path, kind: Any
) -> None:
    source = written(tmp_path / "model", kind(vision_config=SMALL, text_config=TEXT))
    whole = transformers.AutoModel.from_pretrained(source).eval()
    model = embedder.load_embedder(source, ["a", "b"], seed=0)
    assert model.module.how == "pooled"
    with torch.no_grad():
        wanted = whole.vision_model(**model.example).pooler_output
        found = model.module.eval()(**model.example).logits[:, 2:]
    torch.testing.assert_close(found, functional.normalize(wanted, dim=1), atol=1e-4, rtol=1e-4)
    run = tunesmith.finetune(
        {**things, "model": source, "method": "full", "train": TRAIN | {"epochs": 1}}, run=tmp_path / "run"
    )
    assert type(transformers.AutoModel.from_pretrained(run.model)).__name__.endswith("VisionModel")
    assert tunesmith.load(run.folder).predict([str(Path(things["data"]) / "thing 00" / "0.png")])


def test_what_automodel_does_not_open_for_images_alone_is_refused(tmp_path: Path) -> None:
    text = TEXT | {"bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0}
    source = written(tmp_path / "model", transformers.BlipConfig(vision_config=SMALL, text_config=text))
    with pytest.raises(ModelError, match="does not open its vision tower"):
        embedder.load_embedder(source, ["a"], seed=0)


def test_a_masked_autoencoder_reads_the_whole_image(
    things: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(tmp_path / "model", transformers.ViTMAEConfig(**SMALL))
    run = tunesmith.finetune(
        {**things, "model": source, "method": "full", "train": TRAIN | {"epochs": 1}}, run=tmp_path / "run"
    )
    predictor = tunesmith.load(run.folder)
    one, other = (predictor.predict([str(Path(things["data"]) / "thing 00" / "0.png")])[0] for _ in range(2))
    np.testing.assert_allclose(one["embedding"], other["embedding"], atol=1e-2)
    assert transformers.AutoConfig.from_pretrained(run.model).mask_ratio == 0
    monkeypatch.setattr(embedder, "_of_images", lambda config, source: config)
    with pytest.raises(ModelError, match="another vector at each pass"):
        embedder.load_embedder(source, ["a", "b"], seed=0)


def test_without_a_class_token_the_mean_over_places_is_the_vector(tmp_path: Path) -> None:
    source = written(tmp_path / "model", transformers.IJepaConfig(**SMALL))
    model = embedder.load_embedder(source, ["a", "b"], seed=0)
    assert model.module.how == "tokens"
    with torch.no_grad():
        wanted = transformers.AutoModel.from_pretrained(source).eval()(**model.example).last_hidden_state.mean(dim=1)
        found = model.module.eval()(**model.example).logits[:, 2:]
    torch.testing.assert_close(found, functional.normalize(wanted, dim=1), atol=1e-4, rtol=1e-4)
    assert "last_hidden_state.mean(dim=1)" in embedder.loading_code(model, "folder")
    embedder.write(model, tmp_path / "saved")
    model.processor.save_pretrained(tmp_path / "saved")
    with torch.no_grad():
        again = embedder.reload_embedder(tmp_path / "saved").module(**model.example).logits[:, 2:]
    torch.testing.assert_close(again, found, atol=1e-4, rtol=1e-4)
