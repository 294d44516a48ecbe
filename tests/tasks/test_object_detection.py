"""Boxes from loss to prediction: what counts, what is kept of a detector, and what other loaders make of the result."""

from __future__ import annotations

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
from safetensors.torch import load_file, save_file
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss
from transformers.loss.loss_rt_detr import RTDetrLoss
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

import tunesmith
from tiny import write_boxes, write_image_model
from tunesmith import prepare, settings
from tunesmith.data.boxed import boxed
from tunesmith.data.pixels import Pixels
from tunesmith.errors import DataError, ModelError, SettingsError
from tunesmith.evaluate import retention
from tunesmith.models import save
from tunesmith.models.augment import Augment
from tunesmith.models.forward import logits
from tunesmith.models.freezing import apply_phase
from tunesmith.models.load_detector import load_detector, smaller
from tunesmith.models.varied import varied_boxed
from tunesmith.settings import Named, ReferenceSettings
from tunesmith.tasks import box_outcomes, tiny_boxes
from tunesmith.tasks.object_detection import ObjectDetection
from tunesmith.tasks.set_loss import set_losses

TRAIN = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"task": "object-detection", **ObjectDetection.tiny(tmp_path_factory.mktemp("tiny"))}


def truth(random: np.random.Generator, images: int, classes: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to five boxes an image; the first has none."""
    found = []
    for image in range(images):
        sizes = random.uniform(0.05, 0.4, (0 if not image else int(random.integers(1, 6)), 2))
        middles = random.uniform(0.2, 0.8, sizes.shape)
        found.append((np.concatenate([middles, sizes], axis=1), random.integers(0, classes, len(sizes))))
    return found


def answers(images: int, layers: int, queries: int, outputs: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand((images, layers, queries, 4), generator=draw) * 0.5 + 0.1
    return torch.cat([torch.randn((images, layers, queries, outputs), generator=draw), boxes], dim=-1)


@pytest.mark.parametrize("outputs", [3, 4])
def test_the_loss_is_the_same_however_a_step_is_cut(outputs: int) -> None:
    known = truth(np.random.default_rng(0), 5)
    found = answers(5, 2, 8, outputs).requires_grad_()
    set_losses(found, known, 3).sum().backward()
    whole = found.grad
    found.grad = None
    for part in ([0], [1, 2], [3, 4]):
        set_losses(found[part], [known[image] for image in part], 3).sum().backward()
    torch.testing.assert_close(found.grad, whole)


def labels(known: tuple[np.ndarray, np.ndarray]) -> list[dict[str, torch.Tensor]]:
    boxes, classes = known
    return [{"class_labels": torch.from_numpy(classes), "boxes": torch.from_numpy(boxes).float()}]


def test_the_loss_of_an_image_is_that_of_rt_detr() -> None:
    criterion = RTDetrLoss(transformers.RTDetrConfig(num_labels=3))
    found = answers(4, 1, 8, 3)
    for image, known in enumerate(truth(np.random.default_rng(1), 4)):
        one = {"logits": found[image, :, :, :3], "pred_boxes": found[image, :, :, 3:]}
        wanted = sum(criterion(one, labels(known)).values()) * max(1, len(known[0]))
        assert set_losses(found[image : image + 1], [known], 3).item() == pytest.approx(float(wanted), rel=1e-4)


def test_the_loss_of_an_image_is_that_of_detr_where_classes_share_a_probability() -> None:
    matcher = HungarianMatcher(class_cost=2, bbox_cost=5, giou_cost=2)
    criterion = ImageLoss(matcher, 3, 0.1, ["labels", "boxes"])
    found = answers(4, 1, 8, 4)
    for image, known in enumerate(truth(np.random.default_rng(2), 4)):
        one = {"logits": found[image, :, :, :4], "pred_boxes": found[image, :, :, 4:]}
        parts = criterion(one, labels(known))
        wanted = (parts["loss_ce"] + 5 * parts["loss_bbox"] + 2 * parts["loss_giou"]) * max(1, len(known[0]))
        assert set_losses(found[image : image + 1], [known], 3).item() == pytest.approx(float(wanted), rel=1e-4)


def test_more_boxes_than_queries_are_no_error() -> None:
    random = np.random.default_rng(3)
    known = (random.uniform(0.3, 0.5, (9, 4)), random.integers(0, 3, 9))
    assert torch.isfinite(set_losses(answers(1, 2, 4, 3), [known], 3)).all()


def some(known: list[tuple[np.ndarray, np.ndarray]], side: int = 32) -> Any:
    values = np.random.default_rng(0).integers(0, 256, (len(known), 3, side, side), dtype=np.uint8)
    ones = np.ones(3, dtype=np.float32)
    targets = []
    for boxes, classes in known:
        corners = box_outcomes.in_pixels(boxes, np.array([side, side]))
        targets.append(
            {
                "boxes": corners.reshape(-1).tolist(), "classes": classes.tolist(), "ignored": [], "ignored_classes": [],
                "cut": 0, "set_aside": [],
            }
        )  # fmt: skip
    return boxed(Pixels(values, ones, 0 * ones, None, "k"), targets, np.full((len(known), 2), side))


@checks(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_boxes_move_with_their_images(seed: int) -> None:
    """The only bright thing in the image is what the box is around, and must still be."""
    random = np.random.default_rng(seed)
    side, (left, top), (width, height) = 64, random.integers(16, 32, 2), random.integers(10, 16, 2)
    values = np.zeros((1, 1, side, side), dtype=np.uint8)
    values[0, 0, top : top + height, left : left + width] = 255
    one = np.ones(1, dtype=np.float32)
    target = {
        "boxes": [left, top, left + width, top + height], "classes": [1], "ignored": [], "ignored_classes": [],
        "cut": 0, "set_aside": [],
    }  # fmt: skip
    plain = boxed(Pixels(values, one, 0 * one, None, "k"), [target], np.array([[side, side]]))
    seen = varied_boxed(plain, Augment(flip=True, flip_vertical=True, crop=0.6), 6, seed)
    for view in range(6):
        bright = np.argwhere(seen.batch(np.array([view]))[0, 0] > 127)
        [(boxes, classes)] = seen.truth(np.array([view]))
        assert len(boxes) == len(classes)
        if not len(boxes):  # most of it has left the image
            assert len(bright) < 0.5 * width * height / 0.6
            continue
        corners = box_outcomes.in_pixels(boxes, np.array([side, side]))[0]
        np.testing.assert_allclose(corners[[1, 0]], bright.min(axis=0), atol=1.5)
        np.testing.assert_allclose(corners[[3, 2]], bright.max(axis=0) + 1, atol=1.5)
    assert seen.truth(np.array([0]))[0][0] == pytest.approx(plain.truth(np.array([0]))[0][0])
    for asked in (np.array([2, 0, 2]), np.arange(6), np.arange(6)):  # what is known already counts like what is new
        assert seen.count(asked) == sum(max(1, len(boxes)) for boxes, _ in seen.truth(asked))


def test_what_is_found_is_what_transformers_finds(rows: dict[str, Any], tmp_path: Path) -> None:
    ready = prepare.prepare(settings.parse({**rows, "method": "full"}), tmp_path, torch.device("cpu"), lambda _: None)
    every = np.arange(len(ready.validation))
    with torch.no_grad():
        answer = ready.model.module.eval()(**ready.task.inputs(ready.validation, every, ready.model))
    sizes = ready.validation.sizes
    wanted = ready.model.processor.post_process_object_detection(answer, 0.0, [tuple(size) for size in sizes.tolist()])
    found = box_outcomes.found_in(logits(ready.task, ready.model, ready.validation, "fp32"), sizes)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.scores, other["scores"].numpy(), atol=1e-5)
        sure = np.diff(one.scores, prepend=1) < -1e-4  # of two that are equally sure, either may come first
        np.testing.assert_array_equal(one.classes[sure], other["labels"].numpy()[sure])
        inside = other["boxes"].clamp(torch.zeros(4), torch.full((4,), 64.0)).numpy()
        np.testing.assert_allclose(one.corners[sure], inside[sure], atol=1e-2)
    assert ready.task.score(ready.validation, logits(ready.task, ready.model, ready.validation, "fp32"))["loss"] > 0


def test_always_the_commonest_box_is_measured_like_any_answer(rows: dict[str, Any], tmp_path: Path) -> None:
    ready = prepare.prepare(settings.parse({**rows, "method": "full"}), tmp_path, torch.device("cpu"), lambda _: None)
    found = ready.task.commonest(ready.train, ready.validation, ready.model)
    scores = ready.task.score(ready.validation, found)
    assert 0 <= scores["map"] < 0.3
    assert np.isfinite(scores["loss"])


def test_a_run_from_a_backbone_to_a_pipeline(rows: dict[str, Any], tmp_path: Path) -> None:
    given = {**rows, "method": "full", "task": {"name": "object-detection", "augment": {"flip": True}}, "train": TRAIN}
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["primary_metric"] == "map"
    assert {"map", "map_50", "mar_100"} <= set(report["metrics"]["test"])
    assert {row["interval"]["of"] for row in report["per_class"] if row["interval"]} == {"ap"}
    assert set(report["baselines"]) == {"majority"}  # a head that is not solved for leaves no probe behind
    assert any("small RT-DETR" in reason for reason in report["plan"]["reasons"])
    assert [phase["head"] for phase in report["plan"]["phases"]] == ["train"]
    predictor = tunesmith.load(run.folder)
    picture = Path(rows["data"]).parent / "images" / "000.png"
    with Image.open(picture) as image:
        found, again = predictor.predict([str(picture), np.asarray(image)])
    assert found["boxes"] == again["boxes"]
    processor = transformers.AutoImageProcessor.from_pretrained(run.model, backend="pil")
    model = transformers.AutoModelForObjectDetection.from_pretrained(run.model).eval()
    assert set(model.config.id2label.values()) == set(tiny_boxes.NAMES)
    with Image.open(picture) as image, torch.no_grad():
        answer = model(**processor(image, return_tensors="pt"))
        wanted = processor.post_process_object_detection(answer, predictor.fitted, [image.size[::-1]])[0]
    assert [box["score"] for box in found["boxes"]] == pytest.approx(wanted["scores"].tolist(), abs=2e-2)
    assert predictor.evaluate(rows["data"])["metrics"]["test"]["map"]["value"] >= 0
    other = tunesmith.finetune(given | {"method": "probe"}, run=tmp_path / "other")
    compared = tunesmith.compare([run.folder, other.folder])
    assert json.dumps(compared)


def write_detector(folder: Path, kind: str) -> Path:
    """A detector of two classes and random weights, of an architecture of its own."""
    names = {"id2label": {0: "one", 1: "two"}, "label2id": {"one": 0, "two": 1}}
    small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    resnet = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1], layer_type="basic",
        out_features=["stage1", "stage2", "stage3"],
    )  # fmt: skip
    levels = {
        "encoder_in_channels": [8, 16, 24], "feat_strides": [4, 8, 16], "decoder_in_channels": [32, 32, 32],
        "encoder_hidden_dim": 32, "num_queries": 12, "anchor_image_size": None,
    }  # fmt: skip
    one = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config: Any = {
        "detr": lambda: transformers.DetrConfig(
            use_timm_backbone=False, backbone_config=one, backbone=None, num_queries=12, **small, **heads, **names
        ),
        "yolos": lambda: transformers.YolosConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=[64, 64],
            num_detection_tokens=12, **names,
        ),
        "rt_detr": lambda: transformers.RTDetrConfig(backbone_config=resnet, **small, **heads, **levels, **names),
        "d_fine": lambda: transformers.DFineConfig(
            backbone_config=resnet, num_feature_levels=3, **small, **heads, **levels, **names
        ),
    }[kind]()  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = transformers.AutoModelForObjectDetection.from_config(config)
    for child in module.modules():
        if isinstance(child, torch.nn.BatchNorm2d):  # of a trained network they are not near 0
            torch.nn.init.ones_(child.weight)
    module.save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["detr", "yolos", "rt_detr", "d_fine"])
def test_of_a_detector_only_the_layers_for_classes_are_new(tmp_path: Path, kind: str) -> None:
    folder = write_detector(tmp_path / "model", kind)
    before = transformers.AutoModelForObjectDetection.from_pretrained(folder).state_dict()
    model = load_detector(str(folder), ["a", "b", "c"], seed=0)
    after = model.module.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    of_classes = ("class_embed", "class_labels_classifier", "enc_score_head")
    assert changed
    assert all(any(part in name for part in of_classes) for name in changed)
    head = {name for stage in model.stages if stage.name == "head" for name in stage.parameters}
    assert {name for name in changed if name in dict(model.module.named_parameters())} <= head
    assert model.module.config.id2label == {0: "a", 1: "b", 2: "c"}
    blocks = [stage for stage in model.stages if stage.name.startswith("block ")]
    assert len(blocks) >= 2


@pytest.mark.parametrize("kind", ["detr", "yolos", "rt_detr", "d_fine"])
def test_a_detector_keeps_its_layers_for_the_classes_that_it_knows_in_whatever_order(tmp_path: Path, kind: str) -> None:
    folder = write_detector(tmp_path / "model", kind)
    own = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()
    model = load_detector(str(folder), ["two", "One"], seed=0)
    assert model.module.config.id2label == {0: "two", 1: "One"}
    batch = {"pixel_values": model.example["pixel_values"]}
    with torch.no_grad():
        before, after = own(**batch).logits, model.module.eval()(**batch).logits
    assert torch.allclose(after[..., [1, 0]], before[..., :2], atol=1e-5)
    assert torch.allclose(after[..., 2:], before[..., 2:], atol=1e-5)  # of DETR and YOLOS, that there is nothing
    config = json.loads((folder / "config.json").read_text())
    names = {str(at): name for at, name in enumerate("abcde")}  # written over those that the files' layers are for
    (folder / "config.json").write_text(json.dumps(config | {"id2label": names, "label2id": {}}))
    assert load_detector(str(folder), list("abcde"), seed=0).head == "replaced"
    (folder / "config.json").write_text(json.dumps(config))
    three = load_detector(str(folder), ["two", "one", "three"], seed=0)
    assert not torch.allclose(three.module.eval()(**batch).logits[..., 1], before[..., 0], atol=1e-4)


def test_a_detector_that_knows_the_classes_goes_on_as_it_is(tmp_path: Path) -> None:
    """No rate or epochs of new layers, and the start is measured too, on test and as what training must be better than."""
    folder, data = write_detector(tmp_path / "model", "rt_detr"), write_boxes(tmp_path / "rows")
    given = {"task": "object-detection", "model": str(folder), "data": str(data), "method": "full"}
    other = tunesmith.plan(given)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = dict(enumerate(tiny_boxes.NAMES[::-1]))
    (folder / "config.json").write_text(json.dumps(config | {"label2id": {}}))
    same = tunesmith.plan(given)
    assert any("layers for them are kept" in one for one in same["reasons"])
    assert any("tell classes apart are new" in one for one in other["reasons"])
    assert not any("times the usual epochs" in one for one in same["reasons"])
    rates = [
        {row["stage"]: row["learning_rate"] for row in plan["phases"][-1]["rows"]}["head"] for plan in (same, other)
    ]
    assert rates[0] < rates[1] / 2
    run = tunesmith.finetune(given | {"train": TRAIN}, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert set(report["baselines"]) == {"majority", "before"}
    assert tunesmith.load(run.folder).predict([str(next((tmp_path / "rows").rglob("*.png")))])


@pytest.mark.parametrize(
    ("head", "complaint"), [("own-in-order", None), ("probe", "cannot be solved for anew as a probe")]
)
def test_heads_of_detectors_are_taken_in_order_where_that_is_said(
    head: Any, complaint: str | None, tmp_path: Path
) -> None:
    folder, data = write_detector(tmp_path / "model", "detr"), write_boxes(tmp_path / "rows")
    original, task = load_detector(str(folder), ["other"], seed=0), Named(name="object-detection")
    wanted = [ReferenceSettings(name="old", data=str(data), head=head)]
    given = (wanted, original, task, tmp_path / "cache", 0, "fp32")
    if complaint:
        with pytest.raises(SettingsError, match=complaint):
            retention.prepare(*given)
        return
    (reference,) = retention.prepare(*given)
    own = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()
    batch = {"pixel_values": original.example["pixel_values"]}
    with torch.no_grad():
        found, same = (one(**batch).logits for one in (reference.data.model.module, own))
    assert torch.allclose(found, same, atol=1e-5)


@pytest.mark.parametrize("kind", ["detr", "yolos", "rt_detr", "d_fine"])
def test_what_a_detector_found_before_is_measured_with_its_own_layers_for_classes(tmp_path: Path, kind: str) -> None:
    folder = write_detector(tmp_path / "model", kind)
    data = write_boxes(tmp_path / "rows")
    config = json.loads((folder / "config.json").read_text())
    config |= {"id2label": dict(enumerate(tiny_boxes.NAMES[::-1]))}
    config |= {"label2id": {name: 1 - at for at, name in enumerate(tiny_boxes.NAMES)}}
    (folder / "config.json").write_text(json.dumps(config))
    task = Named(name="object-detection")
    original = load_detector(str(folder), ["other"], seed=0)
    wanted = [ReferenceSettings(name="old", data=str(data))]
    (reference,) = retention.prepare(wanted, original, task, tmp_path / "cache", 0, "fp32")
    assert reference.data.head == "own"
    own = transformers.AutoModelForObjectDetection.from_pretrained(folder).eval()
    examples = reference.data.examples["test"]
    pixels = reference.data.task.inputs(examples, np.arange(2), reference.data.model)["pixel_values"]
    with torch.no_grad():
        logits, here = (one(pixel_values=pixels).logits for one in (own, reference.data.model.module))
    swapped = [reference.data.task.classes - 1 - at for at in range(2)]
    assert torch.allclose(here[..., swapped], logits[..., :2], atol=1e-6)
    same = retention.measure(reference, original)
    assert same.primary.before == same.primary.after
    assert all(value == pytest.approx(1, abs=1e-4) for value in same.cka.values())
    with torch.no_grad():
        for parameter in original.module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    assert min(retention.measure(reference, original).cka.values()) < 0.999


@pytest.mark.parametrize("kind", ["detr", "yolos", "rt_detr", "d_fine"])
def test_detectors_of_every_kind_learn_and_come_back(rows: dict[str, Any], tmp_path: Path, kind: str) -> None:
    folder = write_detector(tmp_path / "model", kind)
    given = {**rows, "model": str(folder), "method": "full", "train": TRAIN | {"epochs": 4, "patience": 4}}
    run = tunesmith.finetune(given, run=tmp_path / "run")
    curve = json.loads(run.report.read_text())["curve"]
    assert min(epoch["train_loss"] for epoch in curve[1:]) < 0.95 * curve[0]["train_loss"]


def test_batch_norm_of_a_new_head_follows_and_that_of_the_backbone_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    resnet = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1], layer_type="basic")
    transformers.ResNetModel(resnet).save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    data = str(tiny_boxes.write_boxes(tmp_path / "rows", rows=20))
    given = {"task": "object-detection", "model": str(folder), "data": data, "method": "full"}
    ready = prepare.prepare(settings.parse(given), tmp_path / "cache", torch.device("cpu"), lambda _: None)
    ready.model.module.train()
    apply_phase(ready.model.module, ready.model.stages, ready.frontier.candidates[0].phases[-1])
    modes = {
        name.startswith(f"{ready.model.backbone}."): child.training
        for name, child in ready.model.module.named_modules()
        if isinstance(child, torch.nn.BatchNorm2d)
    }
    assert modes == {True: False, False: True}


def test_a_head_that_cannot_be_solved_for_has_its_own_rate_and_more_epochs(
    rows: dict[str, Any], tmp_path: Path
) -> None:
    found = tunesmith.plan({**rows, "method": "full"})
    [phase] = found["phases"]
    rates = {row["stage"]: row["learning_rate"] for row in phase["rows"]}
    assert rates["head"] == pytest.approx(5 * 1e-4 * (384 / 128) * (16 / 64) ** 0.5)  # of the head's own width
    assert rates["block 0"] == pytest.approx(5e-4)  # of the last map's, 32: the highest that there is
    assert phase["epochs"] == 50
    assert found["patience"] == 10
    fixed = tunesmith.plan({**rows, "method": "full", "train": {"patience": 3, "epochs": 4}})
    assert (fixed["patience"], fixed["phases"][0]["epochs"]) == (3, 4)


OF_INPUTS = {"mixup_of": "inputs"}


@pytest.mark.parametrize(
    "guard",
    [{"mixup": 0.2}, {"mixup": 0.2, **OF_INPUTS}, OF_INPUTS, {"cutmix": 1.0}, {"distil": 1.0}, {"r_drop": 1.0}],
)
def test_guards_for_answers_about_whole_images_are_refused(rows: dict[str, Any], tmp_path: Path, guard: Any) -> None:
    with pytest.raises(SettingsError, match=next(iter(guard))):
        tunesmith.finetune({**rows, "method": "full", "train": TRAIN | guard}, run=tmp_path / "run")


def test_backbones_of_one_scale_and_sides_that_do_not_fit_are_refused(rows: dict[str, Any], tmp_path: Path) -> None:
    beit = write_image_model(tmp_path / "beit", "beit")
    with pytest.raises(ModelError, match="all of one size"):
        load_detector(str(beit), ["a"], seed=0, size=(64, 64))
    with pytest.raises(ModelError, match=r"\[64, 96\]"):
        load_detector(rows["model"], ["a"], seed=0, size=(60, 100))


def test_images_under_a_new_head_keep_about_their_shape() -> None:
    assert smaller((480, 640)) == (288, 384)
    assert smaller((64, 64)) == (64, 64)
    assert smaller((3000, 1000)) == (544, 192)


def test_a_detector_that_keeps_the_shape_of_images_is_given_them_in_their_shape(tmp_path: Path) -> None:
    folder = write_detector(tmp_path / "model", "detr")
    transformers.DetrImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 150}).save_pretrained(folder)
    for usual, wanted in (((480, 640), (96, 128)), ((64, 64), (96, 96)), ((1000, 200), (160, 64))):
        model = load_detector(str(folder), ["a"], seed=0, usual=usual)
        assert model.example["pixel_values"].shape[2:] == wanted
    model = load_detector(str(folder), ["a"], seed=0, size=(64, 96))
    assert model.example["pixel_values"].shape[2:] == (64, 96)


def coco(folder: Path, images: int, classes: int, boxes: Any) -> Path:
    """Noise, with the boxes that `boxes` gives an image, in a COCO file; a category for each class."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    found: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    found["categories"] = [{"id": index, "name": f"thing\n{index}"} for index in range(classes)]
    for number in range(images):
        name = f"images/{number:03}.png"
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / name)
        found["images"].append({"id": number, "file_name": name, "width": 64, "height": 64})
        for box in boxes(number):
            entry = {"id": len(found["annotations"]), "image_id": number, "category_id": number % classes, "bbox": box}
            found["annotations"].append(entry)
    file = folder / "train.json"
    file.write_text(json.dumps(found))
    return file


