"""How alike texts are: by a score of any range, by whether they belong together at all, or by their labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from tunesmith.data.cells import Place
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.data.targets.classes import Classes
from tunesmith.errors import DataError

KIND = pa.float64()
SCORED, BINARY = "scored-pairs", "binary-pairs"
TRUTH = {"true": 1.0, "false": 0.0}
NONE = Reason("no score")
EITHER = (0.0, 1.0)


class Alike:
    """Targets that say how alike the texts of a pair are."""

    names: Sequence[str] = (
        "score", "similarity", "similarity_score", "relatedness_score", "label", "labels", "is_duplicate", "duplicate",
        "same", "target", "class", "category", "topic", "intent", "y",
    )  # fmt: skip
    preferred: Sequence[str] = names[:6]
    apart = False
    several = False

    def __init__(self, problem: str | None) -> None:
        """`problem`: SCORED or BINARY; read off the cells when it is None."""
        self.problem = problem

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where no cell is a number, or all are the same."""
        read = [number(cell) for cell in raw.column.to_pylist()]
        values = Counter(one for one in read if not isinstance(one, Reason))
        if not values:
            why, count = Counter(map(str, read)).most_common(1)[0]
            raise DataError(
                f"No row of {raw.name} has a score; the commonest reason is: {why} ({count:,} of {len(read):,}).",
                "Name the column of numbers, or of 0 and 1, as data.target; text-classification takes classes of pairs.",
            )
        either = set(values) <= set(EITHER)
        problem = self.problem or (BINARY if either else SCORED)
        if len(values) < 2 or (problem == BINARY and not set(EITHER) <= set(values)):
            shown = ", ".join(f"{value:g}" for value in sorted(values)[:3])
            wanted = "0 and 1" if problem == BINARY else "at least two different scores"
            raise DataError(
                f"The column of scores of {raw.name} holds {shown}, but {wanted} are needed.",
                "Pairs that all belong together have no score: task.problem=positive-pairs.",
            )
        what = {
            BINARY: "0 and 1, whether the two texts belong together",
            SCORED: f"scores from {min(values):g} to {max(values):g}, the higher the more alike",
        }[problem]
        told = f"The target is read as {what} (task.problem={problem}; task.problem sets another reading)."
        return Settled(problem, (), guesses=() if self.problem else (told,))

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Raise DataError where a split is left with one and the same score, so that nothing can be ordered by it."""
        for name, rows in tables.items():
            if len(rows.column("target").unique()) < 2:
                raise DataError(
                    f"The {name} split is left with {rows.num_rows:,} row{'' if rows.num_rows == 1 else 's'} of one and "
                    "the same score, so that nothing can be ordered by it.",
                    "Give more rows, or bring the splits yourself.",
                )
        return {}, []

    def reading(self, place: Place, settled: Settled) -> Reading:
        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            for cell in rows.column("raw").to_pylist():
                value = number(cell)
                if settled.problem == BINARY and not isinstance(value, Reason) and value not in EITHER:
                    value = Reason(f"score {value:g}, which is neither 0 nor 1")
                yield value

        return Reading(KIND, values)


class Together(Classes):
    """Labels; what has the same one belongs together."""

    def __init__(self) -> None:
        super().__init__("single-label")

    def reading(self, place: Place, settled: Settled) -> Reading:
        return super().reading(place, settled._replace(problem="single-label"))


def number(cell: str | None) -> float | Reason:
    """The score in a cell; true and false are 1 and 0."""
    text = (cell or "").strip().lower()
    if not text or text == "nan":
        return NONE
    try:
        value = TRUTH[text] if text in TRUTH else float(text)
    except ValueError:
        return Reason("a score that is not a number")
    return value if math.isfinite(value) else Reason("a score that is not finite")
