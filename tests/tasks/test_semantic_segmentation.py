"""Masks from loss to prediction: what counts, at which size it is measured, and what other loaders make of the result."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import settings as checks
from hypothesis import strategies as st
from PIL import Image

import tunesmith
from tiny import write_image_model
from tunesmith import prepare, settings
from tunesmith.data.pixels import Pixels
from tunesmith.data.segments import Segments
from tunesmith.data.targets.masks import VOID, packed
from tunesmith.errors import ModelError, SettingsError
from tunesmith.metrics import segmentation
from tunesmith.models import heads
from tunesmith.models.augment import Augment
from tunesmith.models.forward import logits
from tunesmith.models.load_segmenter import load_segmenter
from tunesmith.models.pixels import with_masks
from tunesmith.models.running_statistics import fresh_norms
from tunesmith.models.varied import varied_segments
from tunesmith.tasks import mask_outcomes, tiny_masks
from tunesmith.tasks.semantic_segmentation import SemanticSegmentation

TRAIN = {"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"task": "semantic-segmentation", **SemanticSegmentation.tiny(tmp_path_factory.mktemp("tiny"))}


def segments(masks: list[np.ndarray], side: int = 8) -> Segments:
    values = np.random.default_rng(0).integers(0, 256, (len(masks), 3, side, side), dtype=np.uint8)
    ones = np.ones(3, dtype=np.float32)
    sizes = np.array([mask.shape for mask in masks])
    return with_masks(Pixels(values, ones, 0 * ones, None, "k"), [packed(mask) for mask in masks], sizes, None)


def test_the_loss_is_that_of_every_labelled_pixel() -> None:
    random = np.random.default_rng(0)
    masks = [random.integers(0, 3, (8, 8)).astype(np.uint8) for _ in range(4)]
    masks[1][:, 3:] = VOID
    given, task = segments(masks), SemanticSegmentation(SemanticSegmentation.Settings())
    answer = torch.from_numpy(random.normal(size=(4, 3, 8, 8)).astype(np.float32))
    found = task.loss(answer, given, np.arange(4))
    flat = torch.log_softmax(answer, dim=1)
    single = [
        -flat[image, mask[row, column], row, column].item()
        for image, mask in enumerate(masks)
        for row in range(8)
        for column in range(8)
        if mask[row, column] != VOID
    ]
    assert found.count == pytest.approx(len(single) / 64)
    assert (found.sum / found.count).item() == pytest.approx(np.mean(single), rel=1e-5)
    parts = [task.loss(answer[part], given, np.array(part)) for part in ([0], [1, 2], [3])]
    assert sum(part.sum.item() for part in parts) == pytest.approx(found.sum.item(), rel=1e-5)
    assert sum(part.count for part in parts) == pytest.approx(found.count)


def test_figures_are_those_of_masks_at_their_own_size(rows: dict[str, Any], tmp_path: Path) -> None:
    """As transformers' own post-processing gives them; the network reads 32 × 32, and images are 40 × 30."""
    ready = prepare.prepare(settings.parse({**rows, "method": "full"}), tmp_path, torch.device("cpu"), lambda _: None)
    found = logits(ready.task, ready.model, ready.validation, "fp32")
    counts = mask_outcomes.counts_of(found, ready.validation.sizes)
    every = np.arange(len(ready.validation))
    with torch.no_grad():
        answer = ready.model.module.eval()(**ready.task.inputs(ready.validation, every, ready.model))
    maps = ready.model.processor.post_process_semantic_segmentation(answer, [(30, 40)] * len(every))
    for row, one in enumerate(maps):
        wanted = segmentation.confusion(ready.validation.drawn(row), one.numpy(), 3, VOID)
        np.testing.assert_array_equal(counts[row], wanted)
    assert ready.task.score(ready.validation, found)["loss"] == pytest.approx(
        (ready.task.loss(answer.logits, ready.validation, every).sum / ready.validation.count(every)).item(), rel=1e-4
    )


def test_always_the_commonest_class_is_measured_like_any_answer() -> None:
    masks = [np.zeros((8, 8), dtype=np.uint8) for _ in range(3)]
    masks[0][:2] = 1
    given = segments(masks)
    shares = np.array([0.9, 0.1])
    found = mask_outcomes.constant(given, shares)
    assert mask_outcomes.counts_of(found, given.sizes).sum(axis=0).tolist() == [[176, 0], [16, 0]]
    assert mask_outcomes.loss_of(found) == pytest.approx(-(176 * np.log(0.9) + 16 * np.log(0.1)) / 192, rel=1e-5)


