"""What a backbone can go on pre-training with, and a language model's folder made whole for other tasks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tunesmith.errors import ModelError
from tunesmith.models import sources
from tunesmith.models.load import attention, clear_errors, quiet
from tunesmith.run import write_json, writing

WEIGHTS = "model.safetensors"
MASKED, CAUSAL = "masked-lm", "causal-lm"
KINDS: dict[str, Any] = {MASKED: transformers.AutoModelForMaskedLM, CAUSAL: transformers.AutoModelForCausalLM}


def objective_of(source: str, *, remote_code: bool) -> str:
    """The task that goes on with the pre-training of the network in `source`: "masked-lm" for encoders, "causal-lm" for
    decoders.

    Raises:
        ModelError: the network is neither.
    """
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
    brought = config.to_dict().get("auto_map") or {}
    both = bool(config.is_encoder_decoder)
    if not both and (type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING or "AutoModelForMaskedLM" in brought):
        return MASKED
    if not both and (type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in brought):
        return CAUSAL
    raise ModelError(
        f"The model {source} ({config.model_type}) is no encoder or decoder of text alone, so adapt cannot go on with its "
        "pre-training.",
        "Leave adapt away, or take another model.",
    )


def complete(folder: Path, source: str, objective: str, *, remote_code: bool) -> None:
    """Add to the language model in `folder` what its class leaves away of the backbone of `source`, such as a pooler, and how
    vectors are made of it where that is a folder of sentence-transformers, so that other tasks find it as they would have
    found it there.

    Nothing happens where it is there already, or where nothing is missing.

    Args:
        objective: what `objective_of` says of `source`.
    """
    where = sources.locate(source)
    with quiet(), clear_errors(source):
        bare, info = transformers.AutoModel.from_pretrained(
            where,
            attn_implementation=attention(),
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=remote_code,
        )
        with torch.device("meta"):  # its names are all that is needed
            language = KINDS[objective].from_config(bare.config, trust_remote_code=remote_code)
    held = set(language.base_model.state_dict())
    lacking = {
        f"{language.base_model_prefix}.{name}": tensor.contiguous()
        for name, tensor in bare.state_dict().items()
        if name not in held and name not in info["missing_keys"]
    }
    if lacking:
        _add(folder / WEIGHTS, lacking)
    if (root := sources.modules_of(where)) is not None:
        _add_modules(folder, root)


def _add(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put `tensors` into a file of weights, which is the old or the new one at any time."""
    with safe_open(path, framework="pt") as file:
        known = set(file.keys())
    if set(tensors) <= known:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        save_file({**load_file(path), **tensors}, temporary, metadata={"format": "pt"})
        os.replace(temporary, path)


def _add_modules(folder: Path, root: Path) -> None:
    """Put what follows the transformer in the folder `root` of sentence-transformers behind that in `folder`; the list comes
    last."""
    first, *rest = json.loads((root / sources.MODULES).read_text(encoding="utf-8"))
    with writing(folder):
        for one in rest:
            (folder / one["path"]).mkdir(exist_ok=True)
            if (root / one["path"]).is_dir():  # what has no settings may have no folder
                shutil.copytree(root / one["path"], folder / one["path"], dirs_exist_ok=True)
    write_json(folder / sources.MODULES, [first | {"path": ""}, *rest])
