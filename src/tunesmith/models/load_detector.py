"""A pre-trained network that finds things: a detector whose layers for classes are new, or a backbone under a light head.

A backbone that has none gets RT-DETR's (Zhao et al. 2024), small: of the heads that transformers opens it learns fastest, and
it takes the maps of any backbone that gives several, each half as large as the one before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.backbone_utils import BackboneMixin
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from tunesmith import seeds
from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError
from tunesmith.models import adapters, sources
from tunesmith.models.heads import ExactLinear
from tunesmith.models.image_size import fitted
from tunesmith.models.load import attention, clear_errors, network, quiet, set_labels
from tunesmith.models.load_images import channels_of, insist_for_images, processor_of, taken_apart
from tunesmith.models.maps import backbone_with_maps, gives_maps
from tunesmith.models.own_head import order_by_name, rearrange
from tunesmith.models.pixels import find_reading
from tunesmith.models.resizing import whole

KIND = transformers.AutoModelForObjectDetection
REFUSED = ("lw_detr", "rf_detr", "pp_ocr", "pp_doclayout")
"""How the names of architectures begin that train in a way of their own (several groups of queries), or find no boxes."""
HEADS = ("bbox_embed", "bbox_predictor", "bbox_head", "class_embed", "class_labels_classifier", "score_head")
"""Parts of the names of the layers that give boxes and classes."""
OF_CLASSES = ("class_embed", "class_labels_classifier", "enc_score_head")
"""Parts of the names of layers that depend on how many classes there are."""
LIGHT_WIDTH = 128
"""Of the head that is put on a backbone; the published one is twice as wide, for images by the hundred thousand."""
LIGHT_LAYERS = 3
"""Of its decoder."""
LEVELS = 3
"""Maps that it reads at most, the last ones."""
PRIOR = 0.01
"""Probability that a new layer gives each class at first (Lin et al. 2017, section 4.1)."""
STRIDE = 32
"""Pixels of which the sides of an image are multiples, so that maps fit onto each other."""
AREA = 320 * 320
"""Pixels of an image under a new head, at most, where nothing else is asked for."""
FEWEST_QUERIES = 100
"""Of a light head; half as many again as an image has boxes where that is more."""


def load_detector(
    source: str,
    labels: Sequence[str],
    *,
    seed: int,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    remote_code: bool = False,
    size: tuple[int, int] | None = None,
    usual: tuple[int, int] = (480, 640),
    most: int = 0,
) -> Model:
    """The standard object-detection class of the model's architecture, in fp32, with new layers for classes or a new head.

    Args:
        source: folder or Hub id.
        labels: class names.
        seed: draws the new weights.
        loading: new weights throughout, perhaps.
        remote_code: whether Python code beside the weights may run.
        size: (height, width) of what the network is given; when it is None what a detector's processor makes of `usual`,
            (height, width) of images, and for a backbone about that shape, made smaller.
        most: boxes in one image.

    Raises:
        ModelError: nothing usable there, a model without several maps, or weights that do not fit the architecture.
    """
    insist_for_images(source, loading)
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        trained = _finds(config, source)
        processor = processor_of(folder, remote_code)
        channels = channels_of(config)
        size = size or (_in_shape(processor.size, usual) if trained else smaller(usual))
        processor = whole(processor, channels, size, "post_process_object_detection", RTDetrImageProcessorPil)
        height, width = find_reading(processor, channels).shape[1:]
        if not trained:
            _insist_on_stride(height, width)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(seed, "head"))
            order = None
            if trained:
                module, order = _with_new_classes(folder, config, labels, source, loading, remote_code)
            else:
                module = _under_light_head(folder, config, labels, loading, (height, width), most)
        resized = _in_full(fitted(module, (height, width), channels))
        inside = _head_inside(resized) if trained else ()
        model = taken_apart(
            resized,
            processor,
            source,
            remote_code,
            KIND,
            backbone=None if trained else _backbone_in(resized),
            head="kept" if order is not None else "replaced" if trained else "new",
            head_inside=inside,
        )
    # Adapters stand beside the files of the very network, and PEFT names the parts of a head from outside.
    moved = order is not None and order != sorted(order)
    other = resized is not module or not trained or bool(inside) or moved
    return dataclasses.replace(model, folder=folder, resized=other)


def _finds(config: Any, source: str) -> bool:
    """Whether it is a detector, and not a backbone that gives maps.

    Raises:
        ModelError: it is neither, or one that is trained in another way.
    """
    if str(config.model_type).startswith(REFUSED):
        raise ModelError(
            f"The model {source} ({config.model_type}) trains in a way of its own, which is not known here.",
            "Give a DETR, YOLOS, RT-DETR or D-FINE, or a backbone (--model).",
        )
    trained = type(config) in transformers.MODEL_FOR_OBJECT_DETECTION_MAPPING
    if not trained and not gives_maps(config):
        raise ModelError(
            f"The model {source} ({config.model_type}) gives no maps that a detector could read.",
            "Give a detector (DETR, YOLOS, RT-DETR, D-FINE) or a backbone such as a ResNet, ConvNeXt or Swin (--model).",
        )
    return trained


def _insist_on_stride(height: int, width: int) -> None:
    """Raise ModelError where the maps of such images would not fit onto each other."""
    if height % STRIDE or width % STRIDE:
        raise ModelError(
            f"Images of {width} × {height} pixels do not fit: sides must be multiples of {STRIDE}.",
            f"Set task.image_size to [{_multiple(height)}, {_multiple(width)}].",
        )


def reload_detector(folder: Path, *, remote_code: bool = False) -> Model:
    """The detector that `save` wrote to `folder`, in fp32 and eval mode.

    Raises:
        ModelError: the folder does not hold such a model.
    """
    where = str(folder)
    with quiet(), clear_errors(where):
        config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=remote_code)
        adapted = (folder / "adapter_config.json").is_file()
        module = KIND.from_pretrained(
            adapters.base_of(folder) if adapted else where,
            config=config,
            attn_implementation=attention(),
            use_safetensors=True,
            dtype=torch.float32,
            trust_remote_code=remote_code,
            ignore_mismatched_sizes=True,  # beside an adapter lies the base of other classes
        )
        processor, inside = processor_of(where, remote_code), _head_inside(module)
        whole_ = _in_full(module.float())
        model = taken_apart(whole_, processor, where, remote_code, KIND, head="replaced", head_inside=inside)
        model = adapters.read(folder, model) if adapted else model
    model.module.eval()
    return model


def queries_of(model: Model) -> int:
    """How many boxes the network gives for an image."""
    config: Any = model.module.config
    return int(getattr(config, "num_queries", None) or config.num_detection_tokens)


def smaller(usual: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of about the shape `usual`, of AREA pixels at most, in multiples of STRIDE."""
    height, width = usual
    factor = min(1.0, math.sqrt(AREA / (height * width)))
    return _multiple(height * factor), _multiple(width * factor)


