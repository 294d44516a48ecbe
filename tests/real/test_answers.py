"""Real answers, from the folder shared/ beside the checkout; skipped, and said so, where it is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tunesmith.data.cells.questions import QUESTIONS
from tunesmith.data.load import Dataset, load
from tunesmith.data.targets.answers import Answers
from tunesmith.metrics.answers import scored
from tunesmith.settings import DataSettings

DATA = Path(__file__).parents[3] / "shared" / "data"


def read(name: str, cache: Path, test: str | None = None) -> Dataset:
    if not (DATA / name).is_dir():
        pytest.skip(f"no folder shared/data/{name} beside the checkout")
    where = str(DATA / name / test) if test else None
    return load(DataSettings(train=str(DATA / name), test=where), cache, 0, Answers(), QUESTIONS)


def check_places(found: Dataset) -> None:
    """Every answer stands in its passage as the file has it, where the file says so, and scores in full."""
    assert not found.rejected
    assert not any(one["moved"] or one["searched"] for one in found.audit["answers"].values())
    for rows in found.splits.values():
        targets, passages = (rows.column(name).to_pylist() for name in ("target", "pair"))
        cut = [
            [passage[start:end] for start, end in zip(target["starts"], target["ends"], strict=True)]
            for target, passage in zip(targets, passages, strict=True)
        ]
        texts = [target["texts"] for target in targets]
        assert cut == texts
        assert np.array_equal(scored([own[0] if own else "" for own in cut], texts), np.ones((len(texts), 2)))


def test_privacy_policies_are_read_whole(tmp_path: Path) -> None:
    found = read("policyqa", tmp_path)
    assert found.audit["rows"] == {"train": 3000, "validation": 400, "test": 1000}
    check_places(found)
    counted = found.audit["answers"]
    assert [counted[split]["answers_a_row"] for split in found.splits] == [8, 5, 7]
    assert [counted[split]["passages"] for split in found.splits] == [479, 84, 382]
    assert counted["test"]["passages_in_train"] == 2


@pytest.mark.parametrize("test", [None, "test.de.jsonl"])
def test_articles_are_read_whole_in_english_and_german(tmp_path: Path, test: str | None) -> None:
    found = read("xquad", tmp_path, test)
    assert found.audit["rows"] == {"train": 668, "validation": 169, "test": 353}
    check_places(found)
    assert not any(one["unanswerable"] for one in found.audit["answers"].values())


def test_bookings_are_read_whole_with_what_they_do_not_say(tmp_path: Path) -> None:
    found = read("restaurant8k", tmp_path)
    rows, counted = found.audit["rows"], found.audit["answers"]
    assert (rows["train"] + rows["validation"], rows["test"]) == (9758, 4446)
    check_places(found)
    assert counted["train"]["unanswerable"] + counted["validation"]["unanswerable"] == 2123
    assert counted["test"]["unanswerable"] == 969
