"""Image networks of every kind split into stages, are frozen whole, and read pixels as their processors make them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from tiny import IMAGE_ARCHITECTURES, write_image_model, write_images, write_processor
from tunesmith.contracts import Model
from tunesmith.data import picture
from tunesmith.errors import ModelError
from tunesmith.models import adapters, pixels, save
from tunesmith.models.freezing import apply_phase
from tunesmith.models.heads import last_layer
from tunesmith.models.load_images import load_image_classifier, reading_of, reload_images
from tunesmith.plans import HEAD, Adapter, Phase, Row

BLOCKS = {
    "vit": 2, "deit": 2, "beit": 2, "dinov2": 2, "swin": 4, "convnext": 4, "resnet": 4, "mobilenet-v1": 26,
    "mobilenet-v2": 16, "efficientnet": 8,
}  # fmt: skip


def load(folder: Path, architecture: str) -> Model:
    return load_image_classifier(str(write_image_model(folder, architecture)), ("a", "b", "c"), "single-label", seed=0)


@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_each_parameter_lies_in_one_stage_and_stages_come_in_the_order_of_execution(
    tmp_path: Path, architecture: str
) -> None:
    model = load(tmp_path, architecture)
    module = model.module
    names = [parameter for stage in model.stages for parameter in stage.parameters]
    assert sorted(names) == sorted(name for name, _ in module.named_parameters())
    assert [stage.name for stage in model.stages if stage.name.startswith("block")] == [
        f"block {number}" for number in range(BLOCKS[architecture])
    ]
    assert (model.stages[0].name, model.stages[-1].name) == ("embeddings", HEAD)
    called: list[str] = []
    for name, child in module.named_modules():
        if not list(child.children()):
            child.register_forward_hook(lambda *_, name=name: called.append(name))
    module.eval()(**model.example)
    first = []
    for stage in model.stages:
        owners = {name.rpartition(".")[0] for name in stage.parameters}
        first.append([at for at, name in enumerate(called) if name in owners])
    for earlier, later in itertools.pairwise(first):
        assert max(earlier) < min(later)
    assert last_layer(model).out_features == 3


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("architecture", ["resnet", "mobilenet-v2", "efficientnet", "swin"])
def test_a_frozen_stage_takes_no_gradient_and_keeps_its_statistics(
    tmp_path: Path, architecture: str, *, follow: bool
) -> None:
    """Stages that train keep them too, unless the phase says that they follow the batches."""
    model = load(tmp_path, architecture)
    module = model.module
    frozen = {stage.name for stage in model.stages[:3]}
    rows = tuple(Row(stage.name, None if stage.name in frozen else 1e-3) for stage in model.stages)
    apply_phase(module.train(), model.stages, Phase("p", "train", rows, 1, statistics="all" if follow else "kept"))
    before = {name: value.clone() for name, value in module.named_buffers()}
    batch = torch.randn(4, *model.example["pixel_values"].shape[1:])
    module(pixel_values=batch).logits.square().sum().backward()
    parameters = dict(module.named_parameters())
    kept = {name for stage in model.stages if stage.name in frozen for name in stage.parameters}
    assert all((parameters[name].grad is None) == (name in kept) for name in parameters)
    owners = {name.rpartition(".")[0] for name in kept}
    for name, value in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            frozen_or_kept = not follow or name.rpartition(".")[0] in owners
            assert torch.equal(value, before[name]) == frozen_or_kept, name


@pytest.mark.parametrize("architecture", ["mobilenet-v2", "efficientnet", "resnet"])
def test_statistics_that_follow_the_batches_are_not_those_of_the_last_one(tmp_path: Path, architecture: str) -> None:
    """transformers gives MobileNet's a momentum of 0.997, which torch reads as the share of the new batch."""
    model = load(tmp_path, architecture)
    rows = tuple(Row(stage.name, 1e-3) for stage in model.stages)
    apply_phase(model.module.train(), model.stages, Phase("p", "train", rows, 1, statistics="all"))
    norm = next(child for child in model.module.modules() if isinstance(child, nn.BatchNorm2d))
    seen = []
    batch = torch.randn(4, *model.example["pixel_values"].shape[1:])
    for _ in range(3):
        seen.append(norm.running_var.clone())
        model.module(pixel_values=batch)
    first, second = ((later - earlier).norm() for earlier, later in itertools.pairwise(seen))
    assert second > first / 2


