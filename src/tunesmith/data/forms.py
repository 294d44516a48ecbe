"""In which form a table says which texts are alike: pairs with a score, pairs that belong together, triplets, or labels."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.data.cells.compared import COMPARED
from tunesmith.data.columns import choose
from tunesmith.data.load import opened
from tunesmith.data.targets.alike import BINARY, SCORED, Alike
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings

POSITIVE, TRIPLETS, LABELS = "positive-pairs", "triplets", "labels"
WITHOUT = (POSITIVE, TRIPLETS)
"""Forms that have no target."""
TEXTS = {SCORED: 2, BINARY: 2, POSITIVE: 2, TRIPLETS: 3, LABELS: 1}
"""How many texts a row of each form has."""


@dataclass(frozen=True)
class Form:
    """What a table is read as."""

    problem: str | None
    """None where the cells say which: scores, or 0 and 1."""
    guesses: tuple[str, ...]
    """What was guessed, from what, in sentences."""


def form_of(settings: DataSettings, wanted: str | None) -> Form:
    """The form of the training table, by its columns.

    Args:
        wanted: the form that it must have; any when it is None.

    Raises:
        DataError: the columns are of no form, or of another one than `wanted`.
    """
    source = opened(settings)["train"]
    if wanted in WITHOUT and settings.target is not None:
        raise DataError(f"data.target is {settings.target!r}, but {wanted} have no target.", "Leave it away.")
    named = {str(name).strip().casefold() for name in source.columns} & set(Alike.names)
    scored = wanted not in WITHOUT and (settings.target is not None or bool(named))
    columns = choose(source.columns, settings, source.name, COMPARED, Alike(None) if scored else None)
    texts = len(columns.inputs)
    found = {1: LABELS if scored else None, 2: wanted if scored else POSITIVE, 3: TRIPLETS}[texts]
    shown = ", ".join(map(repr, columns.inputs))
    if texts == 1 and not scored:
        raise DataError(
            f"Of {source.name} only the column {shown} is read, and nothing says which texts belong together.",
            f"Name two columns of pairs in data.input, or a column of labels as data.target. Columns: "
            f"{', '.join(map(str, source.columns))}.",
        )
    if texts == 3 and settings.target is not None:
        raise DataError(
            f"data.target is {settings.target!r}, but three columns of texts ({shown}) are triplets, which have no target.",
            "Leave it away, or name two columns in data.input.",
        )
    if wanted is not None and (texts != TEXTS[wanted] or (texts == 2 and scored == (wanted in WITHOUT))):
        missing = "" if texts != TEXTS[wanted] else ", and no column of scores"
        raise DataError(
            f"task.problem is {wanted}, but of {source.name} the column{'s' if texts > 1 else ''} {shown} "
            f"{'are' if texts > 1 else 'is'} read{missing}.",
            f"Name the columns of texts in data.input ({TEXTS[wanted]} of them)"
            + ("." if wanted in WITHOUT else ", and data.target."),
        )
    return Form(found, () if wanted or found is None else (_told(found, shown),))


def _told(problem: str, shown: str) -> str:
    what = {
        POSITIVE: "pairs of texts that belong together, as there is no column of scores",
        TRIPLETS: "triplets: a text, one that belongs to it, and one that does not",
        LABELS: "texts with labels; those of one label belong together",
    }[problem]
    return f"Read as {what} ({shown}; task.problem={problem}; task.problem sets another reading)."
