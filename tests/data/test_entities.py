"""Entities and tags of words: the forms and schemes of cells, and what is repaired or set aside on the way to words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.scheme import BILOU, IOB2, IOBES
from seqeval.scheme import Entities as Peer

from tunesmith.data.cells.words import WORDS, words_of
from tunesmith.data.load import Dataset, load, load_labelled
from tunesmith.data.targets import Reason, Settled
from tunesmith.data.targets.entities import Entities
from tunesmith.data.targets.tag_cells import Span, Spans, Tags, marks_of
from tunesmith.data.targets.tag_schemes import entities_of, scheme_of
from tunesmith.data.targets.word_spans import fitted
from tunesmith.errors import DataError, GuessWarning, SettingsError
from tunesmith.settings import DataSettings

TEXT = "Anna Li flew to New York."
ANNA = {"start": 0, "end": 7, "label": "PER"}
YORK = {"start": 16, "end": 24, "label": "LOC"}
TOKENS = ["Anna", "Li", "flew", "to", "New", "York", "."]
TAGS = ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O"]


def table(folder: Path, cells: list[Any], texts: list[Any] | None = None, **columns: str) -> Path:
    """A .jsonl of texts, no two alike, and what is said of their words."""
    folder.mkdir(parents=True, exist_ok=True)
    text, target = columns.get("text", "text"), columns.get("target", "entities")
    if texts is None:
        texts = [f"{TEXT} {'ab'[number % 2] * (number + 1)} {number * 7919}" for number in range(len(cells))]
    lines = [json.dumps({text: one, target: cell}) for one, cell in zip(texts, cells, strict=True)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "rows.jsonl"


def tagged(folder: Path, tags: list[Any], **more: Any) -> Path:
    """A .jsonl of lists of tokens, which name their row, and tags."""
    texts = [[f"{token}{number}" for token in TOKENS[: len(one)]] for number, one in enumerate(tags)]
    return table(folder, tags, texts, text="tokens", target="tags", **more)


def read(where: Path, problem: Any = None, classes: Any = None, **settings: Any) -> Dataset:
    wanted = DataSettings(**{"train": str(where), "near_duplicate": 1.0, "max_rejected": 0.5, **settings})
    return load(wanted, where.parent / "cache", 0, Entities(problem, classes), WORDS)


def targets(found: Dataset) -> dict[int, dict[str, Any]]:
    """By the line of the row, from all splits that were cut from one file."""
    rows = [row for one in found.splits.values() for row in one.select(["line", "target"]).to_pylist()]
    return {row["line"]: row["target"] for row in rows}


def conll(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


# Cells


@pytest.mark.parametrize(
    "cell",
    [
        '["B-PER", "I-PER", "O", "3"]',
        '["B-PER", " I-PER ", "O", 3]',
        '["B-PER", "I-PER", "O", 3.0]',
        "['B-PER', 'I-PER', 'O', 3]",
    ],
)
def test_a_list_of_names_or_numbers_is_tags(cell: str) -> None:
    assert marks_of(cell) == Tags(["B-PER", "I-PER", "O", "3"])


@pytest.mark.parametrize(
    "cell",
    [
        [ANNA, YORK],
        [{"start_offset": 0, "end_offset": 7, "label": "PER", "id": 4}, YORK],
        [{"begin": 0, "end": 7.0, "type": "PER", "entity": None}, {"start": 16, "end": 24, "tag": "LOC"}],
        [{"start": 0, "end": 7, "text": "Anna Li", "labels": ["PER"]}, YORK],
        [{"value": {"start": 0, "end": 7, "labels": ["PER"]}, "from_name": "label"}, {"value": YORK, "type": "labels"}],
        [{"token_start": 0, "token_end": 1, **ANNA}, YORK],
        [[0, 7, "PER"], [16, 24, "LOC"]],
        [[0, 7, ["PER"]], YORK],
        {"entities": [[0, 7, "PER"], [16, 24, "LOC"]]},
        {"spans": [ANNA, YORK]},
        {"start": [0, 16], "end": [7, 24], "label": ["PER", "LOC"]},
        {"entities": {"start": [0, 16], "end": [7, 24], "type": ["PER", "LOC"]}},
    ],
)
def test_every_form_of_spans_says_the_same(cell: Any) -> None:
    expected = Spans([Span(0, 7, "PER"), Span(16, 24, "LOC")])
    for written in (json.dumps(cell), repr(cell)):
        found = marks_of(written)
        assert isinstance(found, Spans)
        assert found == expected


def test_an_empty_list_is_a_text_without_entities() -> None:
    assert (
        marks_of("[]") == marks_of('{"entities": []}') == marks_of('{"start": [], "end": [], "label": []}') == Spans()
    )
    assert marks_of("[(0, 7, 'PER')]") == Spans([Span(0, 7, "PER")])


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "no tags or spans"),
        (" ", "no tags or spans"),
        ('{"start": null, "end": null}', "no tags or spans"),
        ("B-PER", "neither a list of tags nor one of spans"),
        ("B-PER O", "neither"),
        ("[B-PER, O]", "neither"),
        ("['B-PER' 'O']", "neither"),
        ("['B-PER'\n 'O']", "neither"),
        ("[" * 10_000 + "]" * 10_000, "neither"),
        ("[" + "9" * 5_000 + "]", "neither"),
        ("[__import__('os').getcwd()]", "neither"),
        ('{"text": "a"}', "neither"),
        ('["O", null]', "empty tag"),
        ('["O", ""]', "empty tag"),
        ('["O", true]', "tag that is neither a name nor a whole number"),
        ('["O", 1.5]', "tag that is neither"),
        ('["O", NaN]', "tag that is neither"),
        ('["O", "\\ud800"]', "tag of broken encoding"),
        ('["O", [0, 1, "PER"]]', "span that is not of a start, an end and a label"),
        ("[[0, 7]]", "span that is not of"),
        ('[{"start": 0, "label": "PER"}]', "span without an end"),
        ('[{"start": 0, "end": 7}]', "span without a label"),
        ('[{"start": "0", "end": 7, "label": "PER"}]', "no whole number"),
        ('[{"start": true, "end": 7, "label": "PER"}]', "no whole number"),
        ('[{"start": 0, "end": 7, "labels": ["PER", "ORG"]}]', "span with 2 labels"),
        ('[{"start": 0, "end": 7, "label": " "}]', "empty label"),
        ('{"start": [0], "end": [7, 9], "label": ["PER"]}', "lists of 1, 2, 1 starts, ends and labels"),
    ],
)
def test_a_cell_that_cannot_be_read_says_why(cell: str | None, reason: str) -> None:
    found = marks_of(cell)
    assert isinstance(found, Reason)
    assert reason in found


def test_quotation_marks_in_names_do_not_part_them() -> None:
    names = ["''", '"x" "y"', "O'", "' '"]
    assert marks_of(repr(names)) == marks_of(json.dumps(names)) == Tags(names)


# Schemes


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB2", ["B-A", "I-A", "B-A", "O", "B-B"]),
        ("IOB2", ["B_A", "I_A", "B_A", "O", "B_B"]),
        ("IOB1", ["I-A", "I-A", "B-A", "O", "I-B"]),
        ("IOBES", ["B-A", "E-A", "S-A", "O", "S-B"]),
        ("BILOU", ["B-A", "L-A", "U-A", "O", "U-B"]),
        ("BMES", ["B-A", "E-A", "S-A", "O", "S-B", "O", "B-A", "M-A", "E-A"]),
    ],
)
def test_every_scheme_spells_the_same(scheme: str, tags: list[str]) -> None:
    assert scheme_of([tags]) == scheme
    found, repaired = entities_of(tags, scheme_of([tags]))
    assert found[:3] == [(0, 2, "A"), (2, 3, "A"), (4, 5, "B")]
    assert repaired == 0


@pytest.mark.parametrize(
    ("scheme", "tags", "expected", "repaired"),
    [
        ("IOB2", "O I-A I-A O", [(1, 3, "A")], 1),
        ("IOB2", "B-A I-B I-B", [(0, 1, "A"), (1, 3, "B")], 1),
        ("IOB1", "O I-A I-B", [(1, 2, "A"), (2, 3, "B")], 0),
        ("IOB2", "B-A E-A S-B", [(0, 2, "A"), (2, 3, "B")], 0),  # a row in another scheme
        ("IOBES", "B-A I-A O", [(0, 2, "A")], 1),
        ("IOBES", "I-A", [(0, 1, "A")], 1),
        ("IOBES", "O E-A", [(1, 2, "A")], 1),
        ("IOBES", "S-A I-A E-A", [(0, 1, "A"), (1, 3, "A")], 1),
        ("IOBES", "B-A S-A", [(0, 1, "A"), (1, 2, "A")], 1),
        ("BILOU", "B-A U-A L-A", [(0, 1, "A"), (1, 2, "A"), (2, 3, "A")], 2),
        ("BMES", "B-A M-A E-B", [(0, 2, "A"), (2, 3, "B")], 2),
        ("IO", "O A A B O A", [(1, 3, "A"), (3, 4, "B"), (5, 6, "A")], 0),
    ],
)
def test_tags_that_do_not_fit_cost_no_word(scheme: Any, tags: str, expected: list[Any], repaired: int) -> None:
    assert entities_of(tags.split(), scheme) == (expected, repaired)


TYPED = st.lists(st.sampled_from(["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in "AB")]), max_size=12)


@given(TYPED)
def test_entities_are_those_of_seqeval_where_nothing_is_repaired(tags: list[str]) -> None:
    tags = [tag for tag in tags if tag[0] in "BIO"]
    found, repaired = entities_of(tags, "IOB2")
    peer = [(one.start, one.end, one.tag) for one in Peer([tags], IOB2).entities[0]]
    assert (found == peer) if not repaired else set(peer) <= set(found)
    assert entities_of(tags, "IOB1")[0] == found


@given(TYPED)
def test_closing_schemes_agree_with_seqeval_where_nothing_is_repaired(tags: list[str]) -> None:
    found, repaired = entities_of(tags, "IOBES")
    other = [tag.replace("E-", "L-").replace("S-", "U-") for tag in tags]
    assert entities_of(other, "BILOU") == (found, repaired)
    if not repaired:
        for scheme, row in ((IOBES, tags), (BILOU, other)):
            assert found == [(one.start, one.end, one.tag) for one in Peer([row], scheme).entities[0]]


@given(TYPED)
def test_each_word_with_a_tag_is_in_one_entity(tags: list[str]) -> None:
    found, _ = entities_of(tags, "IOBES")
    inside = [place for first, last, _ in found for place in range(first, last)]
    assert inside == [place for place, tag in enumerate(tags) if tag != "O"]


# Spans


def test_spans_become_whole_words_and_those_without_a_use_are_set_aside() -> None:
    spans = [
        Span(0, 7, "PER"),
        Span(0, 7, "PER"),  # again
        Span(0, 4, "PER"),  # in it
        Span(17, 23, "LOC"),  # cuts both words
        Span(7, 12, "X"),  # with the blank before
        Span(-1, 4, "X"),
        Span(24, 99, "X"),
        Span(9, 9, "X"),
        Span(12, 9, "X"),
        Span(7, 8, "X"),
    ]
    found = fitted(spans, TEXT, words_of(TEXT))
    assert found.entities == [(0, 2, "PER"), (2, 3, "X"), (4, 6, "LOC")]
    assert found.moved == 2
    reasons = {"stands there twice": 1, "overlaps another": 1, "outside the text": 2, "empty": 2, "only blanks": 1}
    assert Counter(found.set_aside) == reasons


def test_of_spans_that_overlap_the_longer_then_the_earlier_stays() -> None:
    places = words_of(TEXT)
    long = fitted([Span(5, 12, "A"), Span(0, 12, "B")], TEXT, places)
    assert (long.entities, long.set_aside) == ([(0, 3, "B")], ["overlaps another"])
    assert fitted([Span(5, 12, "A"), Span(0, 7, "B")], TEXT, places).entities == [(0, 2, "B")]
    assert fitted([Span(0, 7, "A"), Span(0, 7, "B")], TEXT, places).entities == [(0, 2, "A")]


@given(st.lists(st.tuples(st.integers(-3, 30), st.integers(-3, 30)), max_size=8))
def test_no_two_entities_share_a_word_and_each_span_is_one_or_has_a_reason(ends: list[tuple[int, int]]) -> None:
    found = fitted([Span(*pair, "A") for pair in ends], TEXT, words_of(TEXT))
    assert len(found.entities) + len(found.set_aside) == len(ends)
    pairs = zip(found.entities, found.entities[1:], strict=False)
    assert all(one.last <= other.first for one, other in pairs)


# Rows


def test_spans_in_a_table_become_words_with_classes(tmp_path: Path) -> None:
    cells: list[Any] = [[YORK, ANNA]] * 20
    cells[3] = [{**ANNA, "end": 6}, YORK, {**YORK, "end": 999}]
    cells[4] = []
    cells[5] = None
    cells[6] = "PER"
    cells[7] = [[0, 7, "PER"], [16, 24, "LOC"]]
    found = read(table(tmp_path, cells))
    assert (found.problem, found.labels, found.coding) == ("entities", ("LOC", "PER"), {"scheme": None})
    assert Counter(row.reason for row in found.rejected) == {
        "no tags or spans": 1, "neither a list of tags nor one of spans": 1,
    }  # fmt: skip
    by_line = targets(found)
    assert by_line[1] == {
        "first": [0, 4],
        "last": [2, 6],
        "classes": [1, 0],
        "repaired": 0,
        "set_aside": [],
        "unknown": [],
    }
    assert by_line[4]["repaired"] == 1
    assert by_line[4]["set_aside"] == ["outside the text"]
    assert by_line[5]["first"] == []
    assert by_line[8] == by_line[1]
    (guess,) = (one for one in found.columns.guesses if "task.problem" in one)
    assert guess == (
        "The target is read as entities, from spans of characters (task.problem=entities; task.problem sets another "
        "reading)."
    )


def test_spans_beside_tokens_that_are_mappings_are_read_as_prodigy_writes_them(tmp_path: Path) -> None:
    places = [(0, 4), (5, 7), (8, 12), (13, 15), (16, 19), (20, 24), (24, 25)]
    rows = []
    for number in range(20):
        end = 26 + len(str(number * 7919))
        text = f"{TEXT} {number * 7919}"
        tokens = [
            {"text": text[start:stop], "start": start, "end": stop, "id": at}
            for at, (start, stop) in enumerate([*places, (26, end)])
        ]
        spans = [{**ANNA, "token_start": 0, "token_end": 1}, {**YORK, "token_start": 4, "token_end": 5}]
        rows.append({"text": text, "_input_hash": number, "tokens": tokens, "spans": spans, "answer": "accept"})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read(tmp_path / "rows.jsonl")
    assert not found.rejected
    assert (found.columns.inputs, found.columns.targets) == (("tokens",), ("spans",))
    cell = targets(found)[1]
    assert (cell["first"], cell["last"], cell["repaired"]) == ([0, 4], [2, 6], 0)
    assert found.splits["train"].column("input")[0].as_py().startswith(TEXT)


def test_the_audit_tells_what_each_split_has(tmp_path: Path) -> None:
    train = table(tmp_path / "train", [[ANNA, YORK]] * 10 + [[{**ANNA, "end": 6}, {**YORK, "end": 99}]])
    texts = ["Anna Li met Bo", "nothing", *(f"no {one}" for one in "abcdefghij")]
    cells: list[Any] = [[ANNA, {"start": 12, "end": 14, "label": "PER"}], *[[]] * 11]
    test = table(tmp_path / "test", cells, texts)
    found = read(train, test=str(test), validation=str(test))
    assert found.audit["entities"]["train"] == {
        "rows": 11, "words": 99, "objects": 21, "without": 0, "repaired": 1, "set_aside": {"outside the text": 1},
        "classes": {"LOC": 10, "PER": 11}, "unknown_types": {},
    }  # fmt: skip
    assert found.audit["classes"]["train"] == {"LOC": 10, "PER": 11}
    tested = found.audit["entities"]["test"]
    assert (tested["forms"], tested["forms_in_train"], tested["unseen"]) == (2, 1, 0.5)
    warnings = found.audit["warnings"]
    assert (
        "train: 1 tag or span did not fit and was repaired: tags to those of their scheme, spans to whole words."
        in warnings
    )
    assert "train: 1 span was set aside (outside the text: 1)." in warnings
    assert "test: 11 of 12 texts have no entity." in warnings


def test_spans_that_count_words_are_asked_about(tmp_path: Path) -> None:
    found = read(table(tmp_path, [[{"start": 1, "end": 2, "label": "PER"}]] * 20))
    assert any("Do spans count characters of the text, from 0" in one for one in found.audit["warnings"])


@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_tags_in_every_kind_of_table_become_words_with_classes(tmp_path: Path, form: str) -> None:
    where = tagged(tmp_path, [TAGS] * 20)
    rows = [json.loads(line) for line in where.read_text().splitlines()]
    if form == "parquet":
        where = tmp_path / "rows.parquet"
        pa.parquet.write_table(pa.Table.from_pylist(rows), where)
    elif form == "csv":  # as pandas writes them
        lines = ['"' + repr(row["tokens"]) + '","' + repr(row["tags"]) + '"' for row in rows]
        where = conll(tmp_path / "rows.csv", "\n".join(["tokens,tags", *lines]))
    found = read(where)
    assert not found.rejected
    assert (found.problem, found.labels, found.coding) == ("entities", ("LOC", "PER"), {"scheme": "IOB2"})
    expected = {"first": [0, 4], "last": [2, 6], "classes": [1, 0], "repaired": 0, "set_aside": [], "unknown": []}
    assert list(targets(found).values()) == [expected] * 20


def test_letters_alone_are_entities_of_one_type(tmp_path: Path) -> None:
    found = read(tagged(tmp_path, [["B", "I", "O", "B"]] * 20))
    assert (found.problem, found.labels) == ("entities", ("entity",))


def test_tags_without_letters_are_tags_of_words(tmp_path: Path) -> None:
    found = read(tagged(tmp_path, [["NNP", "NNP", "VBD", "I-N"]] * 20))
    assert (found.problem, found.labels, found.coding) == ("tags", ("I-N", "NNP", "VBD"), {"scheme": None})
    expected = {
        "first": [0, 1, 2, 3],
        "last": [1, 2, 3, 4],
        "classes": [1, 1, 2, 0],
        "repaired": 0,
        "set_aside": [],
        "unknown": [],
    }
    assert targets(found)[1] == expected
    assert "forms" not in found.audit["entities"]["test"]
    assert any("task.problem=tags" in guess for guess in found.columns.guesses)


def test_the_problem_that_is_asked_for_wins(tmp_path: Path) -> None:
    as_tags = read(tagged(tmp_path / "tags", [TAGS] * 20), "tags")
    assert as_tags.labels == ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
    where = tagged(tmp_path / "plain", [["PER", "PER", "O", "O", "LOC"]] * 20)
    assert any("with entities, words in a row with one tag are one" in one for one in read(where).columns.guesses)
    as_entities = read(where, "entities")
    assert as_entities.labels == ("LOC", "PER")
    assert targets(as_entities)[1]["last"] == [2, 5]
    with pytest.raises(DataError, match=r"task\.problem is tags, but .* holds spans"):
        read(table(tmp_path / "spans", [[ANNA]] * 20), "tags")


def test_numbers_are_tags_that_a_list_names(tmp_path: Path) -> None:
    numbers = [1, 2, 0, 0, 3, 4, 0]
    where = tagged(tmp_path, [numbers] * 20)
    plain = read(where)
    assert (plain.problem, plain.labels) == ("tags", ("0", "1", "2", "3", "4"))
    assert any(
        "are numbers, and stand for themselves; task.classes names them" in one for one in plain.audit["warnings"]
    )
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    named = read(where, classes=names)
    assert (named.problem, named.labels) == ("entities", ("PER", "LOC"))
    assert targets(named)[1]["last"] == [2, 6]
    assert read(where, "tags", names).labels == tuple(names)
    with pytest.raises(DataError, match=r"Set task\.classes to the names of the tags by number"):
        read(where, "entities")
    few = tagged(tmp_path / "few", [numbers] * 19 + [[9, 0], [-100, 0]])
    assert Counter(row.reason for row in read(few, classes=names).rejected) == {
        "tag 9, which task.classes does not name": 1, "tag -100, which task.classes does not name": 1,
    }  # fmt: skip
    with pytest.raises(SettingsError, match="names 'a' twice"):
        Entities(None, ["a", "b", "a"])


def test_numbers_in_a_column_of_named_entities_are_types_and_0_is_none(tmp_path: Path) -> None:
    numbers = [1, 1, 0, 0, 2, 2, 0]
    texts = [[f"{token}{row}" for token in TOKENS] for row in range(22)]
    cells = [numbers] * 20 + [[1, *[-100] * 6], [0] * 7]
    found = read(table(tmp_path, cells, texts, text="tokens", target="ner_tags"))
    assert (found.problem, found.labels, found.coding) == ("entities", ("1", "2"), {"scheme": "IO", "outside": "0"})
    assert targets(found)[1]["last"] == [2, 6]
    assert [row.reason for row in found.rejected] == ["tag '-100', where a number from 0 is expected"]
    assert any("as they stand in the column 'ner_tags': words in a row" in one for one in found.columns.guesses)
    assert any("0 is read as no entity" in one for one in found.audit["warnings"])
    settled = Settled("entities", found.labels, found.coding)
    wanted = DataSettings(train="none")
    where = str(tmp_path / "rows.jsonl")
    again = load_labelled(where, wanted, found.columns, settled, tmp_path / "again", WORDS, Entities(None))
    assert again.rows.column("target")[0].as_py()["classes"] == [0, 1]
    assert read(Path(where), "tags").problem == "tags"
    none_is_zero = table(tmp_path / "other", [[1, 1, 2, 1, 2, 2, 1]] * 20, texts[:20], text="tokens", target="ner_tags")
    assert read(none_is_zero).problem == "tags"


def test_tags_without_letters_in_a_column_of_named_entities_are_types(tmp_path: Path) -> None:
    texts = [[f"{token}{row}" for token in TOKENS] for row in range(20)]
    cells = [["PER", "PER", "O", "O", "LOC", "LOC", "O"]] * 20
    found = read(table(tmp_path, cells, texts, text="tokens", target="NER"))
    assert (found.problem, found.labels, found.coding) == ("entities", ("LOC", "PER"), {"scheme": "IO"})
    assert targets(found)[1]["last"] == [2, 6]
    plain = [["PER", "PER", "X", "X", "LOC", "LOC", "X"]] * 20  # nothing says which of them is none
    assert read(table(tmp_path / "plain", plain, texts, text="tokens", target="ner")).problem == "tags"


def test_labels_of_spans_may_be_numbers_that_a_list_names(tmp_path: Path) -> None:
    cells = [[{**ANNA, "label": 0}, {**YORK, "label": 1}]] * 20 + [[{**ANNA, "label": 7}]]
    where = table(tmp_path, cells)
    plain = read(where)
    assert plain.labels == ("0", "1", "7")
    assert any("The labels of" in one and "task.classes names them" in one for one in plain.audit["warnings"])
    named = read(where, classes=["PER", "LOC"])
    assert named.labels == ("PER", "LOC")
    assert targets(named)[1]["classes"] == [0, 1]
    assert [row.reason for row in named.rejected] == ["label 7, which task.classes does not name"]


@pytest.mark.parametrize("name", ["tags", "entities"])
def test_a_column_that_is_guessed_is_read_as_one_that_is_named(tmp_path: Path, name: str) -> None:
    texts = [[f"{token}{row}" for token in TOKENS] for row in range(24)]
    cells = [TAGS] * 20 + [["B-PER", "O"], [], None, ["B-PER", *TAGS[1:-1], "_"]]
    where = table(tmp_path, cells, texts, text="tokens", target=name)
    guessed, named = read(where), read(where, target=name, input="tokens")
    assert guessed.rejected == named.rejected
    assert len(guessed.rejected) == 4
    assert guessed.audit["entities"] == named.audit["entities"]
    assert guessed.audit["columns"]["targets"] == named.audit["columns"]["targets"] == [name]
    lines = [json.dumps({"tokens": text, "other": cell}) for text, cell in zip(texts, cells, strict=True)]
    (tmp_path / "other.jsonl").write_text("\n".join(lines))
    wanted = DataSettings(train=str(where), validation=str(tmp_path / "other.jsonl"), max_rejected=0.5)
    with pytest.raises(DataError, match=f"no column '{name}'"):
        load(wanted, tmp_path / "missing", 0, Entities(None), WORDS)
    with pytest.raises(DataError, match="names 2 columns, but this task reads one"):
        read(where, target=[name, "tokens"])


def test_texts_without_entities_in_a_file_of_spans_stay_where_tags_were_trained_on(tmp_path: Path) -> None:
    found = read(tagged(tmp_path / "train", [TAGS] * 20))
    settled = Settled("entities", found.labels, found.coding)
    where = str(table(tmp_path / "other", [[ANNA, YORK], [], [ANNA]]))
    with pytest.warns(GuessWarning, match="'text', 'entities' is read"):
        again = load_labelled(
            where, DataSettings(train="none"), found.columns, settled, tmp_path / "again", WORDS, Entities(None)
        )
    assert [cell["classes"] for cell in again.rows.column("target").to_pylist()] == [[1, 0], [], [1]]


def test_rows_whose_tags_do_not_go_with_their_words_are_set_aside(tmp_path: Path) -> None:
    cells: list[Any] = [TAGS] * 20
    where = tagged(tmp_path, cells)
    lines = [json.loads(line) for line in where.read_text().splitlines()]
    lines[2]["tags"] = TAGS[:-1]
    lines[3]["tags"] = []
    lines[4]["tokens"] = "Anna Li's flight to New York."
    lines[5]["tags"] = ["PER", *TAGS[1:]]
    lines[6]["tokens"][2] = " "
    lines[7]["tags"] = [ANNA]
    where.write_text("\n".join(map(json.dumps, lines)))
    found = read(where, "entities")
    assert [(row.line, row.reason) for row in sorted(found.rejected, key=lambda row: row.line)] == [
        (3, "more or fewer tags than words"),
        (4, "more or fewer tags than words"),
        (5, "more or fewer tags than words; tags need the text as a list of tokens"),
        (6, "tag 'PER', which has no letter such as B- or I- before it"),
        (7, "empty token in 'tokens'"),
    ]
    assert targets(found)[8]["classes"] == [1]
    assert read(where).problem == "entities"  # as most texts are of this kind


def test_types_that_no_training_text_has_stay_in_other_texts_and_are_told(tmp_path: Path) -> None:
    train = tagged(tmp_path / "train", [TAGS] * 10)
    other = ["B-ORG", "I-ORG", "O", "B-PER", "B-DATE"]
    test = tagged(tmp_path / "test", [TAGS, ["S-PER", "O"], other, ["B-ORG", "O"]])
    found = read(train, test=str(test), validation=str(test))
    assert not found.rejected
    cells = found.splits["test"].column("target").to_pylist()
    assert cells[1]["classes"] == [1]
    assert (cells[2]["first"], cells[2]["classes"]) == ([3], [1])
    assert cells[2]["unknown"] == [
        {"first": 0, "last": 2, "label": "ORG"}, {"first": 4, "last": 5, "label": "DATE"},
    ]  # fmt: skip
    audited = found.audit["entities"]
    assert audited["train"]["unknown_types"] == {}
    assert audited["test"]["unknown_types"] == {"ORG": 2, "DATE": 1}
    assert (audited["test"]["objects"], audited["test"]["without"]) == (7, 0)
    told = "3 entities are of types that no training text has (ORG: 2, DATE: 1), and count as missed."
    assert f"test: {told}" in found.audit["warnings"]
    settled = Settled("entities", found.labels, found.coding)
    wanted = DataSettings(train=str(test))
    again = load_labelled(str(test), wanted, found.columns, settled, tmp_path / "again", WORDS, Entities(None))
    assert again.rows.column("target").to_pylist() == cells


def test_tags_that_no_training_text_has_are_words_that_stay(tmp_path: Path) -> None:
    train = tagged(tmp_path / "train", [["A", "B", "A"]] * 10)
    test = tagged(tmp_path / "test", [["A", "C", "B"]])
    found = read(train, test=str(test), validation=str(train))
    (cell,) = found.splits["test"].column("target").to_pylist()
    assert (cell["first"], cell["classes"]) == ([0, 2], [0, 1])
    assert cell["unknown"] == [{"first": 1, "last": 2, "label": "C"}]
    told = "test: 1 word has a tag that no training text has (C: 1), and counts as wrong."
    assert told in found.audit["warnings"]
    strange = tagged(tmp_path / "strange", [["X", "Y"]] * 3)
    with pytest.raises(DataError, match="No word of the validation split has a tag that a training text has"):
        read(train, test=str(test), validation=str(strange))


def test_types_that_the_list_of_classes_leaves_out_set_their_texts_aside(tmp_path: Path) -> None:
    few = read(tagged(tmp_path, [TAGS] * 10 + [["B-PER", "O"]] * 10), classes=["PER"])
    assert few.labels == ("PER",)
    assert {row.reason for row in few.rejected} == {"label 'LOC', which task.classes does not name"}


def test_what_nothing_can_be_learned_from_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"commonest reason is: neither a list of tags nor one of spans \(20 of 20\)"):
        read(table(tmp_path / "words", ["PER"] * 20))
    with pytest.raises(DataError, match="hold no entity"):
        read(table(tmp_path / "empty", [[]] * 20))
    with pytest.raises(DataError, match="have only the tag 'O'"):
        read(tagged(tmp_path / "outside", [["O", "O"]] * 20))
    with pytest.raises(DataError, match="hold no entity"):
        read(tagged(tmp_path / "asked", [["O", "O"]] * 20), "entities")
    test = table(tmp_path / "test", [[ANNA]] * 3)
    with pytest.raises(DataError, match="train split is left without an entity"):
        read(table(tmp_path / "lost", [[{**ANNA, "end": 999}]] * 20), test=str(test))


def test_one_stray_tag_does_not_make_other_targets_of_entities(tmp_path: Path) -> None:
    found = read(tagged(tmp_path, [TAGS] * 30 + [[*TAGS[:-1], "_"]]))
    assert found.problem == "entities"
    assert found.labels == ("LOC", "PER")
    assert [row.reason for row in found.rejected] == ["tag '_', which has no letter such as B- or I- before it"]


@pytest.mark.parametrize("kind", ["Sequence", "List"])
def test_parquet_that_datasets_wrote_names_its_tags(tmp_path: Path, kind: str) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    rows = pa.table(
        {
            "tokens": [[f"{token}{number}" for token in TOKENS] for number in range(30)],
            "ner_tags": [[names.index(tag) for tag in TAGS]] * 30,
        }
    )
    features = {"ner_tags": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": kind}}
    told = json.dumps({"info": {"features": features}}).encode()
    pyarrow.parquet.write_table(rows.replace_schema_metadata({"huggingface": told}), tmp_path / "rows.parquet")
    found = read(tmp_path / "rows.parquet")
    assert (found.problem, found.labels) == ("entities", ("LOC", "PER"))
