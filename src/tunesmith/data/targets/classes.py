"""Classes, labels and scores: which of them the target cells hold, the class names, and rows without a good one."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.cells import Place
from tunesmith.data.readers import Problem
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.errors import DataError

MOST_INTEGER_CLASSES = 20
"""More different whole numbers than this are taken for a score."""
ROWS_PER_CLASS = 2
"""Whole numbers that repeat less than this, on average, are taken for a score."""
MOST_WORDS = 0.1
"""A smaller share of words among numbers may be cells that mean "no score"."""
Parse = Callable[[str | None], Any]
"""A cell to its value, or to a Reason."""
NAMES_SHOWN = 3


class Classes:
    """Targets that are a class, several labels, or a score."""

    names: Sequence[str] = (
        "label", "labels", "target", "class", "category", "topic", "intent", "sentiment", "score", "rating", "stars", "y",
    )  # fmt: skip
    preferred: Sequence[str] = ("label", "labels")
    several = True
    apart = False

    def __init__(self, problem: Problem | None) -> None:
        """`problem`: which of them it is; read off the cells when it is None."""
        self.problem = problem

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where there is nothing to tell apart, or several columns do not go with `problem`."""
        several = len(raw.columns) > 1
        if several and self.problem not in (None, "multi-label"):
            raise DataError(
                f"data.target names {len(raw.columns)} columns, which make a multi-label target, but task.problem is "
                f"{self.problem}.",
                "Name one column, or leave task.problem away.",
            )
        known = self.problem or cast("Problem | None", brought)
        found = known or infer(raw.column, several, raw.name)
        labels = class_names(raw.column, found, raw.place.settings.separator, raw.name)
        guesses = () if known else (reading(found, raw.column),)
        return Settled(found, labels, guesses=guesses, notes=_merged_notes(merged(raw.column, found)))

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        return {}, []

    def reading(self, place: Place, settled: Settled) -> Reading:
        kind = cast("Problem", settled.problem)
        parse = parser(kind, settled.labels, place.settings.separator)

        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            yield from map(parse, rows.column("raw").to_pylist())

        return Reading(TYPES[kind], values)


CLASSES = Classes(None)


def _merged_notes(names: list[str]) -> tuple[str, ...]:
    shown = ", ".join(map(repr, names[:NAMES_SHOWN])) + (" …" if len(names) > NAMES_SHOWN else "")
    one = len(names) == 1
    note = (
        f"{len(names):,} class{' stands' if one else 'es stand'} there with and without white space around, "
        f"and count{'s' if one else ''} as one ({shown})."
    )
    return (note,) if names else ()


def infer(raw: pa.ChunkedArray, several_columns: bool, source: str) -> Problem:
    """The kind of target that the cells `raw` show.

    Raises:
        DataError: there is no cell at all with something in it.
    """
    distinct = [value.strip() for value in pc.unique(raw).to_pylist() if value is not None and value.strip()]
    if not distinct or (_all_numbers(distinct) and not any(map(_finite, distinct))):
        raise DataError(f"The target column of {source} is empty in every row.", "Set data.target to another column.")
    if several_columns or all(_is_list(value) for value in distinct):
        return "multi-label"
    if _all_numbers(distinct):  # "nan" among numbers is what a table writes for an empty cell
        distinct = [value for value in distinct if _finite(value)]
    numbers = [_number(value) for value in distinct]
    words = [value for value, number in zip(distinct, numbers, strict=True) if number is None]
    if words and len(distinct) > MOST_INTEGER_CLASSES and len(words) < MOST_WORDS * len(distinct):
        raise DataError(
            f"The target of {source} holds {len(distinct) - len(words):,} different numbers, but also {words[0]!r}.",
            "Say which it is with task.problem: regression (rows without a number are set aside) or single-label.",
        )
    if words:
        return "single-label"
    whole = all(number == round(number) for number in numbers if number is not None)
    few = len(distinct) <= MOST_INTEGER_CLASSES and len(distinct) * ROWS_PER_CLASS <= raw.length()
    return "single-label" if whole and few else "regression"


