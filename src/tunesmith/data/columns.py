"""Which column plays which part. Guesses only where one reading is safe, and says what it guessed and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.data.cells import Cells
from tunesmith.data.cells.text import TEXT
from tunesmith.data.targets import Targets
from tunesmith.data.targets.classes import CLASSES
from tunesmith.errors import DataError, did_you_mean
from tunesmith.settings import DataSettings

IDS = ("id", "guid", "uid", "uuid", "row_id", "idx")


@dataclass(frozen=True)
class Columns:
    """The parts, by the names that the header has."""

    inputs: tuple[str, ...]
    """One column, or two for pairs."""
    targets: tuple[str, ...]
    """One column, or several of 0 and 1; empty where only inputs are read."""
    id: str | None
    group: str | None
    ignored: tuple[str, ...]
    guesses: tuple[str, ...]
    """What was guessed, from what, in sentences."""

    @property
    def target(self) -> str:
        return ", ".join(self.targets)


def choose(
    header: Sequence[str],
    settings: DataSettings,
    source: str,
    cells: Cells = TEXT,
    kind: Targets | None = CLASSES,
) -> Columns:
    """The parts that the columns of `source` play.

    Args:
        kind: of target; None where there is none.

    Raises:
        DataError: a named column is missing, a name stands twice, or a part cannot be guessed safely; a target is
            named where there is none, or several where one is read.
    """
    names = _stripped(header, source)
    split = _present(settings.split_column, names, source) if settings.split_column else None
    guesses = [f"The column {name!r} is read as {name.strip()!r}." for name in header if name != name.strip()]
    targets = [_present(name, names, source) for name in _listed(settings.target)]
    inputs = [_present(name, names, source) for name in _listed(settings.input)]
    if targets and kind is None:
        raise DataError(f"data.target is {settings.target!r}, but this task reads texts alone.", "Leave it away.")
    if len(targets) > 1 and kind is not None and not kind.several:
        raise DataError(f"data.target names {len(targets)} columns, but this task reads one.", "Name one column.")
    if not targets and kind is not None:
        targets = [_guess_target([name for name in names if name != split], inputs, source, cells, kind)]
        guesses.append(f"The target is the column {targets[0]!r}, by name (data.target sets another).")
    if not inputs:
        rest = [name for name in names if name not in (*targets, split)]
        inputs = _guess_inputs(rest, source, cells)
        quoted = " and ".join(repr(name) for name in inputs)
        what = "input is the column" if len(inputs) == 1 else "inputs are the columns"
        guesses.append(f"The {what} {quoted}, by name (data.input sets another).")
    _check_count(inputs, names, source, cells)
    identity = _present(settings.id, names, source) if settings.id else _first(IDS, names)
    group = _present(settings.group, names, source) if settings.group else None
    used = {*inputs, *targets, identity, group, split}
    if set(inputs) & set(targets):
        raise DataError(f"The column {inputs[0]!r} is named as input and as target.", "Set data.input and data.target.")
    ignored = tuple(name for name in names if name not in used)
    if "split" in ignored:
        guesses.append("The column 'split' is not used; data.split_column=split takes the splits from it.")
    return Columns(tuple(inputs), tuple(targets), identity, group, ignored, tuple(guesses))


def positions(header: Sequence[str], columns: Columns, source: str) -> Columns:
    """`columns` once more, checked against the header of another file of the same run.

    Raises:
        DataError: an input or the target is missing there.
    """
    names = _stripped(header, source)
    for name in (*columns.inputs, *columns.targets, *([columns.group] if columns.group else [])):
        _present(name, names, source)
    return columns


def _stripped(header: Sequence[str], source: str) -> list[str]:
    names = [str(name).strip() for name in header]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source} has more than one column {twice!r}.", "Rename one of them.")
    return names


def _listed(value: str | list[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else value


def _present(name: str, names: Sequence[str], source: str) -> str:
    if name.strip() not in names:
        raise DataError(f"{source} has no column {name!r}{did_you_mean(name, names)}", f"Columns: {', '.join(names)}.")
    return name.strip()


def _check_count(inputs: Sequence[str], names: Sequence[str], source: str, cells: Cells) -> None:
    """Raise DataError where there are fewer columns of inputs than one row must have, or more than it may."""
    pair = ", ".join(cells.pairs[0]) if cells.pairs else ""
    if len(inputs) < cells.least:
        raise DataError(
            f"This task reads {'a pair of' if cells.most == 2 else 'several'} columns, such as {pair}, but of {source} only "
            f"{inputs[0]!r} is read.",
            f"Name {'both' if cells.most == 2 else 'them'} in data.input, as in [{pair}]. Columns: {', '.join(names)}.",
        )
    if len(inputs) > cells.most:
        if cells.most == 1:
            raise DataError(
                f"data.input names {len(inputs)} columns, but this task reads one {cells.noun}.", "Name one."
            )
        known = {1: f"one {cells.noun}", 2: f"a pair of {cells.noun}s", 3: f"a triplet of {cells.noun}s"}
        what = " or ".join(known[count] for count in range(cells.least, cells.most + 1))
        what = what if cells.least == 1 else f"{'a pair' if cells.most == 2 else 'no more than'}, such as {pair},"
        raise DataError(f"data.input names {len(inputs)} columns; {what} is read.")


def _folded(names: Sequence[str]) -> dict[str, str]:
    """Columns by their names in small letters; of several that differ in nothing else the one that is written so, or the
    first."""
    return {name.casefold(): name for name in reversed(names)} | {name: name for name in names}


def _first(known: Sequence[str], names: Sequence[str]) -> str | None:
    folded = _folded(names)
    return next((folded[name] for name in known if name in folded), None)


def _guess_target(names: Sequence[str], inputs: Sequence[str], source: str, cells: Cells, kind: Targets) -> str:
    rest = [name for name in names if name not in inputs]
    found = [name for name in rest if name.casefold() in kind.names]
    if len(found) == 1:
        return found[0]
    if preferred := _first(kind.preferred, found):
        return preferred
    if not found and len(names) == 2:
        other = [name for name in rest if name.casefold() not in cells.names]
        if len(other) == 1:
            return other[0]
    raise DataError(
        f"It is not clear which column of {source} is the target.",
        f"Set data.target (--target). Columns: {', '.join(names)}.",
    )


def _guess_inputs(names: Sequence[str], source: str, cells: Cells) -> list[str]:
    folded = _folded(names)
    for known in cells.pairs:
        if all(name in folded for name in known):
            return [folded[name] for name in known]
    found = [name for name in names if name.casefold() in cells.names]
    if len(found) == 1:
        return found
    if preferred := _first(cells.preferred, found):
        return [preferred]
    if not found and len(names) == 1 and cells.least == 1:
        return [names[0]]
    if cells.most > 2:
        raise DataError(
            f"It is not clear which columns of {source} are the {cells.noun}.",
            f"Name them in data.input, in this order: [{', '.join(cells.pairs[0])}]. Columns: {', '.join(names)}.",
        )
    raise DataError(
        f"It is not clear which column of {source} is the {cells.noun}.",
        f"Set data.input (--input). Columns: {', '.join(names)}.",
    )
