"""A few questions with passages, made on the spot, so that the contract tests can run in a second."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tunesmith.tasks.tiny import WORDS

ASKED, GIVEN, REST = WORDS[:5], WORDS[5:40], WORDS[40:]


def write_answers(path: Path, rows: int = 120, seed: int = 0) -> Path:
    """JSON lines: the answer stands after the word that is asked for; one question in five asks for one that is not there."""
    draw = random.Random(seed)
    lines = []
    for number in range(rows):
        asked, answer = draw.choice(ASKED), " ".join(draw.sample(GIVEN, draw.randint(1, 2)))
        before, after = (" ".join(draw.sample(REST, draw.randint(1, 8))) for _ in range(2))
        there = number % 5 > 0
        passage = f"{before} {asked} {answer} {after}" if there else f"{before} {after}"
        start = len(before) + len(asked) + 2
        answers = {"text": [answer] if there else [], "answer_start": [start] if there else []}
        lines.append({"id": f"q{number}", "question": f"{asked} ?", "context": passage, "answers": answers})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path
