"""Answers in passages: the forms of cells, how wrong starts are mended, what the audit tells, and SQuAD's JSON."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.cells.questions import QUESTIONS
from tunesmith.data.load import Dataset, load, load_labelled
from tunesmith.data.readers import open_source
from tunesmith.data.rejected import Rejected
from tunesmith.data.targets import Reason, Settled
from tunesmith.data.targets.answers import Answer, Answers, answers_of
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings

PASSAGE = "Anna Li flew to New York. Anna stayed."
WHO = {"text": ["Anna Li"], "answer_start": [0]}
WHERE = {"text": ["New York"], "answer_start": [16]}
NONE: dict[str, list[Any]] = {"text": [], "answer_start": []}
HEADER = ("question", "context", "answers")


def table(folder: Path, cells: list[Any], passages: list[Any] | None = None, header: Any = HEADER) -> Path:
    """A .jsonl of questions, no two alike, with their passages and what is said of answers."""
    folder.mkdir(parents=True, exist_ok=True)
    passages = [PASSAGE] * len(cells) if passages is None else passages
    rows = [(f"Who flew {number * 7919}?", *row) for number, row in enumerate(zip(passages, cells, strict=True))]
    lines = [json.dumps(dict(zip(header, row, strict=True))) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "rows.jsonl"


def read(where: Path, **settings: Any) -> Dataset:
    wanted = DataSettings(**{"train": str(where), "near_duplicate": 1.0, "max_rejected": 0.5, **settings})
    return load(wanted, where.parent / "cache", 0, Answers(), QUESTIONS)


def targets(found: Dataset) -> dict[int, dict[str, Any]]:
    """By the line of the row, from all splits that were cut from one file."""
    rows = [row for one in found.splits.values() for row in one.select(["line", "target"]).to_pylist()]
    return {row["line"]: row["target"] for row in rows}


def placed(folder: Path, cell: Any, passage: str = PASSAGE) -> dict[str, Any] | str:
    """The target that `cell` becomes, or why it is set aside."""
    found = read(table(folder, [cell] + [WHO] * 19, [passage] + [PASSAGE] * 19))
    return found.rejected[0].reason if found.rejected else targets(found)[1]


def written(folder: Path, value: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "squad.json").write_text(json.dumps(value), encoding="utf-8")
    return folder / "squad.json"


# Cells


@pytest.mark.parametrize(
    "cell",
    [
        {"text": ["Anna Li", "New York"], "answer_start": [0, 16]},
        {"answer_start": [0, 16.0], "text": ["Anna Li", "New York"], "answer_end": [7, 24]},
        [{"text": "Anna Li", "answer_start": 0}, {"text": "New York", "answer_start": 16, "id": 3}],
        [{"text": "Anna Li", "start": 0}, {"answer": "New York", "start_index": 16}],
        [{"text": ["Anna Li"], "answer_start": [0]}, {"text": ["New York"], "answer_start": [16]}],
    ],
)
def test_every_form_of_cell_says_the_same(cell: Any) -> None:
    for text in (json.dumps(cell), repr(cell)):
        assert answers_of(text) == [Answer("Anna Li", 0), Answer("New York", 16)]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Anna Li", [Answer("Anna Li", None)]),
        ("[sic]", [Answer("[sic]", None)]),
        ('["Anna Li", "Anna"]', [Answer("Anna Li", None), Answer("Anna", None)]),
        ('{"text": "Anna Li"}', [Answer("Anna Li", None)]),
        ('{"text": "Anna Li", "start": null}', [Answer("Anna Li", None)]),
        ('{"text": "Anna Li", "start": 1.5}', [Answer("Anna Li", None)]),
        ('{"text": "Anna Li", "start": true}', [Answer("Anna Li", None)]),
        ('{"text": "Anna Li", "start": "x"}', [Answer("Anna Li", None)]),
    ],
)
def test_a_text_may_come_without_its_start(cell: str, expected: list[Answer]) -> None:
    assert answers_of(cell) == expected


@pytest.mark.parametrize("start", ["'16'", "' 16 '", "np.int64(16)", "16.0", "np.float64(16.0)"])
def test_a_start_may_be_any_whole_number(start: str) -> None:
    assert answers_of(f"{{'text': 'New York', 'answer_start': {start}}}") == [Answer("New York", 16)]


def test_what_pandas_leaves_of_arrays_is_read() -> None:
    cell = {"text": np.array(["Anna Li", "it's"], dtype=object), "answer_start": np.array([0, 16], dtype=np.int32)}
    assert answers_of(repr(cell)) == [Answer("Anna Li", 0), Answer("it's", 16)]


@pytest.mark.parametrize(
    "cell",
    [
        None, "", " ", "[]", "{}", '{"text": [], "answer_start": []}', '{"text": "", "answer_start": -1}',
        '{"text": [""], "answer_start": [-1]}', '[{"text": "", "answer_start": -1}]', '[""]',
        '{"text": null, "answer_start": null}', "{'text': array([], dtype=object), 'answer_start': array([], dtype=int32)}",
    ],
)  # fmt: skip
def test_nothing_in_any_form_is_no_answer(cell: str | None) -> None:
    assert answers_of(cell) == []


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ('{"answer_start": [3]}', "answer without its text"),
        ('{"text": null, "answer_start": 3}', "answer without its text"),
        ('[{"id": 3}]', "answer without its text"),
        ('{"text": ["a", "b"], "answer_start": [3]}', "more or fewer starts than answers"),
        ('{"text": [3], "answer_start": [3]}', "answer that is not text"),
        ('{"text": ["a", ""], "answer_start": [3, 4]}', "empty answer beside others"),
        ('["a", " "]', "empty answer beside others"),
        ("[3]", "answers that are neither text nor mappings"),
        ("[null]", "answers that are neither text nor mappings"),
    ],
)
def test_a_cell_that_cannot_be_read_says_why(cell: str, reason: str) -> None:
    found = answers_of(cell)
    assert isinstance(found, Reason)
    assert found == reason


@given(st.text(max_size=30))
def test_no_cell_is_too_strange(cell: str) -> None:
    assert isinstance(answers_of(cell), list | Reason)
    assert isinstance(answers_of(f"[{cell}]"), list | Reason)
    assert isinstance(answers_of(json.dumps({"text": cell, "start": cell})), list | Reason)


# Places


def test_answers_stand_where_they_are_said_to_and_all_are_kept_once(tmp_path: Path) -> None:
    cell = {"text": ["New York", "Anna", "New York", "York"], "answer_start": [16, 26, 16, 20]}
    assert placed(tmp_path, cell) == {
        "starts": [16, 26, 20], "ends": [24, 30, 24], "texts": ["New York", "Anna", "York"], "classes": [],
        "moved": 0, "searched": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "start", "passage", "expected"),
    [
        ("New York", 17, PASSAGE, (16, 24)),  # counted from one
        ("Anna", 22, PASSAGE, (26, 30)),  # the nearest of two
        ("Anna", 12, PASSAGE, (0, 4)),
        ("Anna", -1, PASSAGE, (0, 4)),
        ("Anna", 10**30, PASSAGE, (26, 30)),
        ("flew to", 8, "Anna Li flew  to\nNew York.", (8, 16)),  # other blanks
        ("flew\r\nto", 9, "Anna Li flew\nto New York.", (8, 15)),  # newlines of Windows
        ("in a caf\u00e9", 2, "They in a cafe\u0301 sat.", (5, 15)),  # letters in parts
        ("cafe\u0301", 0, "a caf\u00e9", (2, 6)),
        (" Li ", 3, "Anna-Li", (5, 7)),
        ("\u5317\u4eac", 9, "\u5317\u4eac\u5728\u5317\u4eac\u4e86\u5317\u4eac", (3, 5)),  # counted in bytes
        ("an", 8, "\U0001f600\U0001f600 an an an", (6, 8)),  # counted in units of UTF-16
    ],
)
def test_a_start_that_leads_elsewhere_is_mended_by_the_nearest_place_and_counted(
    tmp_path: Path, text: str, start: int, passage: str, expected: tuple[int, int]
) -> None:
    found = placed(tmp_path, {"text": [text], "answer_start": [start]}, passage)
    assert isinstance(found, dict)
    assert ((found["starts"][0], found["ends"][0]), found["texts"], found["moved"]) == (expected, [text], 1)


def test_a_text_without_a_start_is_the_first_of_the_passage(tmp_path: Path) -> None:
    found = placed(tmp_path, ["Anna", "stayed"])
    assert isinstance(found, dict)
    assert (found["starts"], found["ends"], found["moved"], found["searched"]) == ([0, 31], [4, 37], 0, 2)


@pytest.mark.parametrize(
    ("text", "passage", "start"),
    [
        ("men", "The government has women and men.", 29),
        ("1", "In 2021, 1 of 11", 9),
        ("go", "gone, go", 6),
        ("$5", "$50 or $5", 7),
        ("port", "A report", 4),  # nowhere by itself
        ("\u4eac", "\u5317\u4eac", 1),
        ("(a)", "x(a)", 1),
    ],
)
def test_a_text_without_a_start_is_looked_for_as_whole_words_first(
    tmp_path: Path, text: str, passage: str, start: int
) -> None:
    found = placed(tmp_path, text, passage)
    assert isinstance(found, dict)
    assert found["starts"] == [start]


@pytest.mark.parametrize("cell", ["Bob", {"text": ["Anna", "Bob"], "answer_start": [0, 3]}, "new york", "Anna (Li"])
def test_an_answer_that_its_passage_lacks_costs_the_row(tmp_path: Path, cell: Any) -> None:
    assert placed(tmp_path, cell) == "answer that does not stand in its passage"


@given(st.text("ab \u0301\n", min_size=1, max_size=20), st.data())
def test_what_is_cut_from_a_passage_is_found_again(passage: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(passage) - 1))
    end = data.draw(st.integers(start + 1, len(passage)))
    cell = json.dumps({"text": passage[start:end], "start": start})
    rows = pa.record_batch({"raw": [cell], "input": ["?"], "pair": [passage]})
    (found,) = Answers().reading(None, Settled("answers", ())).values(rows)  # type: ignore[arg-type]
    expected = ([start], [end]) if passage[start:end].strip() else ([], [])
    assert (found["starts"], found["ends"], found["moved"]) == (*expected, 0)


# Rows


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_every_kind_of_table_becomes_questions_with_passages_and_answers(tmp_path: Path, form: str) -> None:
    where = table(tmp_path, [WHO, WHERE, NONE] * 10)
    rows = [json.loads(line) for line in where.read_text().splitlines()]
    if form == "parquet":
        where = tmp_path / "rows.parquet"
        pa.parquet.write_table(pa.Table.from_pylist(rows), where)
    elif form == "csv":  # as pandas writes them
        lines = [f'{row["question"]},{row["context"]},"{row["answers"]!r}"' for row in rows]
        where = tmp_path / "rows.csv"
        where.write_text("\n".join([",".join(HEADER), *lines]), encoding="utf-8")
    found = read(where)
    assert not found.rejected
    assert (found.problem, found.labels, dict(found.coding)) == ("answers", (), {})
    assert found.columns.inputs == ("question", "context")
    spans = Counter((*row["starts"], *row["ends"], *row["texts"]) for row in targets(found).values())
    assert spans == {(0, 7, "Anna Li"): 10, (16, 24, "New York"): 10, (): 10}
    assert found.splits["test"].column("pair").to_pylist() == [PASSAGE] * found.splits["test"].num_rows


@pytest.mark.parametrize(
    ("header", "inputs", "target"),
    [
        (["id", "title", "question", "context", "answers"], ("question", "context"), "answers"),
        (["query", "passage", "answer"], ("query", "passage"), "answer"),
        (["Question", "Document", "label"], ("Question", "Document"), "label"),
        (["question", "text", "answer_text", "answer"], ("question", "text"), "answer"),
    ],
)
def test_columns_are_found_by_name(tmp_path: Path, header: list[str], inputs: tuple[str, str], target: str) -> None:
    values = {inputs[1]: PASSAGE, target: "Anna"}
    rows = [{name: values.get(name, f"{name} {number}") for name in header} for number in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read(tmp_path / "rows.jsonl").columns
    assert (found.inputs, found.targets) == (inputs, (target,))


def test_one_column_or_three_are_answered_by_how_to_name_both(tmp_path: Path) -> None:
    where = table(tmp_path, [WHO] * 10, header=("question", "body", "answers"))
    with pytest.raises(DataError, match="a pair of columns, such as question, context, but") as caught:
        read(where)
    assert "Name both in data.input, as in [question, context]. Columns: question, body, answers." in str(caught.value)
    assert read(where, input=["question", "body"]).columns.inputs == ("question", "body")
    more = table(tmp_path / "more", [WHO] * 10)
    with pytest.raises(DataError, match="names 3 columns; a pair, such as question, context, is read"):
        read(more, input=["question", "context", "question"])


def test_a_question_or_a_passage_that_says_nothing_is_set_aside(tmp_path: Path) -> None:
    passages = [PASSAGE] * 18 + [" ", None, PASSAGE * 99]
    where = table(tmp_path, [WHO] * 21, passages)
    lines = where.read_text().splitlines()
    lines[0] = json.dumps({"question": "", "context": PASSAGE, "answers": WHO})
    where.write_text("\n".join(lines))
    assert {(row.line, row.reason) for row in read(where, max_characters=1000).rejected} == {
        (1, "empty text in 'question'"), (19, "empty text in 'context'"), (20, "no text in 'context'"),
        (21, "text of more than 1,000 characters in 'context'"),
    }  # fmt: skip


def test_rows_are_the_same_when_question_and_passage_are(tmp_path: Path) -> None:
    rows = [("Who?", PASSAGE, WHO), ("Who?", PASSAGE + " Bo left.", WHO), ("Where?", PASSAGE, WHERE)] * 4
    where = tmp_path / "rows.jsonl"
    where.write_text("\n".join(json.dumps(dict(zip(HEADER, row, strict=True))) for row in rows))
    assert read(where).audit["duplicates"]["exact"] == 9


def test_rows_are_nearly_the_same_when_both_question_and_passage_are(tmp_path: Path) -> None:
    long = " ".join(f"Guest {number} flew to town {7 * number}." for number in range(200))
    asked = [f"Where did {number * 7919**9} go?" for number in range(1, 41)]
    rows = [(one, long, f"town {7 * number}") for number, one in enumerate(asked)]
    rows += [(f"{asked[0]} ", f"{long} Bo left.", "town 0"), (asked[0], "Guest 0 saw town 0.", "town 0")]
    where = tmp_path / "rows.jsonl"
    where.write_text("\n".join(json.dumps(dict(zip(HEADER, row, strict=True))) for row in rows))
    found = read(where, near_duplicate=0.9)  # and one long passage can be cut into splits
    assert (found.audit["duplicates"]["exact"], found.audit["duplicates"]["near"]) == (0, 1)


def test_other_rows_are_read_as_the_training_rows_were(tmp_path: Path) -> None:
    found = read(table(tmp_path / "train", [WHO] * 10))
    where = table(tmp_path / "test", [WHERE, "Bob", None])
    settled = Settled("answers", found.labels, found.coding)
    wanted = DataSettings(train=str(where))
    again = load_labelled(str(where), wanted, found.columns, settled, tmp_path / "again", QUESTIONS, Answers())
    assert [row["texts"] for row in again.rows.column("target").to_pylist()] == [["New York"], []]
    assert [row.reason for row in again.rejected] == ["answer that does not stand in its passage"]


# The audit


def three(folder: Path, **cells: list[Any]) -> Dataset:
    """Splits with passages of their own, unless a cell comes with one: (cell, passage)."""
    files = {}
    for split, own in cells.items():
        pairs = [one if isinstance(one, tuple) else (one, f"{PASSAGE} {split}") for one in own]
        files[split] = table(folder / split, [cell for cell, _ in pairs], [passage for _, passage in pairs])
    return read(files["train"], validation=str(files["validation"]), test=str(files["test"]))


def test_the_audit_tells_what_each_split_has(tmp_path: Path) -> None:
    moved = {"text": ["New York", "Anna"], "answer_start": [15, 3]}
    found = three(
        tmp_path, train=[WHO, WHERE, NONE, moved, "Anna", ["Li", "to"]], validation=[WHO, None], test=[WHO, NONE, NONE]
    )
    assert found.audit["answers"]["train"] == {
        "rows": 6, "passages": 1, "unanswerable": 1, "answers_a_row": 2,
        "characters": {"min": 2.0, "median": 4.0, "max": 8.0}, "moved": 2, "searched": 3,
    }  # fmt: skip
    assert found.audit["answers"]["test"] == {
        "rows": 3, "passages": 1, "unanswerable": 2, "answers_a_row": 1,
        "characters": {"min": 7.0, "median": 7.0, "max": 7.0}, "moved": 0, "searched": 0, "passages_in_train": 0,
    }  # fmt: skip
    assert "classes" not in found.audit
    assert (
        "train: 2 answers did not stand where the file says, and the nearest was taken; 3 came without a place, and the "
        "first in the passage was taken."
    ) in found.audit["warnings"]


def test_a_kind_of_question_that_only_one_split_has_is_warned_of(tmp_path: Path) -> None:
    untaught = three(tmp_path / "untaught", train=[WHO] * 3, validation=[WHO, NONE], test=[WHO])
    assert [one for one in untaught.audit["warnings"] if "every question" in one] == [
        "train: every question has an answer, while 1 of validation has none: nothing teaches the model to give none."
    ]
    unmeasured = three(tmp_path / "unmeasured", train=[WHO, NONE, NONE], validation=[WHO, NONE], test=[WHO])
    assert [one for one in unmeasured.audit["warnings"] if "every question" in one] == [
        "test: every question has an answer, while 2 of train have none: test does not show whether the model can tell."
    ]
    empty = three(tmp_path / "empty", train=[WHO, NONE], validation=[NONE], test=[NONE])
    assert (
        "validation: no question has an answer: validation does not show whether the model can find one."
        in (empty.audit["warnings"])
    )
    assert empty.audit["answers"]["test"]["characters"] == {"min": 0.0, "median": 0.0, "max": 0.0}


def test_passages_that_training_rows_have_too_are_counted_and_a_group_parts_them(tmp_path: Path) -> None:
    known = (WHO, f"{PASSAGE} train")
    found = three(tmp_path, train=[WHO] * 3, validation=[WHO], test=[known, known, WHO])
    assert [found.audit["answers"][split]["passages_in_train"] for split in ("validation", "test")] == [0, 1]
    (warning,) = (one for one in found.audit["warnings"] if "data.group" in one)
    assert warning.startswith("test: 1 of 2 passages stands in train too")
    several = [f"{PASSAGE} {number % 10}" for number in range(100)]
    where = table(tmp_path / "several", [WHO] * 100, several)
    assert read(where).audit["answers"]["test"]["passages_in_train"]
    assert not read(where, group="context").audit["answers"]["test"]["passages_in_train"]


def test_splits_that_are_cut_part_passages_unless_there_are_few_or_a_group_is_named(tmp_path: Path) -> None:
    def shared(passages: int, **settings: Any) -> int:
        rows = [f"{PASSAGE} {number % passages}" for number in range(100)]
        found = read(table(tmp_path / str(passages), [WHO] * 100, rows, ("question", "context", "answers")), **settings)
        assert [found.splits[name].num_rows for name in ("validation", "test")] == [10, 10]
        return int(sum(found.audit["answers"][split]["passages_in_train"] for split in ("validation", "test")))

    assert shared(20) == shared(50) == 0
    assert shared(19)
    assert shared(20, group="question")


def test_what_nothing_can_be_learned_from_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No question of .* has an answer"):
        read(table(tmp_path / "none", [NONE, None, ""] * 5))
    with pytest.raises(DataError, match=r"commonest reason is: answer without its text \(20 of 20\)"):
        read(table(tmp_path / "unread", [{"answer_start": [0]}] * 20))
    with pytest.raises(DataError, match="does not stand in its passage"):
        read(table(tmp_path / "absent", ["Bob"] * 20))


# SQuAD's JSON


def squad(questions: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "version": "v2.0",
        "data": [{"title": "Flights", "paragraphs": [{"context": PASSAGE, "qas": questions}]}],
        **more,
    }


def asked(number: int, **more: Any) -> dict[str, Any]:
    answers = [{"text": "Anna Li", "answer_start": 0}, {"text": "Anna", "answer_start": 0}]
    return {"id": f"q{number}", "question": f"Who flew {number}?", "answers": answers, **more}


IMPOSSIBLE = {"is_impossible": True, "answers": [], "plausible_answers": [{"text": "Li", "answer_start": 5}]}


def test_squads_json_gives_a_row_for_each_question(tmp_path: Path) -> None:
    where = written(tmp_path, squad([asked(0), asked(1, **IMPOSSIBLE), *map(asked, range(2, 20))]))
    found = read(where)
    assert (found.columns.inputs, found.columns.id) == (("question", "context"), "id")
    assert found.columns.ignored == ("title",)
    by_line = targets(found)
    assert by_line[1] == {
        "starts": [0, 0], "ends": [7, 4], "texts": ["Anna Li", "Anna"], "classes": [], "moved": 0, "searched": 0,
    }  # fmt: skip
    assert by_line[2]["starts"] == []
    assert len(by_line) == 20


def test_an_answer_that_is_promised_but_not_given_is_not_taken_for_none(tmp_path: Path) -> None:
    without = asked(1, is_impossible=False, answers=[])
    unknown = asked(2)
    del unknown["answers"]
    found = read(
        written(tmp_path, squad([asked(0), without, unknown, asked(3, answers=[]), *map(asked, range(4, 20))]))
    )
    assert {row.line: row.reason for row in found.rejected} == {
        2: "answer without its text",
        3: "answer without its text",
    }
    assert targets(found)[4]["starts"] == []


def test_not_a_number_is_no_answer(tmp_path: Path) -> None:
    """What pandas has for an empty cell is not the text nan, which stands in many a word."""
    assert placed(tmp_path, float("nan"), "Her finances.") == placed(tmp_path, None)


def test_a_list_of_paragraphs_is_read_as_well(tmp_path: Path) -> None:
    where = written(tmp_path, [{"context": PASSAGE, "qas": [asked(0), asked(1)]}, {"context": "B", "qas": [asked(2)]}])
    (source,) = open_source(str(where), "utf-8").values()
    rows = [record[1] for record in source.records if not isinstance(record, Rejected)]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("q0", None, PASSAGE),
        ("q1", None, PASSAGE),
        ("q2", None, "B"),
    ]


def test_malformed_paragraphs_and_questions_are_set_aside_one_by_one(tmp_path: Path) -> None:
    value = squad([*map(asked, range(9)), "Who?", {"id": "x"}])
    value["data"][0]["paragraphs"] += [{"context": PASSAGE}, 7, {"qas": [asked(12)]}]
    value["data"] += [None, {"title": "no paragraphs"}, {"paragraphs": [{"context": PASSAGE, "qas": [asked(15)]}]}]
    found = read(written(tmp_path, value))
    assert {row.line: row.reason for row in found.rejected} == {
        10: "not a JSON object",
        11: "no text in 'question'",
        12: "no paragraph with questions",
        13: "no paragraph with questions",
        14: "no text in 'context'",
        15: "no paragraph with questions",
        16: "no paragraph with questions",
    }
    assert sorted(targets(found)) == [*range(1, 10), 17]


def test_other_json_is_not_taken_for_squads(tmp_path: Path) -> None:
    rows = [{"question": f"Who {number}?", "context": PASSAGE, "answers": WHO} for number in range(10)]
    for value in (rows, {"data": rows}):
        assert len(targets(read(written(tmp_path, value)))) == 10
