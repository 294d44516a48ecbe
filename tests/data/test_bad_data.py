"""Each kind of bad data ends in one clear sentence, or sets its rows aside with line and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tunesmith.data.load import Dataset, load
from tunesmith.data.targets.classes import Classes
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings

GOOD = [(f"it is fine number {number}", "good") for number in range(20)]
BAD = [(f"rubbish of the kind {number}", "bad") for number in range(20)]


def write(path: Path, rows: list[tuple[str, ...]], header: str = "text,label") -> Path:
    body = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    path.write_text(f"{header}\n{body}", encoding="utf-8")
    return path


def read(tmp_path: Path, path: Path, **more: object) -> Dataset:
    return load(DataSettings(train=str(path), **more), tmp_path / "cache", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"text,label\n", "has a header but no rows"),
        (b"\n\n", "has no header"),
        (b"text,label\n" + b"".join(b"row %d,same\n" % n for n in range(30)), "only the class 'same'"),
        (b"text,label\n" + b"".join(b"  ,a\n,b\n" for _ in range(15)), "None of the 30 rows"),
        (b"text,label\n" + b"".join(b"row %d,\n" % n for n in range(30)), "is empty in every row"),
        (b"text,text,label\na,b,c\n", "more than one column 'text'"),
        (b"alpha,beta,gamma\na,b,c\n", "not clear which column"),
        (b"text,label\na,x\nb,y\n", "too few to cut"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path, path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no data file .*nowhere\.csv"):
        read(tmp_path, tmp_path / "nowhere.csv")


def test_an_unknown_kind_of_file_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"\.csv, \.tsv, \.json"):
        read(tmp_path, tmp_path / "rows.xlsx")


def test_a_missing_column_offers_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", GOOD + BAD)
    with pytest.raises(DataError, match=r"no column 'lable'; did you mean 'label'\? Columns: text, label\."):
        read(tmp_path, path, target="lable")


def test_white_space_around_a_column_name_is_read_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", GOOD + BAD, header="text, label ")
    assert any("' label '" in sentence for sentence in read(tmp_path, path).columns.guesses)


def test_used_and_ignored_columns_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [(*row, "x") for row in GOOD + BAD], header="text,label,region")
    found = read(tmp_path, path)
    assert found.columns.inputs == ("text",)
    assert found.columns.ignored == ("region",)
    assert len(found.columns.guesses) == 3


def test_bad_rows_are_set_aside_with_line_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [f'"{text}",{label}\n'.encode() for text, label in GOOD + BAD]
    lines[2:2] = [
        b'"two\nlines",good\n',
        b'"  ",good\n',
        b"one cell\n",
        b"caf\xe9,bad\n",
        b"nul\x00here,bad\n",
        b"fine,\n",
    ]
    path.write_bytes(b"text,label\n" + b"".join(lines))
    found = read(tmp_path, path, max_rejected=0.5)
    assert {(row.line, row.reason) for row in found.rejected} == {
        (6, "empty text in 'text'"),
        (7, "wrong column count: 1 instead of 2"),
        (8, "broken encoding: not utf-8"),
        (9, "NUL character in 'text'"),
        (10, "no label"),
    }
    assert sum(found.audit["rows"].values()) == 41


def test_too_many_bad_rows_stop_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", GOOD + BAD + [("", "good")] * 20)
    with pytest.raises(DataError, match=r"20 of 60 rows cannot be used.*empty text"):
        read(tmp_path, path)


def test_ten_megabytes_in_one_cell_are_set_aside(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [*GOOD, *BAD, ("x" * 10_000_000, "bad")])
    found = read(tmp_path, path)
    assert [row.reason for row in found.rejected] == ["text of more than 1,000,000 characters in 'text'"]
    assert len(found.rejected[0].text) <= 200


def test_duplicate_ids_are_refused_with_both_lines(tmp_path: Path) -> None:
    rows = [(str(number % 30), *row) for number, row in enumerate(GOOD + BAD)]
    with pytest.raises(DataError, match=r"'0' stands in line 2 and in line 32"):
        read(tmp_path, write(tmp_path / "rows.csv", rows, header="id,text,label"), id="id")


def test_two_hundred_thousand_classes_are_taken_for_an_id(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"row {number},class{number}\n" for number in range(200_000)))
    with pytest.raises(DataError, match=r"200,000 different values in 200,000 rows"):
        read(tmp_path, path)


def test_a_class_with_one_row_stays_in_training_and_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, write(tmp_path / "rows.csv", [*GOOD, *BAD, ("quite alone here", "rare")]))
    assert found.audit["classes"]["train"]["rare"] == 1
    assert any("'rare'" in warning for warning in found.audit["warnings"])


def test_unknown_labels_of_another_split_are_set_aside(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", GOOD + BAD)
    test = write(tmp_path / "test.csv", [*GOOD[:9], ("something else", "ugly")])
    found = read(tmp_path, train, test=str(test))
    assert [(row.split, row.line, row.reason) for row in found.rejected] == [("test", 11, "unknown label 'ugly'")]


def test_overlap_of_brought_splits_is_reported(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", GOOD + BAD)
    test = write(tmp_path / "test.csv", [GOOD[0], BAD[1], ("entirely new words", "good")])
    found = read(tmp_path, train, test=str(test), near_duplicate=0.99)
    assert found.audit["overlap"]["test in train"]["rows"] == 2 or found.audit["overlap"]["test in validation"]["rows"]
    assert any("flatter the model" in warning for warning in found.audit["warnings"])


def test_utf16_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    body = "text,label\n" + "".join(f"{text} é€,{label}\n" for text, label in GOOD + BAD)
    path.write_bytes(body.encode("utf-16"))
    assert sum(read(tmp_path, path).audit["rows"].values()) == 40


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "tsv", "folder"])
def test_every_kind_of_source_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    rows = [{"text": text, "label": label} for text, label in GOOD + BAD]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "json":
        path.write_text(json.dumps({"data": rows}))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "tsv":
        path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in GOOD + BAD))
    else:
        import datasets  # noqa: PLC0415

        datasets.Dataset.from_list(rows).class_encode_column("label").save_to_disk(str(path))
    found = read(tmp_path, path)
    assert found.labels == ("bad", "good")
    assert sum(found.audit["rows"].values()) == 40


def test_targets_are_read_as_what_they_are(tmp_path: Path) -> None:
    texts = [text for text, _ in GOOD + BAD]

    def problem(values: list[object], **more: object) -> tuple[str, tuple[str, ...]]:
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(json.dumps({"text": t, "label": v}) for t, v in zip(texts, values, strict=True)))
        found = read(tmp_path, path, **more)
        return found.problem, found.labels

    assert problem([number % 3 for number in range(40)]) == ("single-label", ("0", "1", "2"))
    assert problem([number / 7 for number in range(40)]) == ("regression", ())
    assert problem([["a"], ["a", "b"], [], ["b"]] * 10) == ("multi-label", ("a", "b"))
    assert problem([number % 12 for number in range(40)])[1][-1] == "11"  # sorted as numbers


def test_several_columns_of_zero_and_one_are_labels(tmp_path: Path) -> None:
    rows = [(text, str(number % 2), str(number % 3 == 0)) for number, (text, _) in enumerate(GOOD + BAD)]
    path = write(tmp_path / "rows.csv", rows, header="text,toxic,rude")
    found = read(tmp_path, path, target=["toxic", "rude"])
    assert found.problem == "multi-label"
    assert found.labels == ("rude", "toxic")


def test_a_folder_with_a_file_a_split_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train.csv", GOOD + BAD)
    write(folder / "dev.csv", [("yes it is fine", "good"), ("no not at all", "bad")])
    write(folder / "notes.csv", [("not a split", "good")])
    found = read(tmp_path, folder)
    assert {name: rows.num_rows for name, rows in found.splits.items()} == {"train": 36, "validation": 2, "test": 4}


def test_a_folder_without_a_training_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "rows.csv", GOOD + BAD)
    with pytest.raises(DataError, match=r"no training file such as train\.csv.*it holds rows\.csv"):
        read(tmp_path, folder)


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.csv", "valid.csv", "validation.csv"):
        write(folder / name, GOOD + BAD)
    with pytest.raises(DataError, match=r"two files for the validation split: valid\.csv and validation\.csv"):
        read(tmp_path, folder)


def test_what_is_inferred_of_the_target_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [(f"{text} number {n}", str(n % 5)) for n, (text, _) in enumerate(GOOD + BAD)])
    found = read(tmp_path, path)
    assert any(
        "read as classes, one a row, as its cells hold 5 different values" in one for one in found.columns.guesses
    )
    assert found.audit["columns"]["guesses"] == list(found.columns.guesses)


def test_nan_among_numbers_is_no_label(tmp_path: Path) -> None:
    """Tables write empty cells as nan; it became a class of its own."""
    rows = [(f"{text} number {n}", "nan" if n == 3 else str(n % 2)) for n, (text, _) in enumerate(GOOD + BAD)]
    found = read(tmp_path, write(tmp_path / "rows.csv", rows))
    assert found.labels == ("0", "1")
    assert [(row.line, row.reason) for row in found.rejected] == [(5, "no label")]


def test_several_target_columns_cannot_be_one_label(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        "text,a,b\n" + "\n".join(f"word{n},{n % 2},{1 - n % 2}" for n in range(30)) + "\n"
    )
    wanted = DataSettings(train=str(tmp_path / "rows.csv"), target=["a", "b"])
    with pytest.raises(
        DataError, match=r"names 2 columns, which make a multi-label target, but task.problem is single-label"
    ):
        load(wanted, tmp_path / "cache", 0, Classes("single-label"))


def test_a_file_that_breaks_off_while_it_is_read_is_one_sentence(tmp_path: Path) -> None:
    """It was called a failure to write, or ended in a traceback."""
    table = pa.table(
        {"text": [f"{text} {n}" for n, (text, _) in enumerate((GOOD + BAD) * 500)], "label": ["a", "b"] * 10000}
    )
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=1000)
    whole = path.read_bytes()
    path.write_bytes(whole[:20_000] + b"\x00" * 20_000 + whole[40_000:])
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read"):
        read(tmp_path, path)


def test_splits_that_rows_belonging_together_make_uneven_are_reported(tmp_path: Path) -> None:
    lines = [f"word{n} word{n * 7} word{n * 13},{'ab'[n % 2]},{0 if n < 90 else n}" for n in range(100)]
    (tmp_path / "rows.csv").write_text("text,label,author\n" + "\n".join(lines) + "\n")
    wanted = DataSettings(train=str(tmp_path / "rows.csv"), group="author", split=(0.5, 0.25, 0.25))
    found = load(wanted, tmp_path / "cache", 0)
    assert any("instead of 50, as rows that belong together" in warning for warning in found.audit["warnings"])


def test_lists_of_class_labels_are_read_by_name(tmp_path: Path) -> None:
    import datasets  # noqa: PLC0415

    kinds = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=["a", "b"]))}
    )
    rows = [{"text": f"{text} {n}", "labels": [n % 2] if n % 3 else [0, 1]} for n, (text, _) in enumerate(GOOD + BAD)]
    datasets.Dataset.from_list(rows, features=kinds).save_to_disk(str(tmp_path / "set"))
    found = read(tmp_path, tmp_path / "set")
    assert (found.problem, found.labels) == ("multi-label", ("a", "b"))
