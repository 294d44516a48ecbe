"""Plain text files: passages of whole lines, every line in one of them, as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tunesmith.data.load import load_unlabelled
from tunesmith.data.readers import open_source
from tunesmith.data.readers.plain_text import PASSAGE
from tunesmith.data.rejected import Rejected
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings


def passages(path: Path) -> list[tuple[int, str]]:
    source = open_source(str(path), "utf-8")["train"]
    assert source.columns == ["text"]
    return [(line, values[0]) for line, values in source.records]  # type: ignore[misc]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(alphabet="ab ü\t", max_size=900), min_size=1, max_size=30))
def test_every_word_stands_in_one_passage_and_none_is_long(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_text("\n".join([*lines, "end"]), encoding="utf-8")
    found = passages(path)
    assert " ".join(text for _, text in found).split() == " ".join([*lines, "end"]).split()
    assert all(text.strip() for _, text in found)
    assert all(len(text) < PASSAGE + 902 for _, text in found)
    starts = [line for line, _ in found]
    assert starts == sorted(set(starts))
    whole = [*lines, "end"]
    assert all(text.startswith(whole[line - 1].rstrip()) for line, text in found)


def test_lines_that_do_not_decode_are_set_aside_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_bytes("gut\nü\n".encode() + b"\xff\xfe no\nend\n")
    found = list(open_source(str(path), "utf-8")["train"].records)
    (bad,) = [one for one in found if isinstance(one, Rejected)]
    assert bad.line == 3
    assert ["gut\nü\nend"] in [one[1] for one in found if not isinstance(one, Rejected)]


def test_a_text_of_windows_lines_and_a_mark_is_read_as_it_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\n".encode())
    assert passages(path) == [(1, "one\ntwo")]


def test_splits_are_cut_without_a_target(tmp_path: Path) -> None:
    path = tmp_path / "some.txt"
    path.write_text("\n".join(f"text {number} " * 400 for number in range(50)), encoding="utf-8")
    found = load_unlabelled(DataSettings(train=str(path)), tmp_path / "cache", 0)
    assert [rows.num_rows for rows in found.splits.values()] == [40, 5, 5]
    assert found.labels == ()
    assert found.problem is None
    assert all("target" not in rows.column_names for rows in found.splits.values())
    assert "conflicting_labels" not in found.audit


def test_a_text_beside_tables_or_classes_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    (tmp_path / "train.txt").write_text("a list\n")
    assert list(open_source(str(tmp_path), "utf-8")["train"].records) == [(2, ["a", "b"])]
    folder = tmp_path / "images"
    for label in ("one", "two"):
        (folder / label).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / label / "0.png")
    (folder / "train.txt").write_text("one/0.png\n")
    assert open_source(str(folder), "utf-8")["train"].columns != ["text"]


def test_of_two_texts_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("premise,hypothesis\n" + "".join(f"one text {number},other {number}\n" for number in range(40)))
    with pytest.raises(DataError, match="not clear which column"):
        load_unlabelled(DataSettings(train=str(path)), tmp_path / "cache", 0)
    with pytest.raises(DataError, match="this task reads one"):
        load_unlabelled(DataSettings(train=str(path), input=["premise", "hypothesis"]), tmp_path / "cache", 0)
    found = load_unlabelled(DataSettings(train=str(path), input="premise"), tmp_path / "cache", 0)
    assert found.columns.inputs == ("premise",)


def test_other_columns_of_a_table_are_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("text,label\n" + "".join(f"one text {number},{number % 2}\n" for number in range(40)))
    found = load_unlabelled(DataSettings(train=str(path)), tmp_path / "cache", 0)
    assert found.columns.ignored == ("label",)


@pytest.mark.parametrize(("content", "why"), [("", "is empty"), ("\n \n\n", "no rows")])
def test_a_file_of_nothing_is_refused(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "some.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=why):
        load_unlabelled(DataSettings(train=str(path)), tmp_path / "cache", 0)


def test_passages_keep_their_indentation(tmp_path: Path) -> None:
    """Code is learned as it stands, wherever a passage begins."""
    (tmp_path / "code.txt").write_text("def f(value):\n" + "    value = value + 1  # indented\n" * 200)
    found = [text for _, text in passages(tmp_path / "code.txt")]
    assert len(found) > 2
    assert all(text.startswith("    value") for text in found[1:])