@checks(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_masks_move_with_their_images(seed: int) -> None:
    """The image shows the mask itself, so that afterwards it must still show it, away from edges that are mixed."""
    random = np.random.default_rng(seed)
    mask = np.kron(random.integers(0, 2, (4, 4)), np.ones((8, 8))).astype(np.uint8)
    values = (255 * mask)[None, None].astype(np.uint8)
    one = np.ones(1, dtype=np.float32)
    plain = with_masks(Pixels(values, one, 0 * one, None, "k"), [packed(mask)], np.array([[32, 32]]), None)
    how = Augment(flip=True, flip_vertical=True, rotate=40, crop=0.5)
    seen = varied_segments(plain, how, 4, seed)
    for view in range(4):
        image, moved = seen.batch(np.array([view]))[0, 0], seen.truth(np.array([view]))[0]
        sure = np.abs(image - 127.5) > 110
        assert sure.mean() > 0.5
        assert ((image > 127.5) == moved)[sure].mean() > 0.99
    np.testing.assert_array_equal(seen.truth(np.array([0]))[0], mask)
    for asked in (np.array([2, 0, 2]), np.arange(4), np.arange(4)):
        assert seen.count(asked) == pytest.approx((seen.truth(asked) != VOID).mean(axis=(1, 2)).sum())


def test_a_run_leaves_masks_that_the_report_and_other_loaders_show(rows: dict[str, Any], tmp_path: Path) -> None:
    wanted = {**rows, "method": "full", "train": TRAIN, "task": {"name": rows["task"], "class_weights": "root"}}
    done = tunesmith.finetune(wanted, run=tmp_path / "run")
    report = json.loads(done.report.read_text())
    assert report["primary_metric"] == "mean_iou"
    assert report["metrics"]["test"]["mean_iou"]["value"] > report["baselines"]["majority"]["mean_iou"]["value"]
    assert [row["label"] for row in report["per_class"]] == ["grey", "box", "disc"]
    for row in report["per_class"]:
        assert row["interval"]["low"] <= row["iou"] <= row["interval"]["high"]
    assert len(report["mistakes"][0]["panels"]) == 3
    page = done.page.read_text()
    assert "mean IoU" in page
    assert "The images that it got most wrong" in page
    assert "task.class_weights" in page
    image = next((Path(rows["data"]) / "images").iterdir())
    found = tunesmith.load(done.folder).predict([str(image)])[0]
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(found["mask"]))))
    processor = transformers.AutoImageProcessor.from_pretrained(done.model, backend="pil")
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(done.model)
    with torch.no_grad():
        answer = network(**processor(Image.open(image), return_tensors="pt"))
    again = processor.post_process_semantic_segmentation(answer, [(30, 40)])[0].numpy()
    assert (mask == again).mean() > 0.99
    assert found["prediction"][0] == ("grey", "box", "disc")[np.bincount(mask.reshape(-1)).argmax()]
    assert found["score_grey"] == pytest.approx((mask == 0).mean())
    evaluated = tunesmith.load(done.folder).evaluate(rows["data"])
    assert 0 < evaluated["metrics"]["test"]["mean_iou"]["value"] <= 1
    same = tunesmith.compare([done.folder, done.folder])
    assert same["runs"][1]["difference"]["value"] == 0


def test_masks_may_be_a_reference_too(rows: dict[str, Any], tmp_path: Path) -> None:
    wanted = {**rows, "method": "full", "train": {**TRAIN, "epochs": 1}}
    reference = {"name": "same", "data": rows["data"]}
    done = tunesmith.finetune({**wanted, "evaluate": {"retention": [reference]}}, run=tmp_path / "run")
    (kept,) = json.loads(done.report.read_text())["retention"]
    assert kept["metric"] == "mean_iou"
    assert kept["before"]["value"] > 0.5
    assert "neighbours" not in kept


