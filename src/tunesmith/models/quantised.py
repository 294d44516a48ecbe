"""Frozen weights in 4 bits, through bitsandbytes, and what a machine needs for that.

QLoRA (Dettmers et al. 2023, section 3): weights as 4-bit NormalFloats, their scales quantised once more, products in bf16.
Only the linear layers of the blocks are kept so; embeddings and head stay as they are.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunesmith.errors import SettingsError
from tunesmith.models.blocks import outermost

FILE = "quantization_config.json"
"""Beside an adapter that was trained on quantised weights: how to load these."""


def insist() -> None:
    """Insist on what 4 bits need.

    Raises:
        SettingsError: no CUDA device, or no bitsandbytes.
    """
    missing = [] if torch.cuda.is_available() else ["a CUDA device"]
    if importlib.util.find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes")
    if missing:
        raise SettingsError(
            f"method.name is qlora, which keeps weights in 4 bits and needs {' and '.join(missing)}; not found here.",
            "Use method=lora, which trains the same adapters on weights as they are.",
        )


def arguments(kind: Any, config: Any, *, remote_code: bool) -> dict[str, Any]:
    """What `kind.from_pretrained` is to be told, beside the rest, so that the linear layers of the blocks have 4 bits.

    Args:
        kind: the auto class of the network.
        config: the network's configuration.
    """
    with torch.device("meta"):  # names alone; nothing is computed or drawn
        network = kind.from_config(config, trust_remote_code=remote_code)
    prefix = network.base_model_prefix
    inside = tuple(f"{block}." for block in outermost(network.get_submodule(prefix), prefix))
    whole = [
        name for name, child in network.named_modules() if isinstance(child, nn.Linear) and not name.startswith(inside)
    ]
    return loading(four_bits(whole))


def loading(quantization: Any) -> dict[str, Any]:
    """The same from a configuration."""
    return {"quantization_config": quantization, "device_map": {"": 0}}


def four_bits(whole: list[str]) -> Any:
    """The configuration; `whole` names the linear layers that are not quantised."""
    from transformers import BitsAndBytesConfig  # noqa: PLC0415 - looks for bitsandbytes

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=whole,
    )


def write(module: Any, folder: Path) -> None:
    """Keep how `module` was quantised in `folder`, for `read` and for everybody's BitsAndBytesConfig."""
    described = module.config.quantization_config.to_dict()
    (folder / FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """The arguments with which the base of the adapters in `folder` is loaded; empty where it has all its bits."""
    from transformers import BitsAndBytesConfig  # noqa: PLC0415 - looks for bitsandbytes

    file = folder / FILE
    if not file.is_file():
        return {}
    insist()
    return loading(BitsAndBytesConfig.from_dict(json.loads(file.read_text(encoding="utf-8"))))
