"""Nothing is lost without a word: damaged files, doubtful columns and labels, each told with its line or its mend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from tunesmith.data.audit import splits_json
from tunesmith.data.columns import Columns
from tunesmith.data.load import Dataset, load, load_labelled, read_inputs
from tunesmith.data.readers import hub
from tunesmith.data.targets import Settled
from tunesmith.data.targets.classes import Classes
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings

ROWS = [
    (f"word{number} and text of {number * 7919 % 997} kind {number * 31 % 101}", "ab"[number % 2])
    for number in range(60)
]
Read = Callable[..., Dataset]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def from_bytes(content: bytes, name: str = "rows.csv", problem: str | None = None, **more: object) -> Dataset:
        path = tmp_path / name
        path.write_bytes(content)
        return load(DataSettings(train=str(path), **more), tmp_path / "cache", 0, Classes(problem))  # type: ignore[arg-type]

    return from_bytes


def table(rows: list[tuple[object, ...]], header: str = "text,label") -> bytes:
    return f"{header}\n{''.join(','.join(map(str, row)) + chr(10) for row in rows)}".encode()


def lines(rows: list[dict[str, object]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def test_a_quotation_mark_that_is_never_closed_swallows_no_rows_in_silence(read: Read) -> None:
    rows = [*ROWS[:20], ('"opened', "a"), *ROWS[20:]]
    with pytest.raises(DataError, match="opened in line 22 is never closed, so lines 22 to 62"):
        read(table(rows))


def test_a_row_that_swallowed_its_neighbours_says_so(read: Read) -> None:
    rows = [*ROWS[:20], ('"opened', "a"), *ROWS[20:50], ("closed too late" + '"', "a", "b"), *ROWS[50:]]
    found = read(table(rows), max_rejected=0.5)
    assert [row.line for row in found.rejected] == [22]
    assert "over 32 lines: a quotation mark may be open" in found.rejected[0].reason


def test_lines_are_right_after_quoted_line_breaks(read: Read) -> None:
    found = read(
        table([('"two\nlines"', "a"), *ROWS, ("one", "too", "many"), ('"three\nmore\nlines"', "b"), ("", "a")])
    )
    assert [row.line for row in found.rejected] == [64, 68]


@pytest.mark.parametrize("damage", [b"\x00", b"\x00\xdc"], ids=["cut in two", "half a surrogate pair"])
def test_damaged_utf_16_sets_one_row_aside(read: Read, damage: bytes) -> None:
    found = read(table(ROWS).decode().encode("utf-16") + damage)
    assert [row.line for row in found.rejected] == [62]


def test_mixed_encodings_set_only_the_other_rows_aside(read: Read) -> None:
    found = read(table(ROWS) + "ça va,a\n".encode("latin-1") + "ça va,a\n".encode() + "mañana,b\n".encode("cp1252"))
    assert [(row.line, row.reason) for row in found.rejected] == [
        (62, "broken encoding: not utf-8"),
        (64, "broken encoding: not utf-8"),
    ]


@pytest.mark.parametrize("encoding", ["rot13", "klingon"])
def test_an_encoding_that_is_none_is_refused(read: Read, encoding: str) -> None:
    with pytest.raises(DataError, match="no known text encoding"):
        read(table(ROWS), encoding=encoding)


def test_a_number_of_thousands_of_digits_is_one_bad_line(read: Read) -> None:
    good = lines([{"text": text, "label": label} for text, label in ROWS])
    found = read(good + b'\n{"text": "x", "label": ' + b"9" * 5000 + b"}\n", "rows.jsonl")
    assert [row.line for row in found.rejected] == [61]


def test_a_column_that_only_looks_like_an_id_is_left_and_said(read: Read) -> None:
    found = read(table([(number % 20, *row) for number, row in enumerate(ROWS)], "id,text,label"))
    assert found.columns.id is None
    assert "id" in found.columns.ignored
    assert "'0' stands in line 2 and in line 22" in found.columns.guesses[-1]
    ids = [one for ids in splits_json(found).values() for one in ids]
    assert len(set(ids)) == len(ids) == 60


def test_an_id_column_that_names_each_row_is_used(read: Read) -> None:
    found = read(table([(f"t{number}", *row) for number, row in enumerate(ROWS)], "id,text,label"))
    assert sorted(one for ids in splits_json(found).values() for one in ids) == sorted(f"t{n}" for n in range(60))


def test_rows_without_a_group_do_not_belong_together(read: Read) -> None:
    found = read(table([(*row, "") for row in ROWS], "text,label,patient"), group="patient")
    assert found.audit["rows"] == {"train": 48, "validation": 6, "test": 6}


def test_whole_numbers_that_do_not_repeat_are_a_score(read: Read) -> None:
    assert read(table([(text, number) for number, (text, _) in enumerate(ROWS[:15])])).problem == "regression"


def test_a_word_among_scores_is_asked_about_and_not_guessed(read: Read) -> None:
    rows = table([(text, "n/a" if number == 3 else number / 7) for number, (text, _) in enumerate(ROWS)])
    with pytest.raises(DataError, match="59 different numbers, but also 'n/a'"):
        read(rows)
    found = read(rows, problem="regression")
    assert [(row.line, row.reason) for row in found.rejected] == [(5, "score 'n/a' is not a number")]


def test_a_constant_score_is_refused_even_beside_missing_ones(read: Read) -> None:
    with pytest.raises(DataError, match="the same value in every row"):
        read(
            table([(text, "nan" if number < 2 else 1.5) for number, (text, _) in enumerate(ROWS)]), problem="regression"
        )


def test_labels_that_white_space_told_apart_are_merged_and_said(read: Read) -> None:
    found = read(table([(text, label + " " * (number % 3)) for number, (text, label) in enumerate(ROWS)]))
    assert found.labels == ("a", "b")
    assert any("with and without white space" in warning for warning in found.audit["warnings"])


def test_labels_in_one_cell_are_parted_when_that_is_the_problem(read: Read) -> None:
    rows = table([(text, ["a", "b", "a;b", ""][number % 4]) for number, (text, _) in enumerate(ROWS)])
    found = read(rows, problem="multi-label")
    targets = [tuple(cell) for rows in found.splits.values() for cell in rows.column("target").to_pylist()]
    assert sorted(set(targets)) == [(), (0,), (0, 1), (1,)]


def test_the_same_text_with_two_labels_is_counted(read: Read) -> None:
    found = read(table([*ROWS, (ROWS[0][0].upper() + "!", "b")]))
    assert found.audit["conflicting_labels"] == {"texts": 1, "examples": [ROWS[0][0]]}


def test_pairs_that_only_differ_in_where_they_are_cut_are_no_repeats(read: Read) -> None:
    rows = [(text, "why", label) for text, label in ROWS] + [("one two", "three", "a"), ("one", "two three", "b")]
    found = read(table(rows, "text1,text2,label"))
    assert found.columns.inputs == ("text1", "text2")
    assert found.audit["duplicates"]["exact"] == 0


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("the same", "ab"[number % 2]) for number in range(60)], "the 60 rows belong together in 1 cluster"),
        (
            [(text, f"class{number}") for number, (text, _) in enumerate(ROWS)],
            "most of the 60 classes have a single row",
        ),
    ],
)
def test_a_split_that_cannot_be_filled_says_why(read: Read, rows: list[tuple[str, str]], why: str) -> None:
    with pytest.raises(DataError, match=why):
        read(table(rows))  # type: ignore[arg-type]


def test_too_many_bad_rows_name_their_lines(read: Read) -> None:
    with pytest.raises(DataError, match=r"first in train, lines 62, 63, 64\)"):
        read(table([*ROWS, *[("  ", "a")] * 30]))


def test_a_hub_test_split_with_hidden_labels_is_replaced_and_said(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    seen = [{"sentence": text, "label": number % 2} for number, (text, _) in enumerate(ROWS)]
    hidden = [{"sentence": f"hidden {text}", "label": -1} for text, _ in ROWS[:9]]
    splits = datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_list(seen, features=kinds),
            "test": datasets.Dataset.from_list(hidden, features=kinds),
        }
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name: splits)
    found = load(DataSettings(train="owner/name"), tmp_path / "cache", 0)
    assert found.audit["rows"] == {"train": 48, "validation": 6, "test": 6}
    assert found.labels == ("no", "yes")
    assert any("test split of owner/name has no labels" in warning for warning in found.audit["warnings"])


def test_a_hub_data_set_out_of_reach_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match="owner/name cannot be fetched from the Hub: no route to host"):
        hub.read("owner/name", "utf-8")


def test_other_labelled_rows_keep_the_classes_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    path.write_bytes(table([*ROWS[:6], ("new", "unheard of")]))
    columns = Columns(("text",), ("label",), None, None, (), ())
    found = load_labelled(
        str(path), DataSettings(train="x.csv"), columns, Settled("single-label", ("a", "b")), tmp_path / "cache"
    )
    assert found.rows.column("target").to_pylist() == [0, 1] * 3
    assert [(row.line, row.reason) for row in found.rejected] == [(8, "unknown label 'unheard of'")]


def test_inputs_need_no_target(tmp_path: Path) -> None:
    path = tmp_path / "inputs.csv"
    path.write_bytes(b"text\none\n \nthree\n")
    found = read_inputs(str(path), DataSettings(train="x.csv"), ("text",), tmp_path / "cache")
    assert found.rows.column("input").to_pylist() == ["one", "three"]
    assert [row.line for row in found.rejected] == [3]


def test_the_audit_is_json(read: Read) -> None:
    found = read(table([*ROWS, ("", "a")]))
    audit = json.loads(json.dumps(found.audit, allow_nan=False))
    assert audit["imbalance"]["ratio"] == pytest.approx(1.0)
    assert audit["rejected"] == {"empty text in 'text'": 1}
