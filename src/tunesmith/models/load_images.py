"""A pre-trained image classifier with a fresh head, and its image processor; the model that a run left, opened again; and
what all networks that read images share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from tunesmith import seeds
from tunesmith.contracts import HeadKind, Loading, Model
from tunesmith.data.pixels import cost
from tunesmith.errors import ModelError
from tunesmith.models import adapters, pixels, sources
from tunesmith.models.blocks import find_blocks
from tunesmith.models.heads import make_exact
from tunesmith.models.image_size import fitted, set_size
from tunesmith.models.layout import laid_out
from tunesmith.models.load import attention, clear_errors, network, quiet, set_labels
from tunesmith.models.pooling import OWN
from tunesmith.models.stages import find_stages

KIND = transformers.AutoModelForImageClassification
BACKEND = "pil"
"""Of transformers' image processors; the other one, torchvision, resizes a little differently."""


def load_image_classifier(
    source: str,
    labels: Sequence[str],
    problem: str,
    *,
    seed: int,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    remote_code: bool = False,
    side: int | None = None,
) -> Model:
    """The standard image-classification class of the model's architecture, in fp32, with a new head.

    Args:
        source: folder or Hub id.
        labels: class names; empty for regression.
        problem: "single-label", "multi-label" or "regression".
        seed: draws the new head's first weights.
        loading: new weights throughout, perhaps.
        side: pixels of the square images that it is to read; as many as its processor says when it is None.
        remote_code: whether Python code beside the weights may run.

    Raises:
        ModelError: nothing usable there, a model that reads no images, or weights that do not fit the architecture.
    """
    insist_for_images(source, loading)
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING and not remote_code:
            raise ModelError(
                f"The model {source} ({config.model_type}) is none that classifies images.",
                "Give a folder or Hub id of one that does, such as a ViT, ResNet or MobileNet (--model).",
            )
        processor = processor_of(folder, remote_code)
        set_labels(config, labels, problem)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(seed, "head"))
            module, absent, _ = network(KIND, folder, config, source, loading, remote_code=remote_code)
            own = module
            if side is not None:
                set_size(processor, side, channels_of(config))
                module = fitted(module, (side, side), channels_of(config))
    model = taken_apart(module, processor, source, remote_code, KIND)
    return dataclasses.replace(model, folder=folder, absent=absent, resized=module is not own)


def reload_images(folder: Path, kind: Any = KIND, *, remote_code: bool = False) -> Model:
    """The model that `save` wrote to `folder`, in fp32 and eval mode.

    Args:
        kind: transformers' class that opens it.

    Raises:
        ModelError: the folder does not hold such a model.
    """
    where = str(folder)
    with quiet(), clear_errors(where):
        config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=remote_code)
        adapted = (folder / "adapter_config.json").is_file()
        module = kind.from_pretrained(
            adapters.base_of(folder) if adapted else where,
            config=config,
            attn_implementation=attention(),
            use_safetensors=True,
            dtype=torch.float32,
            trust_remote_code=remote_code,
            ignore_mismatched_sizes=True,  # beside an adapter lies the base of another head
        )
        model = taken_apart(module.float(), processor_of(where, remote_code), where, remote_code, kind)
        model = adapters.read(folder, model) if adapted else model
    model.module.eval()
    make_exact(model)
    return model


def insist_for_images(source: str, loading: Loading) -> None:
    """Insist that `loading` asks for nothing that only models for text have.

    Raises:
        ModelError: it does.
    """
    if loading.four_bit or loading.reserved:
        raise ModelError(
            f"{source} reads images, and 4 bits and virtual tokens are for models that read text.", "Use method=lora."
        )


def reading_of(model: Model) -> pixels.Reading:
    """How the processor of `model` reads images."""
    return pixels.find_reading(model.processor, channels_of(model.module.config))


def processor_of(folder: str, remote_code: bool) -> Any:
    """The image processor in `folder`."""
    return transformers.AutoImageProcessor.from_pretrained(folder, backend=BACKEND, trust_remote_code=remote_code)


def taken_apart(
    module: Any,
    processor: Any,
    source: str,
    remote_code: bool,
    kind: Any,
    *,
    backbone: str | None = None,
    head: HeadKind = "linear",
    head_inside: tuple[str, ...] = (),
) -> Model:
    """A network that reads images, with its stages and blocks found.

    Args:
        source: folder or Hub id.
        kind: transformers' class that opens it.
        backbone: the part that is pre-trained; what classes of the architecture share when it is None.
        head, head_inside: see Model.
    """
    laid_out(module)
    backbone = backbone or _backbone(module)
    shape = pixels.find_reading(processor, channels_of(module.config)).shape
    example = {"pixel_values": torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))}
    with clear_errors(source):  # a processor and a network that do not go together show here
        blocks = find_blocks(module, backbone, example)
        stages = find_stages(module, backbone, blocks, example, head_inside)
    return Model(
        module=module,
        processor=processor,
        stages=stages,
        blocks=blocks,
        source=source,
        folder=source,
        limit=cost(*shape[1:]),
        backbone=backbone,
        example=example,
        modality="image",
        pooling=OWN,
        opens=kind.__name__,
        head=head,
        head_inside=head_inside,
        remote_code=remote_code,
    )


def _backbone(module: Any) -> str:
    """The name of the part that classes of one architecture share; of two kinds of input, that which reads images."""
    known = next((name for name in (module.base_model_prefix, "backbone") if name and hasattr(module, name)), None)
    if known is not None:
        return str(known)
    sizes: dict[str, int] = {
        name: sum(one.numel() for one in child.parameters()) for name, child in module.named_children()
    }
    return max(sizes, key=lambda name: sizes[name])


def channels_of(config: Any) -> int:
    """Of the images that the network reads; networks of several kinds of input say it of their image part."""
    for part in (config, *(getattr(config, name, None) for name in ("vision_config", "backbone_config"))):
        if (found := getattr(part, "num_channels", None)) is not None:
            return int(found)
    return 3
