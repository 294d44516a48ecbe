"""CoNLL's form in files whose names do not say so, and what only looks like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.cells.words import WORDS
from tunesmith.data.load import Dataset, load, load_labelled
from tunesmith.data.readers import TAGGED, open_source
from tunesmith.data.targets import Settled
from tunesmith.data.targets.entities import Entities
from tunesmith.errors import GuessWarning
from tunesmith.settings import DataSettings

CONLL_2003 = "-DOCSTART- -X- -X- O\n\nEU{0} NNP B-NP B-ORG\nrejects VBZ B-VP O\n. . O O\n\nPeter{0} NNP B-NP B-PER\n\n"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def read(where: Path, **settings: Any) -> Dataset:
    wanted = DataSettings(train=str(where), near_duplicate=1.0, **settings)
    return load(wanted, where.parent / "cache", 0, Entities(None), WORDS)


def columns(where: Path) -> list[str]:
    return open_source(str(where), "utf-8", TAGGED)["train"].columns


def test_the_folder_of_conll_2003_is_one_source_and_told(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("valid", 3), ("test", 2)):
        write(tmp_path / "rows" / f"{split}.txt", "".join(CONLL_2003.format(split + str(at)) for at in range(count)))
    write(tmp_path / "rows" / "metadata", "Reuters")
    found = read(tmp_path / "rows")
    assert found.audit["rows"] == {"train": 24, "validation": 6, "test": 4}
    assert (found.problem, found.labels) == ("entities", ("ORG", "PER"))
    told = "train.txt is read as CoNLL's form: a word a line, its tag in the last of 4 columns"
    assert any(told in guess for guess in found.columns.guesses)
    settled = Settled("entities", found.labels, found.coding)
    test = str(tmp_path / "rows" / "test.txt")
    with pytest.warns(GuessWarning, match="is read as CoNLL's form"):
        again = load_labelled(
            test, DataSettings(train="none"), found.columns, settled, tmp_path / "again", WORDS, Entities(None)
        )
    assert again.rows.num_rows == 4


def test_a_table_without_a_header_is_words_and_tags(tmp_path: Path) -> None:
    text = "".join(f"Anna{at}\tB-PER\nran\tO\n\n" for at in range(20))
    found = read(write(tmp_path / "rows.tsv", text))
    assert (found.audit["rows"]["train"], found.labels) == (16, ("PER",))
    assert any(
        "rows.tsv is read as CoNLL's form: a word a line, its tag in the last of 2 columns" in one
        for one in found.columns.guesses
    )
    tags = "".join(f"Anna{at}\tNNP\nran\tVBD\n\n" for at in range(20))
    assert read(write(tmp_path / "tags.tsv", tags)).labels == ("NNP", "VBD")


@pytest.mark.parametrize(
    "text",
    [
        "Anna\tB-PER\nran\tO\n",  # one text, which nothing parts
        "New York\tB-LOC\nis\tO\n10 000\tO\n\nYork\tB-LOC\n",
        "\ufeffAnna\tNNP\r\nran\tVBD\r\n\r\nBo\tNNP\r\n",
        "# newdoc\nAnna x B-PER\n\nBo y B-PER\n",
        "Title\tO\nof\tO\n\nit\tO\n",
    ],
)
@pytest.mark.parametrize("suffix", ["txt", "tsv"])
def test_words_and_tags_are_known_by_their_form(tmp_path: Path, text: str, suffix: str) -> None:
    assert columns(write(tmp_path / f"rows.{suffix}", text))[0] == "tokens"
    assert open_source(str(tmp_path / f"rows.{suffix}"), "utf-8")["train"].columns[0] != "tokens"  # of other tasks


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("rows.tsv", "tokens\ttags\n['a', 'b']\t['O', 'B-X']\n['c']\t['O']\n", ["tokens", "tags"]),
        ("rows.tsv", "word\ttag\nAnna\tB-PER\nran\tO\n", ["word", "tag"]),
        ("rows.tsv", "Satz\tKlasse\nein Satz\tgut\nnoch einer\tschlecht\n", ["Satz", "Klasse"]),
        ("rows.tsv", "Satz\tKlasse\n\nein Satz\tgut\n\nnoch einer\tschlecht\n", ["Satz", "Klasse"]),
        ("rows.tsv", "text\tlabel\n\n", ["text", "label"]),
        ("rows.txt", "Good morning\nto all of you\n\nand to me\n", ["text"]),
        ("rows.txt", "word\nword\n\nword\n", ["text"]),
        ("rows.txt", "two words\nat most\n", ["text"]),
        ("rows.txt", "\n\n", ["text"]),
    ],
)
def test_tables_and_texts_stay_what_they_are(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    assert columns(write(tmp_path / name, text)) == expected
