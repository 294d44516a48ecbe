"""Files of CoNLL-U: words of ten columns, of which one is the target; ranges and empty nodes are no words."""

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

SENTENCE = """# sent_id = a-1
# text = They don't know
1\tThey\tthey\tPRON\tPRP\tCase=Nom\t4\tnsubj\t4:nsubj\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tknow\tknow\tVERB\tVB\t_\t0\troot\t_\t_
4.1\twho\twho\tPRON\tWP\t_\t_\t_\t_\t_

"""


def words(tags: list[str], xpos: str = "_", stem: object = "w") -> str:
    return "".join(f"{at}\t{stem}{at}\tw\t{tag}\t{xpos}\t_\t0\troot\t_\t_\n" for at, tag in enumerate(tags, 1)) + "\n"


def write(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def records(where: Path) -> tuple[list[str], list[Any]]:
    source = open_source(str(where), "utf-8")["train"]
    return source.columns, list(source.records)


def read(where: Path, **settings: Any) -> Dataset:
    wanted = DataSettings(train=str(where), near_duplicate=1.0, max_rejected=0.5, **settings)
    return load(wanted, where.parent / "cache", 0, Entities(None), WORDS)


@pytest.mark.parametrize("change", [lambda text: text, lambda text: "\ufeff" + text.replace("\n", "\r\n").rstrip()])
def test_a_sentence_is_a_row_of_its_words_without_ranges_and_empty_nodes(tmp_path: Path, change: Any) -> None:
    columns, found = records(write(tmp_path / "rows.conllu", change(SENTENCE + words(["NOUN", "_"]))))
    assert columns == ["id", "tokens", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"]
    first, second = (dict(zip(columns, values, strict=True)) for _, values in found)
    assert [line for line, _ in found] == [3, 10]
    assert (first["id"], first["tokens"]) == ("a-1", ["They", "do", "n't", "know"])
    assert first["upos"] == ["PRON", "AUX", "PART", "VERB"]
    assert first["feats"] == ["Case=Nom", "_", "_", "_"]
    assert first["misc"] is None
    assert (second["id"], second["upos"], second["xpos"]) == (None, ["NOUN", "_"], None)


def test_the_universal_tags_are_the_target_and_another_column_can_be(tmp_path: Path) -> None:
    text = "".join(
        f"# sent_id = {at}\n{words(['NOUN', 'VERB'] if at % 2 else ['VERB'], f'X{at % 3}', at)}" for at in range(30)
    )
    where = write(tmp_path / "rows.conllu", text)
    found = read(where)
    assert (found.problem, found.labels, found.columns.id) == ("tags", ("NOUN", "VERB"), "id")
    assert "The target is the column 'upos', by name (data.target sets another)." in found.columns.guesses
    assert set(found.splits["test"].column("id").to_pylist()) <= set(map(str, range(30)))
    assert read(where, target="xpos").labels == ("X0", "X1", "X2")


def test_a_sentence_with_a_line_that_cannot_be_read_is_set_aside_with_it(tmp_path: Path) -> None:
    bad = ["1\ta\tO", "\t".join(["one", *"abcdefghi"]), "1\t\udcff" + "\t_" * 8]
    where = tmp_path / "rows.conllu"
    where.write_bytes("".join(f"{line}\n{words(['X'])}" for line in bad).encode("utf-8", "surrogateescape") + b"\n\n")
    _, found = records(where)
    assert [(one.line, one.reason) for one in found if isinstance(one, Rejected)] == [
        (1, "wrong column count: 3 instead of 10"),
        (4, "line that does not begin with the number of a word"),
        (7, "broken encoding: not utf-8"),
    ]


def test_sentences_without_tags_are_read_for_predictions_and_set_aside_in_training(tmp_path: Path) -> None:
    where = write(
        tmp_path / "rows.conllu",
        "".join(words(["NOUN" if at else "_", "VERB" if at else "_"], stem=at) for at in range(21)),
    )
    assert [row.reason for row in read(where).rejected] == ["no tags or spans"]
    found = read_inputs(str(where), DataSettings(train="none"), ("tokens",), tmp_path / "inputs", WORDS)
    assert found.rows.num_rows == 21


@pytest.mark.parametrize("content", ["\n\n", "# newdoc\n\n"])
def test_a_file_of_nothing_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="holds no sentence"):
        read(write(tmp_path / "rows.conllu", content))
