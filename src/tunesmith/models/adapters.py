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
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GenerationConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import GENERATION_CONFIG_NAME

from tunesmith import seeds
from tunesmith.contracts import Model
from tunesmith.demand import OnDemand
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import budget, prompts
from tunesmith.models.stages import with_stages
from tunesmith.plans import Adapter

if TYPE_CHECKING:
    import peft
else:  # most runs have no adapters
    peft = OnDemand("peft")

NAME = "default"
WEIGHTS = "adapter_model.safetensors"
PROMPT_KEY = "prompt_embeddings"
PROMPTS = ("prompt", "prefix")
"""Kinds that add tokens instead of changing layers, and cannot be folded into the weights."""
TASK_TYPES = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
"""By transformers' class, PEFT's name for what it does, its `TaskType`; it has none for images."""
_KEYS_AND_VALUES = (
    "key", "value", "k_proj", "v_proj", "k_lin", "v_lin", "k", "v", "key_proj", "value_proj",
    "c_attn", "Wqkv", "qkv", "qkv_proj", "query_key_value",
)  # fmt: skip
"""Names of layers for keys and values; the last ones hold queries too, which are then scaled with them."""


def inject(model: Model, adapter: Adapter, seed: int) -> Model:
    """`model` with fresh adapters in the stages that `adapter` names; its stages found anew.

    They change nothing yet, but for prompts and prefixes, whose tokens are read from the start.

    Args:
        seed: draws the adapters' first weights.

    Raises:
        ModelError: the network does not take adapters of this kind, or its blocks have no linear layer.
        SettingsError: adapters are to stand beside files that hold another network.
    """
    if adapter.kind in PROMPTS:
        return prompts.inject(model, adapter, seed)
    if model.resized and not adapter.merge:
        raise SettingsError(
            "With method.merge=false the adapters stand beside the original files, but these hold another network: one for "
            "images of another size, or with another head, or none.",
            "Set method.merge=true.",
        )
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seeds.derive(seed, "adapter"))
        config = _config(model, adapter, seed)
        if adapter.kind == "vera":  # its layers share their projections, which only its own class sets up
            peft.VeraModel(model.module, config, NAME)
            held: Any = model.module
            held.peft_config = {NAME: config}
        else:
            peft.inject_adapter_in_model(config, model.module, NAME)
        if adapter.budget is not None:
            budget.begin(model.module, NAME)
    return replace(with_stages(model), adapter=adapter)


def penalty(model: Model) -> torch.Tensor | None:
    """What the adapters of `model` add to the loss of a step, where they add anything."""
    if model.adapter is None or model.adapter.budget is None:
        return None
    return budget.penalty(model.module, NAME, model.adapter.budget)


def after_step(model: Model, step: int, steps: int) -> None:
    """What the adapters of `model` do after the optimiser's step `step` (from 0) of `steps`, while gradients are there."""
    adapter = model.adapter
    if adapter is not None and adapter.budget is not None:
        budget.after_step(model.module, NAME, adapter.budget, adapter.rank, step, steps)


def merge(model: Model) -> Model:
    """`model` with its adapters folded into the weights: a network of its own class, as it was loaded."""
    for name, child in list(model.module.named_modules()):
        if isinstance(child, peft.tuners.tuners_utils.BaseTunerLayer):
            child.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(model.module.get_submodule(parent), own, child.get_base_layer())
    vars(model.module).pop("peft_config", None)
    return replace(with_stages(model), adapter=None)


