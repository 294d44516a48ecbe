"""A model folder that opens without Tunesmith.

A network of a standard class is written with save_pretrained and opens with transformers' `pipeline`. A backbone
with another pooling is written in the layout of sentence-transformers (modules.json), which needs nothing of ours. There
the backbone lies in a folder of its own: beside modules.json, `pipeline` would open it with a random head, and say nothing.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from tunesmith.contracts import Model
from tunesmith.models import adapters, embedder, heads, quantised, sources, user_embedder, user_network
from tunesmith.models.pooling import OWN, POOLING_MODES, PooledClassifier
from tunesmith.models.sentence_encoder import SentenceEncoder
from tunesmith.run import writing
from tunesmith.settings import UserModel

PIPELINE = "pipeline"
SENTENCE_TRANSFORMERS = "sentence-transformers"
PEFT = "peft"
EMBEDDER = "auto-model"
"""A bare network, whose vectors are compared."""
STATE_DICT = "state-dict"
"""Of a network of the user's own, which its own function builds."""


def loader_of(model: Model) -> str:
    """The public loader that opens `model` once it is saved."""
    if model.adapter is not None:
        return PEFT
    if isinstance(model.source, UserModel):
        return STATE_DICT
    if isinstance(model.module, embedder.Embedder):
        return EMBEDDER
    encodes = isinstance(model.module, SentenceEncoder)
    return SENTENCE_TRANSFORMERS if encodes or model.pooling != OWN else PIPELINE


def save(model: Model, folder: Path) -> None:
    """Write `model` to `folder`; what was there is replaced only once the new files are whole."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    heads.fold(model)
    with writing(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        if model.modality == "text":
            model.processor.model_max_length = model.limit
        if not isinstance(model.module, PooledClassifier | SentenceEncoder):
            model.processor.save_pretrained(temporary)
        if model.adapter is not None:
            adapters.write(model, temporary)
            config: Any = copy.copy(model.module.config)
            if model.four_bit:  # the base's files hold all bits, which its configuration must not deny
                quantised.write(model.module, temporary)
                del config.quantization_config
            config.save_pretrained(temporary)
            how: Any = getattr(model.module, "generation_config", None)  # what fills masks has none
            if model.head == "kept" and how is not None:
                how.save_pretrained(temporary)
        elif isinstance(model.module, embedder.Embedder):
            (user_embedder if isinstance(model.source, UserModel) else embedder).write(model, temporary)
        elif isinstance(model.source, UserModel):
            user_network.write(model, temporary)
        elif isinstance(model.module, PooledClassifier | SentenceEncoder):
            _save_modules(model.module, model, temporary)
        else:
            model.module.save_pretrained(temporary)  # type: ignore[operator]
        _readable(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)


def _readable(folder: Path) -> None:
    """Give files that were made for their owner alone, as safetensors makes them, the mode that others have."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def _save_modules(module: PooledClassifier | SentenceEncoder, model: Model, folder: Path) -> None:
    backbone: Any = module.backbone
    backbone.save_pretrained(folder / sources.BACKBONE)
    model.processor.save_pretrained(folder / sources.BACKBONE)
    for code in (folder / sources.BACKBONE).glob("*.py"):  # a model's own code: sentence-transformers looks for it here
        shutil.copyfile(code, folder / code.name)
    last = "Dense" if isinstance(module, PooledClassifier) else "Normalize"
    modules = [("0", sources.BACKBONE, "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", f"2_{last}", last)]
    package = "sentence_transformers.models"
    described = [
        {"idx": int(index), "name": index, "path": path, "type": f"{package}.{kind}"} for index, path, kind in modules
    ]
    _json(folder / sources.MODULES, described)
    reading = {"max_seq_length": model.limit, "do_lower_case": False}
    _json(folder / sources.BACKBONE / "sentence_bert_config.json", reading)
    (folder / "1_Pooling").mkdir()
    _json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": heads.width_of(model)}
        | {key: how == module.how for how, key in POOLING_MODES.items()},
    )
    (folder / f"2_{last}").mkdir()
    if isinstance(module, PooledClassifier):
        _save_dense(module.head, folder / "2_Dense")


def _save_dense(layer: nn.Linear, folder: Path) -> None:
    outputs, width = layer.weight.shape
    described = {"in_features": width, "out_features": outputs, "bias": True}
    _json(folder / "config.json", described | {"activation_function": "torch.nn.modules.linear.Identity"})
    tensors = {"linear.weight": layer.weight.detach().cpu(), "linear.bias": layer.bias.detach().cpu()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