def test_batch_norms_are_norms(tmp_path: Path) -> None:
    model = load(tmp_path, "resnet")
    norms = {member.name for stage in model.stages for member in stage.chosen("norms")}
    own = {
        f"{name}.{kind}"
        for name, child in model.module.named_modules()
        if isinstance(child, nn.BatchNorm2d)
        for kind in ("weight", "bias")
    }
    assert norms == own


def test_adapters_without_linear_layers_are_refused_in_words(tmp_path: Path) -> None:
    model = load(tmp_path, "resnet")
    with pytest.raises(ModelError, match="have no linear layer"):
        adapters.inject(model, Adapter("lora", ("block 1",)), 0)


def test_a_network_that_reads_no_images_is_refused_in_words(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"\(bert\) is none that classifies images"):
        load_image_classifier(str(tiny_model), ("a", "b"), "single-label", seed=0)


def test_missing_weights_of_the_backbone_are_an_error_and_another_head_is_none(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    folder = write_image_model(tmp_path, "resnet")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "encoder" in name and name.endswith("convolution.weight"))
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_image_classifier(str(folder), ("a", "b"), "single-label", seed=0)


PROCESSORS = {
    "ViTImageProcessorPil": ({"size": {"height": 24, "width": 32}}, True),
    "ConvNextImageProcessorPil": ({"size": {"shortest_edge": 48}, "crop_pct": 0.9}, True),
    "MobileNetV2ImageProcessorPil": (
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, True,
    ),
    "EfficientNetImageProcessorPil": ({"size": {"height": 32, "width": 32}, "rescale_offset": True}, False),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_the_processors_own(tmp_path: Path, name: str) -> None:
    own, compact = PROCESSORS[name]
    processor = getattr(transformers, name)(**own)
    files = [str(file) for file in sorted(write_images(tmp_path, 4).rglob("*.png"))]
    reading = pixels.find_reading(processor, 3)
    assert reading.raw == compact
    for folder in (None, tmp_path / "kept", tmp_path / "kept"):
        found = pixels.read_files(reading, files, files, None, folder)
        assert (found.values.dtype == np.uint8) == compact
        wanted = processor(images=[picture.read(Path(file)) for file in files], return_tensors="np")["pixel_values"]
        assert np.abs(found.batch(np.arange(4)) - wanted).max() < 1e-5
        assert np.array_equal(found.batch(np.array([2, 0, 2])), found.batch(np.arange(4))[[2, 0, 2]])
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_processor_that_keeps_the_shape_of_images_is_refused_in_words(tmp_path: Path) -> None:
    processor = transformers.ViTImageProcessorPil(size={"shortest_edge": 32})
    reading = pixels.find_reading(processor, 3)
    with pytest.raises(ModelError, match="32 × 32 and 64 × 32"):
        reading.values(Image.new("RGB", (100, 50)))


def test_an_image_costs_what_its_patches_would(tmp_path: Path) -> None:
    model = load(tmp_path / "model", "resnet")
    files = [str(file) for file in sorted(write_images(tmp_path / "images", 3).rglob("*.png"))]
    found = pixels.read_files(reading_of(model), files, files, np.array([0, 1, 0]), None)
    assert found.lengths.tolist() == [4, 4, 4]  # 32 × 32 / 256
    assert found.count(np.array([0, 2])) == 2.0


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_the_image_part_of_a_network_of_two_kinds_is_a_network_of_images(tmp_path: Path, kind: str) -> None:
    """Its configuration keeps channels and size in a part of its own, and its class has no backbone of the usual name."""
    part = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, f"{kind}Config")(
        text_config=part, vision_config={**part, "image_size": 16, "patch_size": 8}, projection_dim=16
    )
    torch.manual_seed(0)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(tmp_path)
    write_processor(tmp_path, 16)
    model = load_image_classifier(str(tmp_path), ("a", "b"), "single-label", seed=0)
    assert [stage.name for stage in model.stages if stage.name.startswith("block")] == ["block 0", "block 1"]
    assert model.stages[-1].name == "head"
    save.save(model, tmp_path / "saved")
    again = reload_images(tmp_path / "saved")
    model.module.eval()
    with torch.no_grad():
        torch.testing.assert_close(again.module(**model.example).logits, model.module(**model.example).logits)