@pytest.mark.parametrize("kind", ["light", "rt_detr"])
def test_there_may_be_one_class_alone(rows: dict[str, Any], tmp_path: Path, kind: str) -> None:
    model = rows["model"] if kind == "light" else str(write_detector(tmp_path / "model", kind))
    data = str(coco(tmp_path / "rows", 30, 1, lambda _: [[5, 5, 20, 20]]))
    given = {**rows, "model": model, "data": data, "method": "full", "train": TRAIN | {"epochs": 1}}
    run = tunesmith.finetune(given, run=tmp_path / "run")
    assert json.loads(run.report.read_text())["labels"] == ["thing\n0"]


@pytest.mark.parametrize("kind", ["detr", "yolos", "rt_detr", "light"])
def test_boxes_are_not_rounded_in_bf16(rows: dict[str, Any], tmp_path: Path, kind: str) -> None:
    folder = rows["model"] if kind == "light" else str(write_detector(tmp_path / "model", kind))
    model = load_detector(folder, ["a", "b"], seed=0, usual=(64, 64))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.module.eval()(**model.example)
    assert output.pred_boxes.dtype == torch.float32
    assert output.logits.dtype == torch.float32


def test_a_split_without_a_box_is_refused_before_training(rows: dict[str, Any], tmp_path: Path) -> None:
    some = str(coco(tmp_path / "some", 30, 2, lambda _: [[5, 5, 20, 20]]))
    none = str(coco(tmp_path / "none", 5, 2, lambda _: []))
    for split in ("validation", "test"):
        with pytest.raises(DataError, match=f"The {split} split has no box"):
            tunesmith.finetune({**rows, "data": {"train": some, split: none}}, run=tmp_path / "run")
    outside = str(coco(tmp_path / "outside", 30, 2, lambda _: [[100, 100, 20, 20]]))
    with pytest.raises(DataError, match="no box that counts"):
        tunesmith.finetune({**rows, "data": outside}, run=tmp_path / "run")


