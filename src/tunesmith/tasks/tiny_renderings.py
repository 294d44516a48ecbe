"""A BART of two blocks a half, and texts that can be made of others, made on the spot for the contract tests."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import transformers

from tunesmith.tasks.tiny import SMALL, WORDS, words


def write_bart(folder: Path) -> Path:
    """A pre-trained BART with random weights, its head tied to its embeddings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.BartConfig(
            vocab_size=SMALL["vocab_size"], d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
            pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=3, forced_eos_token_id=None,
        )  # fmt: skip
        transformers.BartForConditionalGeneration(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(), model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        eos_token="[SEP]", model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_renderings(path: Path, rows: int = 80, seed: int = 0) -> Path:
    """JSON lines: a source of some words, and targets that begin with its last one; every second row has two."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as handle:
        for number in range(rows):
            source = draw.sample(WORDS[:40], draw.randint(2, 12))
            targets = [
                " ".join([source[-1], *draw.sample(WORDS[40:60], draw.randint(1, 4))]) for _ in range(1 + number % 2)
            ]
            handle.write(json.dumps({"source": " ".join(source), "targets": targets}) + "\n")
    return path
