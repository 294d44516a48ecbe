"""The first commands of each page about texts, as a reader would type them; small networks stand in for large ones."""

from __future__ import annotations

import csv
import json
import random
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import typed
from tiny import write_model
from tunesmith.tasks import tiny_pairs, tiny_preferences
from tunesmith.tasks.tiny import WORDS
from tunesmith.tasks.tiny_answers import write_answers
from tunesmith.tasks.tiny_hidden import write_masked_bert
from tunesmith.tasks.tiny_prompts import write_gpt2, write_prompts
from tunesmith.tasks.tiny_renderings import write_renderings
from tunesmith.tasks.tiny_tags import write_tags

DOCS = Path(__file__).parents[2] / "docs"
QUICK = ["--set", "train.epochs=1", "--set", "train.precision=fp32", "--set", "train.learning_rate=1e-3"]


def tokens(folder: Path) -> None:
    write_tags(folder / "notes.conll", 60)
    _texts(folder)


def answers(folder: Path) -> None:
    """SQuAD's form, and new questions in JSON lines."""
    rows = [json.loads(line) for line in write_answers(folder / "rows.jsonl", 60).read_text().splitlines()]
    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {"id": str(n), "question": row["question"], "answers": _spans(row), "is_impossible": not _spans(row)}
            ],
        }
        for n, row in enumerate(rows)
    ]
    squad = {"version": "v2.0", "data": [{"title": "policies", "paragraphs": paragraphs}]}
    (folder / "policies.json").write_text(json.dumps(squad))
    asked = [{"question": row["question"], "context": row["context"]} for row in rows[:3]]
    (folder / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))


def _spans(row: dict[str, object]) -> list[dict[str, object]]:
    found = row["answers"]
    assert isinstance(found, dict)
    return [{"text": text, "answer_start": at} for text, at in zip(found["text"], found["answer_start"], strict=True)]


def seq2seq(folder: Path) -> None:
    write_renderings(folder / "abstracts.jsonl", 60)


def language(folder: Path) -> None:
    rows = [json.loads(line) for line in write_prompts(folder / "rows.jsonl", 60).read_text().splitlines()]
    told = [{"instruction": row["prompt"], "output": row["completion"]} for row in rows]
    (folder / "instructions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))


def preference(folder: Path) -> None:
    tiny_preferences.write_pairs(folder / "pairs.jsonl", 60)
    tiny_preferences.write_pairs(folder / "more.jsonl", 20, 1)


def similarity(folder: Path) -> None:
    tiny_pairs.write_pairs(folder / "pairs.csv", 60)


def adapt(folder: Path) -> None:
    write_masked_bert(folder / "models" / "bert")
    with open(folder / "tickets.csv", "w", newline="", encoding="utf-8") as handle:
        rows = [(f"{WORDS[n]} {WORDS[n + n % 2]} {WORDS[2 * n]}", "ab"[n % 2]) for n in range(80)]
        csv.writer(handle).writerows([("message", "topic"), *rows])
    draw = random.Random(0)
    passages = [" ".join(draw.choices(WORDS, k=40)) for _ in range(300)]
    (folder / "messages.txt").write_text("\n".join(passages) + "\n")
    page = (DOCS / "adapt.md").read_text(encoding="utf-8")
    written = re.search(r"^```yaml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert written is not None
    (folder / "settings.yaml").write_text(written[1].replace("builtin:minilm", "models/bert"), encoding="utf-8")


def _texts(folder: Path) -> None:
    """Texts by themselves, in both forms that the pages name."""
    texts = [" ".join(WORDS[n : n + 5]) for n in range(3)]
    (folder / "new.txt").write_text("\n".join(texts) + "\n")
    (folder / "new.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


PAGES: dict[str, Callable[[Path], None]] = {
    "tokens": tokens, "answers": answers, "seq2seq": seq2seq, "language": language, "preference": preference,
    "text-similarity": similarity, "adapt": adapt,
}  # fmt: skip


def commands(page: str) -> list[list[str]]:
    """Of the first indented block, and of others where they are about data that stand there."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^    tunesmith [^\n]*\n(?:^    \S[^\n]*\n)*", text, flags=re.MULTILINE)
    kept = blocks if page == "adapt" else blocks[:1]
    lines = [
        line for block in kept for line in block.splitlines() if "--set adapt=true" not in line
    ]  # in the README too
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(page: str, tmp_path: Path) -> None:
    write_model(tmp_path / "models" / "bert")
    for name in ("gpt", "chat"):
        write_gpt2(tmp_path / "models" / name)
    PAGES[page](tmp_path)
    given = commands(page)
    assert any(command[1] == "train" for command in given)
    assert any(command[1] == "predict" for command in given)
    typed.run([quick(command) for command in given], tmp_path)


def quick(command: list[str]) -> list[str]:
    """`command` with a small network and one epoch, where it trains."""
    if command[1] != "train":
        return command
    named = "--model" in command or "settings.yaml" in command
    return [*command, *([] if named else ["--model", "models/bert"]), *QUICK]
