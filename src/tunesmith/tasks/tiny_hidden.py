"""A masked BERT of two blocks, and texts whose words follow each other by a rule, made on the spot for the contract tests."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import torch
import transformers

from tunesmith.tasks.tiny import SMALL, WORDS, write_bert

FEW = 40
"""Words that the texts are made of."""


def write_masked_bert(folder: Path) -> Path:
    """A pre-trained masked BERT of two blocks with random weights, its head tied to its embeddings."""
    write_bert(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)).save_pretrained(folder)
    return folder


def write_texts(path: Path, rows: int = 80, seed: int = 0) -> Path:
    """A CSV of texts, in which each word is one of the two that may follow the one before."""
    draw = random.Random(seed)
    lines = ["text"]
    for _ in range(rows):
        steps = [draw.randrange(FEW), *(draw.choice((1, 7)) for _ in range(draw.randint(3, 16)))]
        lines.append(" ".join(WORDS[place % FEW] for place in itertools.accumulate(steps)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
