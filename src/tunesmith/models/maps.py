"""A pre-trained backbone alone, as the class of its architecture that gives maps."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from tunesmith.contracts import Loading
from tunesmith.errors import ModelError

NEW_NORMS = ("hidden_states_norms", "layernorm")
"""Of maps: nothing but a head that reads these has them."""


def gives_maps(config: Any) -> bool:
    """Whether there is such a class for this architecture."""
    return type(config) in MODEL_FOR_BACKBONE_MAPPING


def backbone_with_maps(folder: str, config: Any, loading: Loading) -> Any:
    """The backbone in `folder`, giving the maps that `config` asks for, in fp32; with new weights where `loading` says so.

    Raises:
        ModelError: its weights do not fit.
    """
    kind = MODEL_FOR_BACKBONE_MAPPING[type(config)]
    if loading.fresh:
        return kind(config).float()
    found, info = kind.from_pretrained(
        folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(name for name in info["missing_keys"] if not name.startswith(NEW_NORMS)):
        raise ModelError(f"The weights of {folder} do not fit {kind.__name__}: {missing[0]} is missing.")
    return found
