"""A network of two blocks and a few rows, made on the spot, so that the contract tests can run every task in a second."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = [f"word{number}" for number in range(200)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD = WORDS[:20], WORDS[20:40]
SMALL: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS) + 3,  # some tokenizers add tokens of their own
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def words(*, decoder: bool = False) -> Tokenizer:
    """A tokenizer that knows WORDS; with the marks that encoders want unless `decoder`."""
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if not decoder:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return core


def write_bert(folder: Path) -> Path:
    """A pre-trained BERT of two blocks with random weights, as save_pretrained leaves it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(transformers.BertConfig(**SMALL)).save_pretrained(folder)
    marks = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words(), model_max_length=64, **marks).save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: int = 120, seed: int = 0) -> Path:
    """A CSV of two classes that can be told apart by their words."""
    draw = random.Random(seed)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        for number in range(rows):
            good = number % 2 == 0
            chosen = draw.sample(GOOD if good else BAD, 3) + draw.sample(WORDS[40:], draw.randint(2, 12))
            draw.shuffle(chosen)
            writer.writerow([" ".join(chosen), "good" if good else "bad"])
    return path