def write(model: Model, folder: Path) -> None:
    """Adapters and head as PEFT's own folder: adapter_config.json and adapter_model.safetensors."""
    held: Any = model.module
    prompt = prompts.of(model)
    config = copy.copy(held.peft_config[NAME]) if prompt is None else _prompt_config(prompt)
    kept = model.head == "kept"  # it is the base's own
    heads = [] if kept else sorted({name.partition(".")[0] for name in model.stages[-1].parameters})
    config.base_model_name_or_path = model.folder
    config.task_type = TASK_TYPES.get(model.opens)
    # What the base's files lack goes along, by the modules that hold it.
    config.modules_to_save = sorted({*heads, *(name.split(".")[1] for name in model.absent)}) or None
    config.inference_mode = True
    config.save_pretrained(str(folder))
    added = {member.name for stage in model.stages for member in stage.members if member.adapter}
    start = "base_model.model." if prompt is None else "base_model."
    tensors: dict[str, torch.Tensor] = {
        f"{start}{name.replace(f'.{NAME}', '')}": parameter
        for name, parameter in model.module.named_parameters(remove_duplicate=False)  # a head may share some
        if name.partition(".")[0] in heads or name in model.absent or (prompt is None and name in added)
    }
    if prompt is not None:
        tensors[PROMPT_KEY] = prompt.weight
    for name, projection in model.module.named_buffers():  # vera: shared by all layers, and listed once
        part = next((part for part in ("vera_A", "vera_B") if f".{part}." in name), None)
        if part:
            tensors[f"base_model.{part}"] = projection
    written = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    save_file(written, folder / WEIGHTS, metadata={"format": "pt"})


def base_of(folder: Path) -> str:
    """The folder, or the Hub id, of the network that an adapter folder stands beside."""
    found: str = peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    return found


def read(folder: Path, model: Model) -> Model:
    """`model`, the base of the class that the adapters were trained in, with the adapters of `folder`.

    They are folded in, except into weights of 4 bits, which would lose them, and virtual tokens, which stand before.
    """
    config: Any = peft.PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        return _with_tokens(folder, config, model)
    held: Any = model.module
    with _quiet():
        found: Any = peft.PeftModel.from_pretrained(held, str(folder))
        module = found.get_base_model() if model.four_bit else found.merge_and_unload()
    if (folder / GENERATION_CONFIG_NAME).is_file():  # the base writes in a way of its own
        module.generation_config = GenerationConfig.from_pretrained(folder)
    return with_stages(replace(model, module=module))


def _with_tokens(folder: Path, config: Any, model: Model) -> Model:
    tensors = load_file(folder / WEIGHTS)
    vectors = tensors.pop(PROMPT_KEY)
    wrong = model.module.load_state_dict(
        {name.removeprefix("base_model."): one for name, one in tensors.items()}, False
    )
    assert not wrong.unexpected_keys
    prefix = config.peft_type == peft.PeftType.PREFIX_TUNING
    prompt = prompts.Prompt(vectors, *((config.num_layers, config.num_attention_heads) if prefix else ()))
    return prompts.attach(model, prompt)


def _prompt_config(prompt: prompts.Prompt) -> Any:
    shape: dict[str, Any] = {"num_virtual_tokens": len(prompt.weight), "num_transformer_submodules": 1}
    if not prompt.blocks:
        return peft.PromptTuningConfig(token_dim=prompt.weight.shape[1], num_layers=1, num_attention_heads=1, **shape)
    return peft.PrefixTuningConfig(
        token_dim=prompt.weight.shape[1] // (2 * prompt.blocks),
        num_layers=prompt.blocks,
        num_attention_heads=prompt.attention_heads,
        **shape,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        yield


def targets(model: Model, blocks: Sequence[str]) -> list[str]:
    """Full names of the linear layers in the stages `blocks`."""
    inside = [f"{name}." for number, name in enumerate(model.blocks) if f"block {number}" in blocks]
    head = tuple(f"{name}." for name in model.head_inside)  # it trains by itself
    return [
        name
        for name, child in model.module.named_modules()
        if isinstance(child, nn.Linear | Conv1D)
        and any(name.startswith(start) for start in inside)
        and not name.startswith(head)
    ]


def _config(model: Model, adapter: Adapter, seed: int) -> Any:
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
    if adapter.kind == "vera":
        return peft.VeraConfig(
            r=adapter.rank,
            target_modules=found,
            projection_prng_key=seeds.derive(seed, "adapter"),
            save_projection=True,
            vera_dropout=adapter.dropout,
            fan_in_fan_out=conv,
        )
    if adapter.budget is not None:
        return peft.AdaLoraConfig(
            init_r=adapter.budget.initial,
            target_r=adapter.rank,
            lora_alpha=adapter.alpha,  # type: ignore[arg-type]
            lora_dropout=adapter.dropout,
            target_modules=found,
            fan_in_fan_out=conv,
            total_step=1,  # PEFT insists on one; the budget is kept in models/budget.py
        )
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
