"""A saved model folder back as a Model: the standard class, or backbone, pooling and dense layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from tunesmith.contracts import Model
from tunesmith.models import adapters, quantised, sources
from tunesmith.models.blocks import find_blocks
from tunesmith.models.heads import make_exact
from tunesmith.models.load import attention, clear_errors, quiet, tiny_batch
from tunesmith.models.pooling import OWN, POOLING_MODES, PooledClassifier
from tunesmith.models.stages import find_stages
from tunesmith.models.told_places import tell_places


def reload(
    folder: Path,
    *,
    remote_code: bool = False,
    kind: Any = transformers.AutoModelForSequenceClassification,
    exact: bool = True,
) -> Model:
    """The model that `save` wrote to `folder`, in fp32 and eval mode.

    Args:
        remote_code: whether Python code beside the weights may run.
        kind: transformers' class that opens it.
        exact: whether its last layer computes in full precision.

    Raises:
        ModelError: the folder does not hold such a model.
    """
    where = str(sources.backbone_in(folder))
    with quiet(), clear_errors(where):
        config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=remote_code)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, trust_remote_code=remote_code)
        adapted, more = (folder / "adapter_config.json").is_file(), quantised.read(folder)
        if adapted:
            module, pooling = _opened(kind, adapters.base_of(folder), config, remote_code, **more), OWN
            backbone = module.base_model_prefix
        elif (folder / sources.MODULES).is_file():
            module, pooling = _pooled(folder, where, remote_code), _pooling(folder)
            backbone = "backbone"
        else:
            module, pooling = _opened(kind, where, config, remote_code), OWN
            backbone = module.base_model_prefix
        example = tiny_batch(config)
        blocks = find_blocks(module, backbone, example)
        stages = find_stages(module, backbone, blocks, example)
        model = Model(
            module=module,
            processor=tokenizer,
            stages=stages,
            blocks=blocks,
            source=str(folder),
            folder=where,
            limit=tokenizer.model_max_length,
            backbone=backbone,
            example=example,
            modality="text",
            pooling=pooling,
            opens=kind.__name__,
            remote_code=remote_code,
            four_bit=bool(more),
        )
        model = adapters.read(folder, model) if adapted else model
    model.module.eval()
    if exact:
        make_exact(model)
    return model


def reload_language_model(folder: Path, kind: Any, *, remote_code: bool = False) -> Model:
    """`reload` for a network that keeps the head of its files, and gives logits only where it is asked to."""
    model = reload(folder, remote_code=remote_code, kind=kind, exact=False)
    tell_places(model.module, str(folder))
    return replace(model, head="kept")


def opened(folder: Path, kind: Any, apart: Callable[[Any], Model], *, remote_code: bool = False) -> Model:
    """The network of `kind` in `folder`, taken apart by `apart`; adapters that lie there are folded in.

    Args:
        kind: transformers' class that opens it.
        apart: finds the stages of a network that was just opened.
    """
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
    adapted, more = (folder / "adapter_config.json").is_file(), quantised.read(folder)
    module = _opened(kind, adapters.base_of(folder) if adapted else str(folder), config, remote_code, **more)
    model = replace(apart(module), source=str(folder), folder=str(folder), remote_code=remote_code, four_bit=bool(more))
    return adapters.read(folder, model) if adapted else model


def _opened(kind: Any, where: str, config: Any, remote_code: bool, **more: Any) -> Any:
    return kind.from_pretrained(
        where,
        config=config,
        attn_implementation=attention(),
        use_safetensors=True,
        dtype=torch.float32,
        trust_remote_code=remote_code,
        ignore_mismatched_sizes=True,  # beside an adapter lies the base of another head
        **more,
    )


def _pooled(folder: Path, where: str, remote_code: bool) -> PooledClassifier:
    backbone = transformers.AutoModel.from_pretrained(
        where,
        attn_implementation=attention(),
        use_safetensors=True,
        dtype=torch.float32,
        trust_remote_code=remote_code,
    )
    dense = load_file(folder / "2_Dense" / "model.safetensors")
    module = PooledClassifier(backbone, _pooling(folder), *dense["linear.weight"].shape)
    module.head.load_state_dict({"weight": dense["linear.weight"], "bias": dense["linear.bias"]})
    module.config = backbone.config
    return module


def _pooling(folder: Path) -> str:
    config = json.loads((folder / "1_Pooling" / "config.json").read_text())
    return next(how for how, key in POOLING_MODES.items() if config[key])
