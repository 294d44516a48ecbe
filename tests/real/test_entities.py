"""Real entities, from the folder shared/ beside the checkout; skipped, and said so, where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.data.cells.words import WORDS
from tunesmith.data.load import Dataset, load
from tunesmith.data.targets.entities import Entities
from tunesmith.settings import DataSettings

DATA = Path(__file__).parents[3] / "shared" / "data"


def read(name: str, cache: Path) -> Dataset:
    if not (DATA / name).is_dir():
        pytest.skip(f"no folder shared/data/{name} beside the checkout")
    return load(DataSettings(train=str(DATA / name)), cache, 0, Entities(None), WORDS)


def test_social_media_are_read_whole_and_as_published(tmp_path: Path) -> None:
    found = read("wnut17", tmp_path)
    assert found.audit["rows"] == {"train": 3394, "validation": 1009, "test": 1287}
    assert found.labels == ("corporation", "creative-work", "group", "location", "person", "product")
    assert (found.problem, found.coding, found.rejected) == ("entities", {"scheme": "IOB2"}, [])
    counted = found.audit["entities"]
    assert [counted[split]["words"] for split in found.splits] == [62_730, 15_733, 23_394]
    assert [counted[split]["objects"] for split in found.splits] == [1975, 836, 1079]
    assert not any(one["repaired"] or one["set_aside"] for one in counted.values())
    assert counted["test"]["unseen"] > 0.9  # that is what the data set is for


def test_loan_agreements_are_read_whole(tmp_path: Path) -> None:
    found = read("sec-filings", tmp_path)
    rows, counted = found.audit["rows"], found.audit["entities"]
    assert (rows["train"] + rows["validation"], rows["test"]) == (1164, 303)
    assert found.labels == ("LOC", "MISC", "ORG", "PER")
    cut = [counted[split]["classes"] for split in ("train", "validation")]
    assert {name: sum(one[name] for one in cut) for name in found.labels} == {
        "ORG": 243, "LOC": 171, "PER": 747, "MISC": 7,
    }  # fmt: skip
    assert not found.rejected
    longest = max(len(words) // 2 for rows in found.splits.values() for words in rows.column("words").to_pylist())
    assert longest == 641
