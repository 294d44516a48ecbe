"""Prompts with two answers, of which the one that takes the prompt up is chosen, made on the spot for the contract tests."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tunesmith.tasks.tiny import WORDS


def write_pairs(path: Path, rows: int = 80, seed: int = 0) -> Path:
    """JSON lines: a prompt of some words, a chosen answer of words of one kind, and a rejected one of words of another."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8") as handle:
        for _ in range(rows):
            prompt = draw.sample(WORDS[:40], draw.randint(2, 12))
            chosen = draw.sample(WORDS[40:60], draw.randint(2, 5))
            rejected = draw.sample(WORDS[60:80], draw.randint(2, 5))
            row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            handle.write(json.dumps({name: " ".join(words) for name, words in row.items()}) + "\n")
    return path
