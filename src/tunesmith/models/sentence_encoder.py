"""A pre-trained backbone that gives each text a vector of length 1: pooled hidden states, as sentence-transformers has it.

Nothing is added to it. The pooling is the user's; or the one that the files name, where they are a folder of
sentence-transformers; or the one that does best before training.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import nn

from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError
from tunesmith.models import sources
from tunesmith.models.heads import Unit
from tunesmith.models.load import attention, clear_errors, quiet, set_padding, taken_apart
from tunesmith.models.named_pooling import named
from tunesmith.models.pooling import MEAN, pool

KIND = transformers.AutoModel
BACKBONE = "backbone"
POOLER = "pooler"


class SentenceEncoder(nn.Module):
    """A backbone, and how the vectors of a text's tokens become one."""

    base_model_prefix = BACKBONE  # PEFT asks for it, as of transformers' own

    def __init__(self, backbone: Any, how: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.how = how
        self.head = Unit(backbone.config.get_text_config().hidden_size)
        self.config = backbone.config

    def forward(self, **batch: Any) -> SimpleNamespace:
        """`logits`: (rows, width), fp32, of length 1."""
        hidden = self.backbone(**batch).last_hidden_state
        return SimpleNamespace(logits=self.head(pool(hidden, batch["attention_mask"], self.how)))


def load_encoder(
    source: str,
    how: str | None,
    *,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    remote_code: bool = False,
) -> tuple[Model, bool]:
    """The bare network of the model's architecture, in fp32; and whether its pooling is settled, by the user or by its files.

    Args:
        source: folder, "builtin:…" or Hub id.
        how: the pooling; that of the files, or the mean, when it is None.

    Raises:
        ModelError: nothing usable there, weights that do not fit the architecture, or vectors that pass through more layers
            after they were pooled.
    """
    if loading.four_bit:
        raise ModelError("Weights of 4 bits are for tasks that give classes, and this task wants vectors.", "Use lora.")
    folder = sources.locate(source)
    known = _pooling_of(folder, source)
    with quiet(), clear_errors(source):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=remote_code)
        if config.is_encoder_decoder:
            raise ModelError(
                f"{source} is a network of two halves, of which the second one writes; vectors are made of one.",
                "Give an encoder, or a decoder.",
            )
        set_padding(config, tokenizer, source)
        backbone = _backbone(folder, config, source, loading, remote_code)
        model = taken_apart(SentenceEncoder(backbone, how or known or MEAN), tokenizer, config, loading, KIND)
    # What PEFT keeps beside files it opens as a network with a head, and there is none.
    model = dataclasses.replace(model, source=source, folder=folder, remote_code=remote_code, resized=True, head="none")
    return model, bool(how or known)


def reload_encoder(folder: Path, *, remote_code: bool = False) -> Model:
    """The network that `save` wrote to `folder`, in fp32 and eval mode.

    Raises:
        ModelError: the folder does not hold such a network.
    """
    where = str(sources.backbone_in(folder))
    with quiet(), clear_errors(where):
        config = transformers.AutoConfig.from_pretrained(where, trust_remote_code=remote_code)
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, trust_remote_code=remote_code)
        backbone = _backbone(where, config, where, Loading(), remote_code)
        how = _pooling_of(where, str(folder)) or MEAN
        model = taken_apart(SentenceEncoder(backbone, how), tokenizer, config, Loading(), KIND)
    model.module.eval()
    limit = int(tokenizer.model_max_length)
    return dataclasses.replace(
        model, source=str(folder), folder=where, remote_code=remote_code, limit=limit, head="none"
    )


def usual_prompt(folder: str) -> str | None:
    """What a folder of sentence-transformers says is to stand before each text; None where nothing is."""
    root = sources.modules_of(folder)
    file = root / "config_sentence_transformers.json" if root else None
    if file is None or not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    return (found.get("prompts") or {}).get(found.get("default_prompt_name")) or None


def _backbone(folder: str, config: Any, source: str, loading: Loading, remote_code: bool) -> Any:
    """The bare network; without a pooler that its files do not hold, as nothing reads it.

    Raises:
        ModelError: other weights are missing.
    """
    more = {"attn_implementation": attention(), "trust_remote_code": remote_code}
    if loading.fresh:
        return KIND.from_config(config, **more).float()
    module, info = KIND.from_pretrained(
        folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **more
    )
    if absent := sorted(name for name in info["missing_keys"] if POOLER not in name):
        raise ModelError(
            f"The weights of {source} do not fit {type(module).__name__}: {len(absent)} tensors are missing ({absent[0]} …).",
            "Check that config.json and the weights belong together.",
        )
    if info["missing_keys"]:
        module.pooler = None
    return module.float()


def _pooling_of(folder: str, source: str) -> str | None:
    """The pooling that a folder of sentence-transformers names; None where it is none, or lies on the Hub.

    Raises:
        ModelError: a pooling that is not known, or further layers behind it.
    """
    found = named(folder)
    if found is None:
        return None
    if more := [kind for kind in found.kinds if kind not in ("Transformer", "Pooling", "Normalize", "Dense")]:
        raise ModelError(f"{source} has a module of the kind {more[0]}, which cannot be fine-tuned here.")
    if "Dense" in found.kinds:
        raise ModelError(
            f"{source} passes its pooled vectors through a dense layer, which would be lost.",
            "Give a model that ends in its pooling.",
        )
    if "Pooling" in found.kinds and found.pooling is None:
        raise ModelError(
            f"{source} pools by {', '.join(found.told) or 'nothing'}, which is not known here.",
            "Known: first, mean, last.",
        )
    return found.pooling
