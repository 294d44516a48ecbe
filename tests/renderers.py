"""Tiny networks of two halves, of every architecture that transformers opens as such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tunesmith.tasks.tiny import SMALL, words

_MARKS = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
_T5: dict[str, Any] = _MARKS | {
    "vocab_size": SMALL["vocab_size"], "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2,
}  # fmt: skip
_BART: dict[str, Any] = _MARKS | {
    "vocab_size": SMALL["vocab_size"], "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "max_position_embeddings": 64, "bos_token_id": 2, "forced_eos_token_id": None, "decoder_start_token_id": 3,
}  # fmt: skip
RENDERERS: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "t5": lambda: transformers.T5Config(**_T5),
    "t5-gated": lambda: transformers.T5Config(**_T5, tie_word_embeddings=False, feed_forward_proj="gated-gelu"),
    "mt5": lambda: transformers.MT5Config(**_T5),
    "bart": lambda: transformers.BartConfig(**_BART),
    "marian": lambda: transformers.MarianConfig(**_BART | {"decoder_start_token_id": 0}),
    "pegasus": lambda: transformers.PegasusConfig(**_BART | {"decoder_start_token_id": 0}),
    "mbart": lambda: transformers.MBartConfig(**_BART),
    "m2m-100": lambda: transformers.M2M100Config(**_BART),
}


def write_renderer(folder: Path, architecture: str) -> Path:
    """A pre-trained model folder of `architecture` with random weights, as save_pretrained leaves it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForSeq2SeqLM.from_config(RENDERERS[architecture]()).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(), model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        eos_token="[SEP]", model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    return folder
