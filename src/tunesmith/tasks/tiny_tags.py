"""A few texts with entities, made on the spot, so that the contract tests can run in a second."""

from __future__ import annotations

import random
from pathlib import Path

from tunesmith.tasks.tiny import WORDS

PLACES, PEOPLE, REST = WORDS[:20], WORDS[20:40], WORDS[40:]


def write_tags(path: Path, rows: int = 120, seed: int = 0) -> Path:
    """A CoNLL file: places are one or two words of theirs, people of others."""
    draw = random.Random(seed)
    lines = []
    for _ in range(rows):
        for _ in range(draw.randint(2, 4)):
            lines += [f"{word}\tO" for word in draw.sample(REST, draw.randint(1, 3))]
            kind, own = draw.choice([("place", PLACES), ("person", PEOPLE)])
            for number, word in enumerate(draw.sample(own, draw.randint(1, 2))):
                lines.append(f"{word}\t{'I' if number else 'B'}-{kind}")
            lines.append(f"{draw.choice(REST)}\tO")
        lines.append("")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
