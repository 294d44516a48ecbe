"""Images of another size than a network was pre-trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tunesmith
from references import ready_of, referred
from tiny import IMAGE_SIDE, write_image_model, write_images
from tunesmith.errors import ModelError, SettingsError
from tunesmith.evaluate import retention
from tunesmith.models import image_size
from tunesmith.models.load_images import load_image_classifier, reading_of
from tunesmith.models.pixels import find_reading
from tunesmith.settings import parse

LABELS = ["a", "b"]


@pytest.mark.parametrize(
    "architecture", ["vit", "deit", "beit", "dinov2", "swin", "convnext", "resnet", "mobilenet-v2"]
)
def test_networks_read_other_sizes(tmp_path: Path, architecture: str) -> None:
    folder = write_image_model(tmp_path, architecture)
    side = 48 if architecture in IMAGE_SIDE else 64
    model = load_image_classifier(str(folder), LABELS, "single-label", seed=0, side=side)
    assert reading_of(model).shape == (3, side, side)
    assert model.module(pixel_values=torch.randn(2, 3, side, side)).logits.shape == (2, 2)
    plain = load_image_classifier(str(folder), LABELS, "single-label", seed=0)
    ours, theirs = model.module.state_dict(), plain.module.state_dict()
    same = [name for name in theirs if theirs[name].shape == ours[name].shape]
    assert all(torch.equal(ours[name], theirs[name]) for name in same)
    changed = set(theirs) - set(same)
    assert changed == ({name for name in theirs if name.endswith("position_embeddings")} if changed else set())
    assert bool(changed) == (architecture in ("vit", "deit"))


def test_position_embeddings_are_interpolated_as_the_class_does_it_itself(tmp_path: Path) -> None:
    folder = write_image_model(tmp_path, "vit")
    wanted = transformers.AutoModelForImageClassification.from_pretrained(folder).vit.embeddings
    ours = load_image_classifier(str(folder), LABELS, "single-label", seed=0, side=40).module.vit.embeddings
    theirs = wanted.interpolate_pos_encoding(torch.zeros(1, 1 + 25, 32), 40, 40)
    torch.testing.assert_close(ours.position_embeddings, theirs, atol=1e-5, rtol=0)


class Fixed(torch.nn.Module):
    """Every pixel has a weight of its own."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.dense = torch.nn.Linear(3 * config.image_size**2, 2)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.dense(pixel_values.flatten(1))
        return found


def test_a_network_of_one_size_only_is_refused() -> None:
    with pytest.raises(ModelError, match=r"images of one size: dense\.weight cannot be interpolated"):
        image_size.fitted(Fixed(transformers.ViTConfig(image_size=16)), (24, 24), 3)
    fixed = Fixed(transformers.ViTConfig(image_size=16))
    fixed.config = transformers.BertConfig()
    with pytest.raises(ModelError, match="takes no images of 24 pixels"):
        image_size.fitted(fixed, (24, 24), 3)


def test_crops_keep_their_share_of_the_image() -> None:
    processor: Any = transformers.MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, do_center_crop=True
    )
    image_size.set_size(processor, 112, 3)
    assert dict(processor.size)["shortest_edge"] == 128
    assert processor.crop_size["height"] == 112


def test_an_edge_without_a_crop_is_the_side() -> None:
    processor: Any = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875)
    image_size.set_size(processor, 48, 3)
    assert find_reading(processor, 3).shape == (3, 48, 48)


def test_adapters_are_not_kept_beside_files_of_another_size(tmp_path: Path) -> None:
    given = {
        "task": {"name": "image-classification", "image_size": 24},
        "model": str(write_image_model(tmp_path / "model", "vit")),
        "data": str(write_images(tmp_path / "images", 60)),
        "method": {"name": "lora", "merge": False},
    }
    with pytest.raises(SettingsError, match="another size"):
        tunesmith.plan(given)


def test_a_reference_is_read_at_the_size_of_the_run(tmp_path: Path) -> None:
    images = str(write_images(tmp_path / "images", 60))
    given = {
        "task": {"name": "image-classification", "image_size": 24},
        "model": str(write_image_model(tmp_path / "model", "vit")),
        "data": images,
    }
    ready = ready_of(given | {"method": "probe"}, tmp_path)
    reference = referred(ready, Path(images), tmp_path)
    assert reference.data.examples["test"].values.shape[2:] == (24, 24)  # type: ignore[attr-defined]
    assert retention.kept(reference, ready.model) == 1.0


def test_a_run_leaves_a_model_of_that_size(tmp_path: Path) -> None:
    given = {
        "task": {"name": "image-classification", "image_size": 24},
        "model": str(write_image_model(tmp_path / "model", "vit")),
        "data": str(write_images(tmp_path / "images", 60)),
        "method": "full",
        "train": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"},
        "evaluate": {"resamples": 100},
    }
    run = tunesmith.finetune(given, run=tmp_path / "run")
    assert json.loads((run.model / "config.json").read_text())["image_size"] == 24
    assert json.loads((run.model / "preprocessor_config.json").read_text())["size"] == {"height": 24, "width": 24}
    image = next((tmp_path / "images").rglob("*.png"))
    assert tunesmith.load(run.folder).predict([str(image)])[0]["prediction"] in ("across", "down")


def test_it_is_no_setting_of_a_network_of_ones_own(tmp_path: Path) -> None:
    given = {
        "task": {"name": "image-classification", "image_size": 24},
        "model": {"python": "nets:small", "size": 16},
        "data": str(write_images(tmp_path / "images", 60)),
    }
    with pytest.raises(SettingsError, match="is for models") as refused:
        tunesmith.plan(parse(given))
    assert refused.value.mend == "Set model.size."
