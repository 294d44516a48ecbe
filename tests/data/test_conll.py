"""Files of CoNLL's form: a line a token, an empty line after each sentence, and what else stands in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.cells.words import WORDS
from tunesmith.data.load import Dataset, load, read_inputs
from tunesmith.data.readers import open_source
from tunesmith.data.rejected import Rejected
from tunesmith.data.targets.entities import Entities
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings

SENTENCES = "EU\tB-ORG\nrejects\tO\n\nGerman\tB-MISC\ncall\tO\n.\tO\n"


def read(where: Path, **settings: Any) -> Dataset:
    wanted = DataSettings(train=str(where), near_duplicate=1.0, **settings)
    return load(wanted, where.parent / "cache", 0, Entities(None), WORDS)


def conll(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def records(where: Path) -> tuple[list[str], list[Any]]:
    source = open_source(str(where), "utf-8")["train"]
    return source.columns, list(source.records)


@pytest.mark.parametrize("suffix", ["conll", "bio", "iob", "iob2", "iobes", "BIOES"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\t", "  "),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n\n", "\n \t \n\n\n"),
        lambda text: "\ufeff" + text.rstrip(),
    ],
)
def test_a_sentence_is_a_row_however_columns_and_sentences_are_parted(tmp_path: Path, suffix: str, change: Any) -> None:
    text = change(SENTENCES)
    columns, found = records(conll(tmp_path / f"rows.{suffix}", text))
    assert columns == ["tokens", "tags"]
    assert [values for _, values in found] == [
        [["EU", "rejects"], ["B-ORG", "O"]],
        [["German", "call", "."], ["B-MISC", "O", "O"]],
    ]
    assert [line for line, _ in found] == [1, 6 if "\n\n\n" in text else 4]


def test_documents_and_comments_are_skipped_and_the_token_number_sign_is_not(tmp_path: Path) -> None:
    text = (
        "-DOCSTART- -X- -X- O\n\n# sent_id = 1\n# text = EU\nEU NNP B-NP B-ORG\n# # I-NP O\n\n"
        "-DOCSTART- -X- -X- O\n# # B-NP O\n1 CD I-NP O\n\n# words of one\n#one NN B-NP O\n"
    )
    columns, found = records(conll(tmp_path / "rows.conll", text))
    assert columns == ["tokens", "column_2", "column_3", "tags"]
    assert found == [
        (5, [["EU", "#"], ["NNP", "#"], ["B-NP", "I-NP"], ["B-ORG", "O"]]),
        (9, [["#", "1"], ["#", "CD"], ["B-NP", "I-NP"], ["O", "O"]]),
        (13, [["#one"], ["NN"], ["B-NP"], ["O"]]),
    ]
    tabs = "# newdoc\n#id=3\n#\tB-X\n# 1\tO\n\n#hash tag\tI-Y\nNew York\tO\n"
    _, found = records(conll(tmp_path / "tabs.conll", tabs))
    assert found == [(3, [["#", "# 1"], ["B-X", "O"]]), (6, [["#hash tag", "New York"], ["I-Y", "O"]])]


def test_a_sentence_with_a_line_that_cannot_be_read_is_set_aside_with_it(tmp_path: Path) -> None:
    where = tmp_path / "rows.conll"
    where.write_bytes(b"a\tO\nb\n c \nd\tO\n\ne\tO\n\nf\tO\n\xff\tO\n\ng\tO\tO\n\nh\tO")
    _, found = records(where)
    assert [(one.line, one.reason, one.text) for one in found if isinstance(one, Rejected)] == [
        (2, "wrong column count: 1 instead of 2", "b"),
        (9, "broken encoding: not utf-8", "\udcff\tO".encode("utf-8", "replace").decode()),
        (11, "wrong column count: 3 instead of 2", "g\tO\tO"),
    ]
    assert [one for one in found if not isinstance(one, Rejected)] == [(6, [["e"], ["O"]]), (13, [["h"], ["O"]])]


def test_tokens_without_tags_can_be_read_for_predictions(tmp_path: Path) -> None:
    where = conll(tmp_path / "rows.conll", "EU\nrejects\n\nGerman\n")
    found = read_inputs(str(where), DataSettings(train="none"), ("tokens",), tmp_path / "cache", WORDS)
    assert found.rows.column("input").to_pylist() == ["EU rejects", "German"]
    with pytest.raises(DataError, match="not clear which column"):
        read(where)


def test_another_column_can_be_the_target(tmp_path: Path) -> None:
    lines = [f"Anna{number} NNP B-PER\nran{number} VBD O\n" for number in range(20)]
    found = read(conll(tmp_path / "rows.conll", "\n".join(lines)), target="column_2")
    assert (found.problem, found.labels, found.columns.ignored) == ("tags", ("NNP", "VBD"), ("tags",))
    assert set(read(conll(tmp_path / "more.conll", "\n".join(lines))).labels) == {"PER"}


def test_a_folder_with_a_file_a_split_is_one_source(tmp_path: Path) -> None:
    for split, rows in (("train", 8), ("dev", 3), ("test", 2)):
        lines = [f"Anna{split}{number}\tB-PER\nran{number}\tO\n" for number in range(rows)]
        conll(tmp_path / "rows" / f"{split}.conll", "\n".join(lines))
    (tmp_path / "rows" / "SOURCE.md").write_text("where it comes from")
    found = read(tmp_path / "rows")
    assert found.audit["rows"] == {"train": 8, "validation": 3, "test": 2}


@pytest.mark.parametrize(
    ("content", "why"), [("", "is empty"), ("\n \n\n", "holds no sentence"), ("-DOCSTART- O\n\n", "holds no sentence")]
)
def test_a_file_of_nothing_is_refused(tmp_path: Path, content: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read(conll(tmp_path / "rows.conll", content))
