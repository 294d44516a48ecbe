"""Sources and targets: which columns they are found in, translations by language, and what cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from tunesmith.data.cells.sources import SOURCES
from tunesmith.data.load import Dataset, load
from tunesmith.data.targets.texts import Texts
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings

SPLIT = {"split": (0.5, 0.25, 0.25), "near_duplicate": 1.0}


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, **more: Any) -> Dataset:
    wanted = DataSettings(train=str(path), **SPLIT | more)
    return load(wanted, path.parent / f"cache-{more.get('input')}", 0, Texts("text"), SOURCES)


def rows_of(found: Dataset) -> dict[str, list[str]]:
    """By source, what could be written."""
    return {row["input"]: row["target"]["texts"] for rows in found.splits.values() for row in rows.to_pylist()}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("source", "target"), ("document", "summary"), ("article", "highlights"), ("text", "summary"),
        ("meaning_representation", "reference"), ("src", "targets"), ("src", "tgt"), ("mr", "ref"),
    ],
)  # fmt: skip
def test_the_columns_are_found_by_the_names_that_data_sets_give_them(tmp_path: Path, source: str, target: str) -> None:
    rows = [{"id": f"r{number}", source: f"long text {number}", target: f"short {number}"} for number in range(12)]
    found = read(lines(tmp_path / "rows.jsonl", rows))
    assert (found.columns.inputs, found.columns.targets) == ((source,), (target,))
    assert rows_of(found)["long text 3"] == ["short 3"]


def test_several_targets_are_all_kept_in_their_order(tmp_path: Path) -> None:
    rows = [{"source": f"facts {number}", "targets": [f"a {number}", " ", f"b {number}"]} for number in range(12)]
    found = read(lines(tmp_path / "rows.jsonl", rows))
    assert rows_of(found)["facts 5"] == ["a 5", "b 5"]
    assert any("several ways to write it" in one for one in found.columns.guesses)


PAIRS = [{"translation": {"de": f"Haus Nummer {number}", "en": f"house number {number}"}} for number in range(12)]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder", "csv"])
def test_translations_become_columns_by_language_and_the_settings_say_which_way(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    table = datasets.Dataset.from_list(PAIRS)
    if kind == "jsonl":
        lines(path, PAIRS)
    elif kind == "parquet":
        table.to_parquet(str(path))
    elif kind == "folder":
        table.save_to_disk(str(path))
    else:
        table.to_pandas().to_csv(path, index=False)
    with pytest.raises(DataError, match="not clear which column") as refused:
        read(path)
    assert "Columns: de, en" in str(refused.value.mend)
    forth, back = read(path, input="de", target="en"), read(path, input="en", target="de")
    assert rows_of(forth)["Haus Nummer 7"] == ["house number 7"]
    assert rows_of(back)["house number 7"] == ["Haus Nummer 7"]


def test_a_column_of_translated_texts_is_left_as_it_is(tmp_path: Path) -> None:
    rows = [{"source": f"Haus {number}", "translation": f"house {number}"} for number in range(12)]
    found = read(lines(tmp_path / "rows.jsonl", rows))
    assert found.columns.targets == ("translation",)


def test_a_pair_that_lacks_a_language_is_set_aside_and_so_are_blank_targets(tmp_path: Path) -> None:
    broken = [{"translation": {"de": "Haus"}}, {"translation": None}, {"translation": {"de": "Baum", "en": " "}}]
    found = read(lines(tmp_path / "rows.jsonl", [*PAIRS, *broken]), input="de", target="en", max_rejected=0.5)
    assert sorted(row.line for row in found.rejected) == [13, 14, 15]
    assert {row.reason for row in found.rejected} == {
        "no text to be written",
        "no text in 'de'",
        "empty text to be written",
    }


@pytest.mark.parametrize(
    ("cell", "kept"),
    [
        (None, None), ("", None), ("  ", None), ([], None), ([""], None), ([None], None), (["good", 5], None),
        ([["nested"]], None), ("broken \ud800", None), (["broken \ud800"], None), (["good", None], ["good"]),
        (["good", " "], ["good"]), ("good", ["good"]), (5, ["5"]), ({"a": "b"}, ['{"a": "b"}']),
    ],
)  # fmt: skip
@pytest.mark.parametrize("copies", [1, 5])
def test_among_lists_of_targets_one_of_another_kind_is_read_by_itself_or_set_aside(
    tmp_path: Path, cell: Any, kept: list[str] | None, copies: int
) -> None:
    rows = [{"source": f"facts {number}", "targets": [f"a {number}"]} for number in range(12)]
    path = tmp_path / "rows.jsonl"
    rows += [{"source": f"odd {number}", "targets": cell} for number in range(copies)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(path, max_rejected=0.5)
    if kept is None:
        assert [row.line for row in found.rejected] == list(range(13, 13 + copies))
        assert "odd 0" not in rows_of(found)
    else:
        assert rows_of(found)["odd 0"] == kept
    assert rows_of(found)["facts 5"] == ["a 5"]


def test_a_few_lists_among_texts_are_taken_for_the_text_and_said_so(tmp_path: Path) -> None:
    rows = [{"source": f"facts {number}", "target": f"a {number}"} for number in range(40)]
    path = lines(tmp_path / "rows.jsonl", [*rows[:20], {"source": "odd", "target": ["b", "c"]}, *rows[20:]])
    found = read(path)
    assert rows_of(found)["odd"] == ['["b", "c"]']
    assert [one for one in found.audit["warnings"] if "brackets and all" in one and "task.several=true" in one]
    asked = load(DataSettings(train=str(path), **SPLIT), tmp_path / "asked", 0, Texts("text", lists=True), SOURCES)
    assert rows_of(asked)["odd"] == ["b", "c"]


def test_several_targets_in_test_alone_are_not_overlooked(tmp_path: Path) -> None:
    train = lines(tmp_path / "train.jsonl", [{"source": f"facts {one}", "target": f"a {one}"} for one in range(40)])
    test = lines(tmp_path / "test.jsonl", [{"source": f"others {one}", "target": ["b", f"{one}"]} for one in range(9)])
    found = read(train, test=str(test))
    assert any("9 targets are lists of texts in test" in one for one in found.audit["warnings"])


def test_the_same_sources_never_lie_on_both_sides_of_a_split(tmp_path: Path) -> None:
    rows = [{"source": f"facts {number // 3}", "target": f"text {number}"} for number in range(60)]
    found = read(lines(tmp_path / "rows.jsonl", rows))
    sides = [{*rows.column("input").to_pylist()} for rows in found.splits.values()]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
