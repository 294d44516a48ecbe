"""A few pairs of texts with scores, made on the spot, so that the contract tests can run in a second."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from tunesmith.tasks.tiny import WORDS

LENGTH = 6


def write_pairs(path: Path, rows: int = 120, seed: int = 0) -> Path:
    """A CSV of pairs; the score, from 0 to 5, goes by how many words the second text shares with the first."""
    draw = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["sentence1", "sentence2", "score"])
        for number in range(rows):
            shared = number % (LENGTH + 1)
            chosen = draw.sample(WORDS, 2 * LENGTH)
            first = chosen[:LENGTH]
            second = first[:shared] + chosen[LENGTH : 2 * LENGTH - shared]
            draw.shuffle(second)
            writer.writerow([" ".join(first), " ".join(second), round(5 * shared / LENGTH, 2)])
    return path
