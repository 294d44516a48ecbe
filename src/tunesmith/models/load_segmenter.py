"""A pre-trained network that gives every pixel its class: a segmenter with a new last layer, or a backbone under a light
head.

A backbone that has none gets UperNet's (Xiao et al. 2018), narrow and without its auxiliary branch: transformers opens it,
and it takes the maps of any backbone that gives some.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from tunesmith import seeds
from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError
from tunesmith.models import sources
from tunesmith.models.image_size import fitted
from tunesmith.models.load import attention, clear_errors, network, quiet, set_labels
from tunesmith.models.load_images import channels_of, insist_for_images, processor_of, taken_apart
from tunesmith.models.pixels import Reading, find_reading

KIND = transformers.AutoModelForSemanticSegmentation
LIGHT_WIDTH = 128
"""Channels of the head that is put on a backbone; the published one has 512, for images by the ten thousand."""
STRIDE = 16
"""Pixels of an image a pixel of the last map, where a network leaves the choice (Chen et al. 2018, section 4)."""
KEPT = ("image_mean", "image_std", "rescale_factor", "resample", "do_rescale", "do_normalize")
"""What a processor that knows masks takes over from one that does not."""
NEW_NORMS = ("hidden_states_norms", "layernorm")
BENT = 8.0
"""Levels, of 255, by which a resized ramp may differ from a ramp on average: what is cropped or padded is further away."""


def load_segmenter(
    source: str,
    labels: Sequence[str],
    *,
    seed: int,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    remote_code: bool = False,
    size: tuple[int, int] | None = None,
) -> Model:
    """The standard semantic-segmentation class of the model's architecture, in fp32, with a new last layer or head.

    Args:
        source: folder or Hub id.
        labels: class names.
        seed: draws the new weights.
        loading: new weights throughout, perhaps.
        size: (height, width) of what the network is given; what its processor says when it is None.
        remote_code: whether Python code beside the weights may run.

    Raises:
        ModelError: nothing usable there, a model that gives no maps, or weights that do not fit the architecture.
    """
    insist_for_images(source, loading)
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        processor = processor_of(folder, remote_code)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(seed, "head"))
            if type(config) in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
                if "Segmentation" not in str(config.architectures) and hasattr(config, "output_stride"):
                    config.output_stride = STRIDE
                if hasattr(config, "use_auxiliary_head"):  # it helps in pre-training, and nothing reads it here
                    config.use_auxiliary_head = False
                set_labels(config, labels, "single-label")
                module, absent = network(KIND, folder, config, source, loading, remote_code=remote_code)
            elif type(config) in MODEL_FOR_BACKBONE_MAPPING:
                module, absent = _under_light_head(folder, config, labels, loading), ()
            else:
                raise ModelError(
                    f"The model {source} ({config.model_type}) gives no maps that a segmentation head could read.",
                    "Give one that does, such as a SegFormer, MobileNetV2, ResNet, ConvNeXt or Swin (--model).",
                )
        channels = channels_of(module.config)
        processor = _whole(processor, channels, size)
        height, width = find_reading(processor, channels).shape[1:]
        resized = fitted(module, (height, width), channels)
        model = taken_apart(resized, processor, source, remote_code, KIND)
    # Adapters stand beside the files of the very network, which those of a backbone alone do not hold.
    other = resized is not module or type(config) not in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    return dataclasses.replace(model, folder=folder, absent=absent, resized=other)


def _under_light_head(folder: str, config: Any, labels: Sequence[str], loading: Loading) -> Any:
    """The backbone in `folder`, its maps read by a small UperNet."""
    light = transformers.UperNetConfig(
        backbone_config=_with_all_maps(config), hidden_size=LIGHT_WIDTH, use_auxiliary_head=False
    )
    set_labels(light, labels, "single-label")
    module = KIND.from_config(light, attn_implementation=attention()).float()
    if not loading.fresh:
        kind = MODEL_FOR_BACKBONE_MAPPING[type(config)]
        known, info = kind.from_pretrained(
            folder, config=light.backbone_config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        # Norms of the maps that only this head reads are new; what else is missing was to be there.
        if missing := sorted(name for name in info["missing_keys"] if not name.startswith(NEW_NORMS)):
            raise ModelError(f"The weights of {folder} do not fit {kind.__name__}: {missing[0]} is missing.")
        module.backbone.load_state_dict(known.state_dict())
    return module


def _with_all_maps(config: Any) -> Any:
    """A backbone's configuration that gives the maps of all its stages, of which a pyramid takes four at most."""
    names = [name for name in config.stage_names if name != "stem"]
    every = max(1, len(names) // 4)  # of a ViT, whose maps are all of one size, every third block or so
    config.out_features = names[::-1][: 4 * every : every][::-1]
    return config


def _whole(processor: Any, channels: int, size: tuple[int, int] | None) -> Any:
    """`processor`, or one that does the same, such that it only resizes: what is cropped away has no answer.

    Args:
        size: (height, width); as much as it made before when it is None.

    Raises:
        ModelError: it does more than that.
    """
    height, width = size or find_reading(processor, channels).shape[1:]
    if not hasattr(processor, "post_process_semantic_segmentation"):
        before = find_reading(processor, channels)
        kept = {name: getattr(processor, name, None) for name in KEPT}
        processor = SegformerImageProcessorPil(**{name: value for name, value in kept.items() if value is not None})
        after = find_reading(processor, channels)
        if not (np.allclose(before.scale, after.scale) and np.allclose(before.shift, after.shift)):
            raise ModelError(
                "The model's image processor does something to the values that no processor for masks does.",
                "Use a checkpoint with another one, or edit its preprocessor_config.json.",
            )
    processor.size = {"height": height, "width": width}
    for name in ("do_center_crop", "do_reduce_labels", "do_pad", "keep_aspect_ratio"):
        if hasattr(processor, name):
            setattr(processor, name, False)
    reading = find_reading(processor, channels)
    if reading.shape != (channels, height, width) or _bend(reading) > BENT:
        raise ModelError(
            f"The image processor ({type(processor).__name__}) does more than to resize images to {width} × {height}.",
            "Use a checkpoint with another one, or edit its preprocessor_config.json.",
        )
    return processor


def _bend(reading: Reading) -> float:
    """By how many levels a ramp from left to right is none any more, on average, once it is processed."""
    ramp = np.tile(np.linspace(0, 255, 400), (200, 1)).astype(np.uint8)
    found = reading.values(Image.fromarray(ramp))[0].astype(np.float64)
    low, high = found.min(), found.max()
    across = (found - low) / max(high - low, 1e-9) * 255
    return float(np.abs(across - np.linspace(0, 255, found.shape[1])).mean())