def _in_shape(wanted: Any, usual: tuple[int, int]) -> tuple[int, int] | None:
    """What a processor that keeps the shape of images makes of `usual`, (height, width), in multiples of STRIDE; None for one
    that makes all of one size."""
    known = {key: value for key, value in dict(wanted or {}).items() if value}
    if "shortest_edge" not in known:
        return None
    factor = min(known["shortest_edge"] / min(usual), known.get("longest_edge", math.inf) / max(usual))
    return _multiple(usual[0] * factor), _multiple(usual[1] * factor)


def _multiple(side: float) -> int:
    return max(2, round(side / STRIDE)) * STRIDE


def _name_classes(config: Any, labels: Sequence[str]) -> None:
    """Tell the configuration how many classes there are, of which there may be one alone."""
    set_labels(config, labels, "single-label")
    config.problem_type = None  # transformers opens no configuration with a single class of this kind


def _in_full(module: Any) -> Any:
    """`module`, whose heads compute in full precision: bf16 would round a box to 256ths of the image."""
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear) and any(part in name for part in HEADS):
            child.__class__ = ExactLinear
    return module


def _with_new_classes(
    folder: str, config: Any, labels: Sequence[str], source: str, loading: Loading, remote_code: bool
) -> tuple[Any, list[int] | None]:
    """The detector in `folder`, all as it was but for the layers that depend on the classes; these are kept too where its own
    classes are `labels`, in whatever order: for each label the place that it had, None where they are new."""
    _name_classes(config, labels)
    if loading.fresh and hasattr(config, "freeze_backbone_batch_norms"):
        config.freeze_backbone_batch_norms = False  # a copy of another class could not follow batches
    for name in ("anchor_image_size", "eval_size"):  # images of one size only would do
        if getattr(config, name, None) is not None:
            setattr(config, name, None)
    known = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code).id2label
    order = order_by_name([str(known[index]) for index in sorted(known)], labels)
    found = network(KIND, folder, config, source, loading, remote_code=remote_code, of_head=_of_classes)
    module = found.module
    order = None if loading.fresh or found.headless else order
    for layer in _for_classes(module):
        if order is not None:  # after the classes may come one for nothing at all
            rearrange(layer, [*order, *range(len(labels), len(layer.weight))])
        elif isinstance(layer, nn.Linear):
            _reset(layer, len(labels))
    return module, order


