"""Which texts are alike: what the columns of a table say, what is guessed, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.data.cells.compared import COMPARED
from tunesmith.data.forms import form_of
from tunesmith.data.load import load
from tunesmith.data.targets.alike import Alike
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings


def table(folder: Path, header: str, rows: list[str]) -> DataSettings:
    path = folder / "rows.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return DataSettings(train=str(path))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("anchor,positive", "positive-pairs"), ("question,answer", "positive-pairs"),
        ("id,query,positive,negative", "triplets"),
        ("text,label", "labels"), ("phrase,label", "labels"), ("sentence1,sentence2,score", None),
        ("question1,question2,is_duplicate", None), ("Sentence1,Sentence2,Score", None),
        ("anchor,positive,negative,label", "triplets"),
    ],
)  # fmt: skip
def test_the_columns_say_what_is_compared(tmp_path: Path, header: str, problem: str | None) -> None:
    found = form_of(table(tmp_path, header, [",".join("a" * (header.count(",") + 1))]), None)
    assert found.problem == problem
    assert bool(found.guesses) == (problem is not None)


def test_a_column_of_scores_is_left_alone_where_pairs_belong_together(tmp_path: Path) -> None:
    settings = table(tmp_path, "sentence1,sentence2,score", ["a,b,1"])
    assert form_of(settings, "positive-pairs").problem == "positive-pairs"


@pytest.mark.parametrize(
    ("header", "wanted", "more", "message"),
    [
        ("text", None, {}, "nothing says which texts belong together"),
        ("anchor,positive", "triplets", {}, "task.problem is triplets, but of .* are read"),
        ("anchor,positive", "scored-pairs", {}, "not clear which column|no column of scores"),
        ("text,label", "positive-pairs", {}, "nothing says which texts belong together"),
        ("sentence1,sentence2,score", "labels", {}, "task.problem is labels, but of .* are read"),
        ("anchor,positive,x", "positive-pairs", {"target": "x"}, "have no target"),
        ("anchor,positive,negative,x", None, {"target": "x"}, "are triplets, which have no target"),
        ("a,b", None, {}, "not clear which columns .* are the text"),
        ("a,b,c,d", None, {"input": ["a", "b", "c", "d"]}, "data.input names 4 columns"),
    ],
)
def test_what_columns_do_not_say_is_refused(
    tmp_path: Path, header: str, wanted: str | None, more: dict[str, object], message: str
) -> None:
    settings = table(tmp_path, header, [",".join("a" * (header.count(",") + 1))]).model_copy(update=more)
    with pytest.raises(DataError, match=message):
        form_of(settings, wanted)


def pairs(folder: Path, scores: list[str], problem: str | None = None) -> object:
    rows = [f"word{number} one,word{number} two {number},{score}" for number, score in enumerate(scores)]
    settings = table(folder, "sentence1,sentence2,score", rows)
    settings = settings.model_copy(update={"max_rejected": 0.5})
    return load(settings, folder / "cache", 0, Alike(problem), COMPARED)


def test_zeros_and_ones_are_told_from_scores(tmp_path: Path) -> None:
    found = pairs(tmp_path, ["0", "1", "true", "False"] * 15)
    assert found.problem == "binary-pairs"  # type: ignore[attr-defined]
    assert set(found.splits["train"].column("target").to_pylist()) == {0.0, 1.0}  # type: ignore[attr-defined]
    other = pairs(tmp_path / "", ["0", "1", "2.5", "5"] * 15)
    assert other.problem == "scored-pairs"  # type: ignore[attr-defined]


def test_rows_without_a_good_score_are_set_aside_with_their_reason(tmp_path: Path) -> None:
    found = pairs(tmp_path, ["1", "2", "3", "4"] * 15 + ["", "nan", "inf", "high"])
    reasons = [row.reason for row in found.rejected]  # type: ignore[attr-defined]
    assert reasons == ["no score", "no score", "a score that is not finite", "a score that is not a number"]
    strict = pairs(tmp_path, ["0", "1"] * 30 + ["0.5"], "binary-pairs")
    assert [row.reason for row in strict.rejected] == ["score 0.5, which is neither 0 nor 1"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("scores", "problem", "message"),
    [
        (["1"] * 40, None, "task.problem=positive-pairs"),
        (["entailment", "neutral"] * 20, None, "text-classification takes classes of pairs"),
        (["3"] * 40, "scored-pairs", "at least two different scores"),
        (["1", "2"] * 20, "binary-pairs", "0 and 1 are needed"),
    ],
)
def test_scores_that_order_nothing_are_refused(
    tmp_path: Path, scores: list[str], problem: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        pairs(tmp_path, scores, problem)