@pytest.mark.parametrize("architecture", ["resnet", "convnext", "swin", "dinov2", "mobilenet-v2"])
def test_a_backbone_without_a_head_gets_one(tmp_path: Path, architecture: str) -> None:
    folder = write_image_model(tmp_path / "model", architecture)
    model = load_segmenter(str(folder), ["a", "b"], seed=0)
    assert next(
        tensor for name, tensor in model.module.named_parameters() if name == model.stages[0].parameters[0]
    ).numel()
    pre_trained = transformers.AutoModelForImageClassification.from_pretrained(folder).state_dict()
    kept = [tensor for name, tensor in model.module.state_dict().items() if name.startswith(model.backbone)]
    known = {(tensor.shape, float(tensor.double().sum())) for tensor in pre_trained.values()}
    held = sum((tensor.shape, float(tensor.double().sum())) in known for tensor in kept)
    assert held > 0.8 * len(kept)
    with torch.no_grad():
        assert model.module.eval()(**model.example).logits.shape[:2] == (1, 2)


def test_a_new_heads_statistics_come_from_the_data_and_are_the_same_every_time(
    tmp_path: Path, rows: dict[str, Any]
) -> None:
    folder = write_image_model(tmp_path / "model", "resnet")
    wanted = settings.parse({**rows, "model": str(folder), "method": "probe"})
    states = []
    for number in range(2):
        ready = prepare.prepare(wanted, tmp_path / str(number), torch.device("cpu"), lambda _: None)
        assert not fresh_norms(ready.model)
        states.append(ready.model.module.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_sizes_may_be_oblong_and_of_ones_choice(rows: dict[str, Any]) -> None:
    model = load_segmenter(rows["model"], ["a", "b"], seed=0, size=(24, 40))
    assert model.example["pixel_values"].shape[2:] == (24, 40)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"class_weights": {"grey": 1, "bx": 2}}, "'bx'.*did you mean 'box'"),
        ({"metric": "miou"}, "metric"),
        ({"clases": ["a"]}, "did you mean 'classes'"),
    ],
)
def test_wrong_settings_are_one_sentence(rows: dict[str, Any], tmp_path: Path, more: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        tunesmith.finetune({**rows, "task": {"name": rows["task"], **more}}, run=tmp_path / "run")


@pytest.mark.parametrize("more", [{"cutmix": 1}, {"r_drop": 1, "dropout": 0.1}])
def test_guards_of_whole_labels_are_refused(rows: dict[str, Any], tmp_path: Path, more: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=rf"train.{next(iter(more))} is for tasks that give each input one answer"):
        tunesmith.finetune({**rows, "method": "full", "train": {**TRAIN, **more}}, run=tmp_path / "run")


SEGMENTERS = {
    "beit": lambda: transformers.BeitConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        out_indices=[1, 2, 3, 4],
    ),
    "dpt": lambda: transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=16, is_hybrid=False,
    ),
    "upernet": lambda: transformers.UperNetConfig(
        backbone_config=transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage1", "stage2"]
        ),
        hidden_size=16,
        use_auxiliary_head=True,
        auxiliary_in_channels=8,
    ),
    "mobilevit": lambda: transformers.MobileViTConfig(
        image_size=32, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 16, 16, 32], aspp_out_channels=16
    ),
}  # fmt: skip


@pytest.mark.parametrize("architecture", SEGMENTERS)
@pytest.mark.parametrize("classes", [3, 128])
def test_the_layer_that_is_solved_for_is_the_one_that_decides(tmp_path: Path, architecture: str, classes: int) -> None:
    """Auxiliary heads, and inner layers of as many outputs as there are classes, look like it and are not."""
    config = SEGMENTERS[architecture]()
    config.architectures = ["ForSemanticSegmentation"]
    torch.manual_seed(0)
    transformers.AutoModelForSemanticSegmentation.from_config(config).save_pretrained(tmp_path)
    tiny_masks.SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model = load_segmenter(str(tmp_path), [f"class {number}" for number in range(classes)], seed=0)
    layer = heads.last_layer(model)
    heads.make_exact(model)
    assert heads.last_layer(model) is layer
    heads.install(layer, np.zeros((classes, heads.width_of(model))), np.arange(classes, dtype=np.float64))
    with torch.no_grad():
        found = model.module.eval()(**model.example).logits
    assert found.shape[1] == classes
    torch.testing.assert_close(found.mean(dim=(0, 2, 3)), torch.arange(classes, dtype=torch.float32))


def test_a_model_that_reads_text_is_refused(tmp_path: Path) -> None:
    from tiny import write_model  # noqa: PLC0415

    with pytest.raises(ModelError):
        load_segmenter(str(write_model(tmp_path / "bert")), ["a", "b"], seed=0)
