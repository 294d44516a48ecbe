"""Small language models of several architectures, with random weights and the tiny tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tunesmith.tasks.tiny import SMALL, words

SIZES = {
    "vocab_size": SMALL["vocab_size"], "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": 3, "eos_token_id": 3, "pad_token_id": 0,
}  # fmt: skip


def write_network(folder: Path, config: Any) -> Path:
    """A network of random weights, a head of its own, and the tiny tokenizer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(decoder=True),
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="[SEP]",
    ).save_pretrained(folder)
    return folder
