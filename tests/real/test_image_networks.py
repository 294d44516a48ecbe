"""Real networks of images on real data, from the folder shared/ beside the checkout; skipped, and said so, where absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

import tunesmith

SHARED = Path(__file__).parents[3] / "shared"


def given(weights: str, data: str, **more: Any) -> dict[str, Any]:
    places = {"weights": SHARED / "weights" / weights, "data": SHARED / "data" / data}
    for kind, place in places.items():
        if not place.is_dir():
            pytest.skip(f"no folder shared/{kind}/{place.name} beside the checkout")
    return {"model": str(places["weights"]), "data": {"train": str(places["data"])}, **more}


def finished(settings: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    run = tunesmith.finetune(settings | {"evaluate": {"resamples": 100}}, run=folder / "run")
    return run, json.loads(run.report.read_text())


@pytest.mark.parametrize("weights", ["mobilenet-v2-1.0-224", "mobilenet-v1-0.25-128"])
def test_a_probe_of_mobilenet_tells_defects_of_tiles_apart(weights: str, tmp_path: Path) -> None:
    settings = given(weights, "magnetic-tile", method="probe")
    settings["task"] = {"name": "image-classification", "image_size": 64, "metric": "macro_f1"}
    tiles = Path(settings["data"]["train"]) / "splits.csv"
    settings["data"] = {"train": str(tiles), "split_column": "split", "input": "file", "target": "label"}
    run, report = finished(settings, tmp_path)
    assert report["metrics"]["test"]["macro_f1"]["value"] > 0.35  # the commonest class alone has 0.1
    assert report["metrics"]["test"]["macro_f1"]["value"] > 2 * report["baselines"]["majority"]["macro_f1"]["value"]
    picture = next((tiles.parent / "images").rglob("*.jpg"))
    (found,) = tunesmith.load(run.folder).predict([str(picture)])
    pipeline = transformers.pipeline("image-classification", model=str(run.model), use_fast=False)
    best = pipeline(str(picture), top_k=1)[0]
    assert best["label"] == found["prediction"]


def test_a_probe_of_deeplab_knows_streets_from_sky(tmp_path: Path) -> None:
    settings = given("deeplabv3-mobilenet-v2-voc", "camvid", method="probe")
    settings["task"] = {"name": "semantic-segmentation", "ignore": [11], "image_size": [120, 160]}
    run, report = finished(settings, tmp_path)
    by_class = {row["label"]: row for row in report["per_class"]}
    assert report["metrics"]["test"]["mean_iou"]["value"] > 0.15  # the commonest class alone has 0.025
    assert min(by_class[name]["iou"] for name in ("sky", "road")) > 0.3
    assert transformers.AutoModelForSemanticSegmentation.from_pretrained(run.model).config.num_labels == 11


def test_a_detector_on_a_real_backbone_learns_from_blood_cells(tmp_path: Path) -> None:
    settings = given("resnet-cifar10", "bccd", method="full")
    settings["task"] = {"name": "object-detection", "image_size": [96, 128]}
    cells = Path(settings["data"]["train"])
    content = json.loads((cells / "train.json").read_text())
    for split, some in (("train", slice(0, 40)), ("validation", slice(40, 48)), ("test", slice(48, 56))):
        images = content["images"][some]
        kept = {image["id"] for image in images}
        annotations = [one for one in content["annotations"] if one["image_id"] in kept]
        images = [image | {"file_name": str(next(cells.rglob(image["file_name"])))} for image in images]
        part = content | {"images": images, "annotations": annotations}
        (tmp_path / f"{split}.json").write_text(json.dumps(part))
        settings["data"][split] = str(tmp_path / f"{split}.json")
    settings["train"] = {"epochs": 4, "patience": 4}
    run, report = finished(settings, tmp_path)
    losses = [epoch["train_loss"] for epoch in report["curve"]]
    assert losses[-1] < 0.8 * losses[0]
    model = transformers.AutoModelForObjectDetection.from_pretrained(run.model).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(run.model, backend="pil")
    with Image.open(images[0]["file_name"]) as image, torch.no_grad():
        answer = model(**processor(image.convert("RGB"), return_tensors="pt"))
        (found,) = processor.post_process_object_detection(answer, 0.0, [image.size[::-1]])
    assert len(found["boxes"])
    assert set(model.config.id2label.values()) == {"RBC", "WBC", "Platelets"}