def test_no_box_of_a_crowded_image_is_left_out(rows: dict[str, Any], tmp_path: Path) -> None:
    crowded = [[float(x), float(y), 4.0, 4.0] for x in range(0, 60, 5) for y in range(0, 60, 5)]
    data = str(coco(tmp_path / "rows", 20, 2, lambda _: crowded))
    given = settings.parse({**rows, "data": data, "method": "full"})
    ready = prepare.prepare(given, tmp_path / "cache", torch.device("cpu"), lambda _: None)
    found = logits(ready.task, ready.model, ready.validation, "fp32")
    assert len(box_outcomes.found_in(found, ready.validation.sizes)[0].scores) == 216  # half as many again as 144


def test_architectures_that_train_in_a_way_of_their_own_are_refused(tmp_path: Path) -> None:
    transformers.LwDetrConfig().save_pretrained(tmp_path)
    save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
    RTDetrImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="a way of its own"):
        load_detector(str(tmp_path), ["a"], seed=0)


def test_references_need_a_head_that_can_be_solved_for(rows: dict[str, Any], tmp_path: Path) -> None:
    wanted = {"retention": [{"name": "old", "data": rows["data"]}]}
    with pytest.raises(SettingsError, match="cannot be solved for"):
        tunesmith.finetune({**rows, "method": "full", "evaluate": wanted}, run=tmp_path / "run")


@pytest.mark.parametrize("part", ["class_embed", "bbox_embed"])
def test_a_saved_detector_with_another_head_is_noticed(
    rows: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    whole = save.save

    def spoilt(model: Any, folder: Path) -> None:
        whole(model, folder)
        tensors = load_file(folder / "model.safetensors")
        for name, tensor in tensors.items():
            if part in name:
                tensors[name] = tensor + 0.1 * torch.randn_like(tensor)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(save, "save", spoilt)
    with pytest.raises(ModelError, match="is not the trained one"):
        tunesmith.finetune({**rows, "method": "full", "train": TRAIN | {"epochs": 1}}, run=tmp_path / "run")