def _reset(layer: nn.Linear, classes: int) -> None:
    """New weights; where each class has a probability of its own, all of them small, as nearly all queries find nothing."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.constant_(layer.bias, math.log(PRIOR / (1 - PRIOR)) if layer.out_features == classes else 0.0)


def _for_classes(module: Any) -> list[nn.Linear | nn.Embedding]:
    """The layers that have an output, or a vector, for each class; of several behind each other the last, of those that share
    their weights one."""
    named = {name: child for name, child in module.named_modules() if _of_classes(name)}

    def followed(name: str) -> bool:
        before, _, number = name.rpartition(".layers.")
        return number.isdecimal() and f"{before}.layers.{int(number) + 1}" in named

    found: dict[int, nn.Linear | nn.Embedding] = {}
    for name, child in named.items():
        if isinstance(child, nn.Linear | nn.Embedding) and not followed(name):
            found[id(child.weight)] = child
    return list(found.values())


def _of_classes(name: str) -> bool:
    return any(part in name for part in OF_CLASSES)


def _head_inside(module: Any) -> tuple[str, ...]:
    """The layers for classes that stand inside the part that is the backbone."""
    prefix = f"{module.base_model_prefix}."
    found = [name for name, _ in module.named_modules() if name.startswith(prefix) and _of_classes(name)]
    return tuple(name for name in found if not any(name.startswith(f"{other}.") for other in found))


def _under_light_head(
    folder: str, config: Any, labels: Sequence[str], loading: Loading, size: tuple[int, int], most: int
) -> Any:
    """The backbone in `folder`, its last maps read by a small RT-DETR.

    Raises:
        ModelError: its maps do not halve from one to the next.
    """
    names = [name for name in config.stage_names if name != "stem"]
    config.out_features = names
    backbone = backbone_with_maps(folder, config, loading)
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros((1, channels_of(config), *size))).feature_maps
    chosen = [len(maps) - 1]
    while len(chosen) < LEVELS and chosen[0] and _halves(maps[chosen[0] - 1], maps[chosen[0]]):
        chosen.insert(0, chosen[0] - 1)
    if len(chosen) < 2:
        raise ModelError(
            f"The maps of {type(backbone).__name__} are all of one size, and a light detection head reads several.",
            "Give a backbone whose maps get smaller with depth (ResNet, ConvNeXt, Swin), or a detector such as YOLOS.",
        )
    config.out_features = [names[place] for place in chosen]
    strides = [size[0] // maps[place].shape[2] for place in chosen]
    cells = sum(maps[place].shape[2] * maps[place].shape[3] for place in chosen)
    light = transformers.RTDetrConfig(
        backbone_config=config,
        freeze_backbone_batch_norms=False,  # a copy of another class could not follow batches from scratch
        encoder_in_channels=[maps[place].shape[1] for place in chosen],
        feat_strides=strides,
        encoder_hidden_dim=LIGHT_WIDTH,
        encode_proj_layers=[len(chosen) - 1],
        encoder_ffn_dim=2 * LIGHT_WIDTH,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        d_model=LIGHT_WIDTH,
        num_queries=min(cells, max(FEWEST_QUERIES, most + most // 2)),
        decoder_in_channels=[LIGHT_WIDTH] * len(chosen),
        num_feature_levels=len(chosen),
        decoder_layers=LIGHT_LAYERS,
        decoder_ffn_dim=2 * LIGHT_WIDTH,
        decoder_attention_heads=4,
        num_denoising=0,  # it would make the loss of an image depend on those beside it
        anchor_image_size=None,
    )
    _name_classes(light, labels)
    module = KIND.from_config(light, attn_implementation=attention()).float()
    place = _backbone_in(module)
    if not loading.fresh:
        held = next(child for child in module.modules() if isinstance(child, BackboneMixin))
        held.load_state_dict(backbone.state_dict())
    for name, child in module.named_modules():
        # transformers draws the factors of RT-DETR's own around 0, so that nothing would pass.
        if isinstance(child, nn.BatchNorm2d) and not name.startswith(f"{place}."):
            nn.init.ones_(child.weight)
    return module


def _halves(one: torch.Tensor, following: torch.Tensor) -> bool:
    """Whether the map `following` is half as large as `one`."""
    return bool(one.shape[2] == 2 * following.shape[2] and one.shape[3] == 2 * following.shape[3])


def _backbone_in(module: Any) -> str:
    """The name of the pre-trained backbone inside a detector."""
    name, found = next((name, child) for name, child in module.named_modules() if isinstance(child, BackboneMixin))
    inner = str(getattr(found, "base_model_prefix", ""))  # as other classes of the architecture name what they share
    return f"{name}.{inner}" if inner and hasattr(found, inner) else str(name)
