"""Entities and tags of which no training text has the type: they stay in figures, as what a model has missed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from seqeval import metrics as seqeval
from seqeval.scheme import IOB2
from sklearn import metrics

import tunesmith
from tunesmith.tasks.tiny import WORDS
from tunesmith.tasks.token_classification import TokenClassification
from tunesmith.tasks.word_problems import Entities, WordTags


def write(path: Path, rows: list[tuple[list[str], list[str]]]) -> str:
    lines = [line for tokens, tags in rows for line in (*map("\t".join, zip(tokens, tags, strict=True)), "")]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def texts(count: int, start: int, names: tuple[str, str, str]) -> list[tuple[list[str], list[str]]]:
    """Texts of six words, of which one below 10 is of the first type, and one from 190 on of the last."""
    found = []
    for row in range(start, start + count):
        at = [row % 10, 20 + row % 90, 10 + row % 10, 30 + row % 70, 190 + row % 10, 50 + row % 50]
        found.append(([WORDS[one] for one in at], [names[0], "O", names[1], "O", names[2], "O"]))
    return found


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    made = TokenClassification.tiny(tmp_path / "tiny")
    return {"task": "token-classification", "model": made["model"], "method": "probe"}


def read(run: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return json.loads(run.report.read_text()), pyarrow.parquet.read_table(run.predictions).to_pylist()


def test_entities_of_an_unknown_type_are_missed(given: dict[str, Any], tmp_path: Path) -> None:
    train = write(tmp_path / "train.conll", texts(60, 0, ("B-a", "B-b", "O")))
    test = write(tmp_path / "test.conll", texts(20, 300, ("B-a", "B-b", "B-c")))
    given["data"] = {"train": train, "validation": test, "test": test}
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report, table = read(run)
    assert report["data"]["test"] == 20
    assert [row["label"] for row in report["per_class"]] == ["a", "b"]
    assert report["unknown"]["types"] == {"c": 20}
    assert "20 entities are of types that no training text has (c: 20), and count as missed." in run.page.read_text()
    assert [row["unknown"] for row in table] == [1] * 20
    assert all([one["label"] for one in row["truth"]] == ["a", "b", "c"] for row in table)
    assert any(part["truth"] == "c" for one in report["mistakes"] for part in one["parts"])

    def spelled(row: dict[str, Any], name: str) -> list[str]:
        begins = {one["start"]: one["label"] for one in row[name]}  # each of the entities here is a word
        return [f"B-{begins[at]}" if at in begins else "O" for at in range(60)]

    pair = [[spelled(row, name) for row in table] for name in ("truth", "entities")]
    figures = report["metrics"]["test"]
    strict = {"mode": "strict", "scheme": IOB2, "zero_division": 0}
    assert figures["entity_f1"]["value"] == pytest.approx(seqeval.f1_score(*pair, **strict))
    assert figures["entity_recall"]["value"] == pytest.approx(seqeval.recall_score(*pair, **strict))
    assert figures["entity_macro_f1"]["value"] == pytest.approx(seqeval.f1_score(*pair, average="macro", **strict))
    other = tunesmith.finetune({**given, "seed": 1}, run=tmp_path / "other")
    compared = tunesmith.compare([run.folder, other.folder])["runs"][1]
    gap = read(other)[0]["metrics"]["test"]["entity_f1"]["value"] - figures["entity_f1"]["value"]
    assert abs(compared["difference"]["value"]) == pytest.approx(abs(gap))
    command = [sys.executable, "-m", "tunesmith.cli", "evaluate", str(run.folder), test]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Note: 20 entities are of types that no training text has (c: 20), and count as missed." in said


def test_words_with_an_unknown_tag_are_wrong(given: dict[str, Any], tmp_path: Path) -> None:
    train = write(tmp_path / "train.conll", texts(60, 0, ("A", "B", "A")))
    test = write(tmp_path / "test.conll", texts(20, 300, ("A", "B", "C")))
    given["data"] = {"train": train, "validation": test, "test": test}
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report, table = read(run)
    flat = [[tag for row in table for tag in row[name]] for name in ("truth", "tags")]
    assert flat[0].count("C") == 20
    figures = report["metrics"]["test"]
    assert figures["token_accuracy"]["value"] == pytest.approx(metrics.accuracy_score(*flat))
    assert figures["token_accuracy"]["value"] <= 5 / 6
    assert figures["macro_f1"]["value"] == pytest.approx(metrics.f1_score(*flat, average="macro", zero_division=0))
    assert [row["label"] for row in report["per_class"]] == ["A", "B", "O"]
    assert sum(map(sum, report["confusion"]["counts"])) == 100
    assert report["unknown"]["note"].startswith("20 words have tags that no training text has (C: 20)")
    strange = write(tmp_path / "strange.conll", [(words, ["X"] * 6) for words, _ in texts(5, 0, ("A", "B", "A"))])
    again = tunesmith.load(run.folder).evaluate(strange)
    assert again["metrics"]["test"]["token_accuracy"]["value"] == 0
    assert "confusion" not in again


def test_what_is_unknown_is_the_last_class_of_counts_and_found_by_nobody() -> None:
    truth, found = [np.array([1, 2, 0, 0])], [np.array([1, 2, 0, 1])]
    counts = Entities().counts(truth, found, 3, np.array([2]))
    assert counts.tolist() == [[[1, 2, 1], [2, 0, 0]]]
    counts = WordTags().counts([np.array([0, -1, 1])], [np.array([0, 1, 1])], 2, np.array([1]))
    assert counts.tolist() == [[[1, 1, 1], [1, 2, 1], [1, 0, 0]]]
    assert WordTags().encoded({"first": [0, 2], "classes": [1, 0]}, 3).tolist() == [1, -1, 0]
