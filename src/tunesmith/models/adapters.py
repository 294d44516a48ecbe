"""Adapters: small trainable parts beside frozen weights, through PEFT, which is known here and nowhere else.

Where they go is found by structure: every linear layer of the blocks that the plan names. They can be folded into the
weights, after which the network is of its own class again, or written as an adapter folder beside the original.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunesmith import seeds
from tunesmith.contracts import Model
from tunesmith.errors import ModelError
from tunesmith.models.stages import find_stages
from tunesmith.plans import Adapter

NAME = "default"
_KEYS_AND_VALUES = (
    "key", "value", "k_proj", "v_proj", "k_lin", "v_lin", "k", "v", "key_proj", "value_proj",
    "c_attn", "Wqkv", "qkv", "qkv_proj", "query_key_value",
)  # fmt: skip
"""Names of layers for keys and values; the last ones hold queries too, which are then scaled with them."""


def inject(model: Model, adapter: Adapter, seed: int) -> Model:
    """`model` with fresh adapters, which change nothing yet, in the blocks that `adapter` names; its stages found anew.

    Args:
        seed: draws the adapters' first weights.

    Raises:
        ModelError: the blocks have no linear layer.
    """
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seeds.derive(seed, "adapter"))
        peft.inject_adapter_in_model(_config(model, adapter), model.module, NAME)
    return replace(
        model, stages=find_stages(model.module, model.backbone, model.blocks, model.example), adapter=adapter
    )


def merge(model: Model) -> Model:
    """`model` with its adapters folded into the weights: a network of its own class, as it was loaded."""
    for name, child in list(model.module.named_modules()):
        if isinstance(child, BaseTunerLayer):
            child.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(model.module.get_submodule(parent), own, child.get_base_layer())
    vars(model.module).pop("peft_config", None)
    return replace(model, stages=find_stages(model.module, model.backbone, model.blocks, model.example), adapter=None)


def write(model: Model, folder: Path) -> None:
    """Adapters and head as PEFT's own folder: adapter_config.json and adapter_model.safetensors."""
    held: Any = model.module
    config = copy.copy(held.peft_config[NAME])
    heads = sorted({name.partition(".")[0] for name in model.stages[-1].parameters})
    config.base_model_name_or_path = model.folder
    config.task_type = peft.TaskType.SEQ_CLS if model.modality == "text" else None  # PEFT has no name for images
    # What the base's files lack goes along, by the modules that hold it.
    config.modules_to_save = sorted({*heads, *(name.split(".")[1] for name in model.absent)})
    config.inference_mode = True
    config.save_pretrained(str(folder))
    tensors = {
        f"base_model.model.{name.replace(f'.{NAME}', '')}": parameter.detach().cpu().contiguous()
        for name, parameter in model.module.named_parameters()
        if name.partition(".")[0] in heads or name in model.absent or _is_adapter(name)
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def base_of(folder: Path) -> str:
    """The folder, or the Hub id, of the network that an adapter folder stands beside."""
    found: str = peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    return found


def read(folder: Path, base: Any) -> Any:
    """`base`, of the class that the adapters were trained in, with the adapters of `folder` folded in."""
    with _quiet():
        return peft.PeftModel.from_pretrained(base, str(folder)).merge_and_unload()


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        yield


def targets(model: Model, blocks: Sequence[str]) -> list[str]:
    """Full names of the linear layers in the stages `blocks`."""
    inside = [f"{name}." for number, name in enumerate(model.blocks) if f"block {number}" in blocks]
    return [
        name
        for name, child in model.module.named_modules()
        if isinstance(child, nn.Linear | Conv1D) and any(name.startswith(start) for start in inside)
    ]


def _config(model: Model, adapter: Adapter) -> Any:
    found = targets(model, adapter.blocks)
    if not found:
        raise ModelError(
            f"The blocks of {type(model.module).__name__} have no linear layer, and adapters go beside linear layers.",
            "Use another method, such as full, partial or norm-only.",
        )
    conv = any(isinstance(model.module.get_submodule(name), Conv1D) for name in found)
    if adapter.kind == "ia3":
        attended = [name for name in found if name.rpartition(".")[2] in _KEYS_AND_VALUES]
        grown = [name for name in found if name not in attended and _shrinks(model.module.get_submodule(name))]
        chosen = attended + grown
        return peft.IA3Config(target_modules=chosen or found, feedforward_modules=grown, fan_in_fan_out=conv)
    return peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=adapter.dropout,
        target_modules=found,
        fan_in_fan_out=conv,
        use_dora=adapter.kind == "dora",
        use_rslora=adapter.kind == "rslora",
        init_lora_weights="pissa" if adapter.kind == "pissa" else True,
    )


def _shrinks(layer: nn.Module) -> bool:
    """Whether a layer takes more than it gives: the second of a feed-forward pair."""
    rows, columns = layer.weight.shape  # type: ignore[misc]
    taken, given = (rows, columns) if isinstance(layer, Conv1D) else (columns, rows)
    return bool(taken > given)


def _is_adapter(name: str) -> bool:
    return f".{NAME}" in name