def reading(problem: Problem, raw: pa.ChunkedArray) -> str:
    """What was inferred of the target, as a sentence."""
    distinct = pc.count_distinct(raw).as_py()
    what = {
        "single-label": f"classes, one a row, as its cells hold {distinct:,} different values",
        "multi-label": "labels, any number a row",
        "regression": f"scores, as its cells hold {distinct:,} different numbers",
    }[problem]
    return f"The target is read as {what} (task.problem={problem}; task.problem sets another reading)."


def class_names(raw: pa.ChunkedArray, problem: Problem, separator: str, source: str) -> tuple[str, ...]:
    """The classes in the cells `raw`, sorted (numbers by value); empty for scores.

    Raises:
        DataError: fewer than two classes, or so many that the column must be something else.
    """
    if problem == "regression":
        numbers = (_number(value) for value in pc.unique(raw).to_pylist() if value is not None)
        values = {number for number in numbers if number is not None and math.isfinite(number)}
        if len(values) == 1:
            raise DataError(
                f"The target of {source} has the same value in every row.", "There is nothing to learn from it."
            )
        return ()
    names: set[str] = set()
    for value in pc.unique(raw).to_pylist():
        names.update(labels_of(value, separator) if problem == "multi-label" else [(value or "").strip()])
    names.discard("")
    if problem == "single-label" and _all_numbers(names):
        names = set(filter(_finite, names))
    least = 1 if problem == "multi-label" else 2
    if len(names) < least:
        only = f"only the class {names.pop()!r}" if names else "no class"
        raise DataError(f"The target of {source} has {only}.", "At least two classes are needed to tell apart.")
    if len(names) > 100 and len(names) > raw.length() / 2:
        raise DataError(
            f"The target of {source} has {len(names):,} different values in {raw.length():,} rows, "
            "so it looks like an id or free text, not a class.",
            "Set data.target to the column of the labels.",
        )
    return tuple(sorted(names, key=natural))


def merged(raw: pa.ChunkedArray, problem: Problem) -> list[str]:
    """Class names that stand there with and without white space around them, and are read as one."""
    if problem != "single-label":
        return []
    spellings = [value for value in pc.unique(raw).to_pylist() if value and value.strip()]
    count = Counter(value.strip() for value in spellings)
    return sorted(name for name, times in count.items() if times > 1)


def parser(problem: Problem, labels: Sequence[str], separator: str) -> Parse:
    """The function that turns a cell into a class index, a list of them, or a number."""
    index = {name: position for position, name in enumerate(labels)}

    def single(cell: str | None) -> Any:
        name = (cell or "").strip()
        if name in index:
            return index[name]
        return Reason("no label" if not name or _finite(name) is False else f"unknown label {name!r}")

    def multiple(cell: str | None) -> Any:
        if cell is None:
            return Reason("no label, or one that is not 0 or 1")
        names = labels_of(cell, separator)
        unknown = next((name for name in names if name not in index), None)
        return sorted({index[name] for name in names}) if unknown is None else Reason(f"unknown label {unknown!r}")

    def score(cell: str | None) -> Any:
        number = _number((cell or "").strip())
        if number is None or not math.isfinite(number):
            return Reason("no score" if not (cell or "").strip() else f"score {cell!r} is not a number")
        return number

    return {"single-label": single, "multi-label": multiple, "regression": score}[problem]


TYPES = {"single-label": pa.int64(), "multi-label": pa.list_(pa.int64()), "regression": pa.float64()}


def labels_of(cell: str | None, separator: str) -> list[str]:
    """The labels in a multi-label cell: a JSON list, or names parted by `separator`."""
    text = (cell or "").strip()
    parts = json.loads(text) if _is_list(text) else text.split(separator)
    return [str(part).strip() for part in parts if str(part).strip()]


def _is_list(text: str) -> bool:
    if not (text.startswith("[") and text.endswith("]")):
        return False
    try:
        return isinstance(json.loads(text), list)
    except json.JSONDecodeError:
        return False


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _finite(text: str) -> bool | None:
    """Whether a number is finite; None where `text` is no number."""
    number = _number(text)
    return None if number is None else math.isfinite(number)


def _all_numbers(texts: Iterable[str]) -> bool:
    return all(_number(text) is not None for text in texts)


def natural(name: str) -> tuple[int, float, str]:
    """What class names are sorted by: numbers by value, and before words."""
    number = _number(name)
    return (1, 0.0, name) if number is None or math.isnan(number) else (0, number, name)
