"""A pre-trained network that gives every pixel its class: a segmenter with a new last layer, or a backbone under a light
head.

A backbone that has none gets UperNet's (Xiao et al. 2018), narrow and without its auxiliary branch: transformers opens it,
and it takes the maps of any backbone that gives some.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

from tunesmith import seeds
from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError
from tunesmith.models import sources
from tunesmith.models.image_size import fitted
from tunesmith.models.load import attention, clear_errors, network, quiet, set_labels
from tunesmith.models.load_images import channels_of, insist_for_images, processor_of, taken_apart
from tunesmith.models.maps import backbone_with_maps, gives_maps
from tunesmith.models.pixels import find_reading
from tunesmith.models.resizing import whole

KIND = transformers.AutoModelForSemanticSegmentation
LIGHT_WIDTH = 128
"""Channels of the head that is put on a backbone; the published one has 512, for images by the ten thousand."""
STRIDE = 16
"""Pixels of an image a pixel of the last map, where a network leaves the choice (Chen et al. 2018, section 4)."""


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
                module, absent, _ = network(KIND, folder, config, source, loading, remote_code=remote_code)
            elif gives_maps(config):
                module, absent = _under_light_head(folder, config, labels, loading), ()
            else:
                raise ModelError(
                    f"The model {source} ({config.model_type}) gives no maps that a segmentation head could read.",
                    "Give one that does, such as a SegFormer, MobileNetV2, ResNet, ConvNeXt or Swin (--model).",
                )
        channels = channels_of(module.config)
        processor = whole(processor, channels, size, "post_process_semantic_segmentation", SegformerImageProcessorPil)
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
        module.backbone.load_state_dict(backbone_with_maps(folder, light.backbone_config, loading).state_dict())
    return module


def _with_all_maps(config: Any) -> Any:
    """A backbone's configuration that gives the maps of all its stages, of which a pyramid takes four at most."""
    names = [name for name in config.stage_names if name != "stem"]
    every = max(1, len(names) // 4)  # of a ViT, whose maps are all of one size, every third block or so
    config.out_features = names[::-1][: 4 * every : every][::-1]
    return config
