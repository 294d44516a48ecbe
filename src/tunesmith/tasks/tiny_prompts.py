"""A GPT-2 of two blocks, and prompts with answers that can be told from them, made on the spot for the contract tests."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import transformers

from tunesmith.tasks.tiny import SMALL, WORDS, words

END = "[SEP]"


def write_gpt2(folder: Path) -> Path:
    """A pre-trained GPT-2 of two blocks with random weights, its head tied to its embeddings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=SMALL["vocab_size"], n_embd=32, n_layer=2, n_head=2, n_positions=64,
            bos_token_id=3, eos_token_id=3, pad_token_id=0,
        )  # fmt: skip
        transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(decoder=True), model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", eos_token=END
    ).save_pretrained(folder)
    return folder


def write_prompts(path: Path, rows: int = 80, seed: int = 0) -> Path:
    """JSON lines: a prompt of some words, and a completion that begins with its last word."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as handle:
        for _ in range(rows):
            prompt = draw.sample(WORDS[:40], draw.randint(2, 12))
            completion = [prompt[-1], *draw.sample(WORDS[40:60], draw.randint(1, 4))]
            handle.write(json.dumps({"prompt": " ".join(prompt), "completion": " ".join(completion)}) + "\n")
    return path
