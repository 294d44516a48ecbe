"""From settings to audited splits: read, choose columns, set bad rows aside, find repeats, cut, audit."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data import ids
from tunesmith.data.audit import audit
from tunesmith.data.canonical import Canonical, canonical, store
from tunesmith.data.cells import Cells, Place
from tunesmith.data.cells.text import ONE_TEXT, TEXT
from tunesmith.data.columns import Columns, choose, positions
from tunesmith.data.complete import SPLITS, complete, linked
from tunesmith.data.readers import Source, open_source
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.data.split_column import by_column
from tunesmith.data.targets import Raw, Reading, Reason, Settled, Targets
from tunesmith.data.targets.classes import CLASSES
from tunesmith.data.translations import unfolded
from tunesmith.errors import DataError, GuessWarning
from tunesmith.settings import DataSettings

LINES_SHOWN = 3
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Splits ready for a task, with the columns id, line, those of the cells (input first), target, group.

    There is no target where rows are read without one, and a group only where one was named, or where the target is one.
    """

    splits: dict[str, pa.Table]
    """train, validation, test, in this order."""
    problem: str | None
    """The kind of target."""
    labels: tuple[str, ...]
    """Class names by index; empty for scores, and where there is no target."""
    columns: Columns
    audit: dict[str, Any]
    rejected: list[Rejected]
    coding: Mapping[str, Any] = field(default_factory=dict)
    """What else other rows need to be read as these were."""


def load(
    settings: DataSettings,
    cache: Path,
    seed: int,
    targets: Targets = CLASSES,
    cells: Cells = TEXT,
) -> Dataset:
    """Read what `settings` name and make splits of it.

    Args:
        cache: a folder for memory-mapped rows; the result reads from it.
        seed: of the split.
        targets: the kind of target.
        cells: the kind of input.

    Raises:
        DataError: nothing usable there; the message says what, where, and the mend.
    """
    wanted = _Wanted(settings, cache, seed, cells, targets)
    read = _read(wanted)
    splits, notes = _without_hidden(read.splits, settings)
    raw = {split: _raw(wanted, read, split) for split in splits}
    settled = targets.settle(raw["train"], read.problem)
    columns = replace(read.columns, guesses=(*read.columns.guesses, *settled.guesses))
    parsed = {
        split: _parsed(one, targets, targets.reading(raw[split].place, settled), cache / f"{split}.arrow", split)
        for split, one in splits.items()
    }
    notes += settled.notes
    found = _in_splits(
        wanted, replace(read, columns=columns, splits=parsed, problem=settled.problem), settled.labels, notes
    )
    return replace(found, coding=settled.coding)


def load_unlabelled(settings: DataSettings, cache: Path, seed: int, cells: Cells = ONE_TEXT) -> Dataset:
    """`load` for rows that have no target, or whose texts are all that is to be learned.

    Raises:
        DataError: nothing usable there, or data.target names a column.
    """
    wanted = _Wanted(settings, cache, seed, cells, None)
    return _in_splits(wanted, replace(_read(wanted), problem=None), (), [])


@dataclass(frozen=True)
class _Wanted:
    """What is asked for."""

    settings: DataSettings
    cache: Path
    seed: int
    cells: Cells
    targets: Targets | None


@dataclass(frozen=True)
class _Found:
    """What was read of the sources."""

    names: dict[str, str]
    """By split, what messages call the source."""
    problem: str | None
    """The kind of target, where it is known."""
    columns: Columns
    splits: dict[str, Canonical]
    folders: dict[str, Path]
    """By split, where relative paths start."""


def _read(wanted: _Wanted) -> _Found:
    """Which column plays which part, and the rows whose inputs can be used."""
    settings, cells = wanted.settings, wanted.cells
    sources = opened(settings, cells.readers)
    first = sources["train"]
    columns = choose(first.columns, settings, first.name, cells, wanted.targets)
    told = [guess for source in sources.values() for guess in source.guesses]
    columns = replace(columns, guesses=(*told, *columns.guesses))
    read = {
        name: canonical(
            source,
            positions(source.columns, columns, source.name),
            name,
            settings,
            wanted.cache / f"{name}.raw.arrow",
            cells,
        )
        for name, source in sources.items()
    }
    if not read["train"].rows.num_rows:
        _refuse_empty(read["train"], first.name)
    names = {name: one.name for name, one in sources.items()}
    return _Found(names, first.problem, columns, read, {name: one.folder for name, one in sources.items()})


def _raw(wanted: _Wanted, read: _Found, split: str) -> Raw:
    place = Place(read.folders[split], wanted.cache / f"{split}.targets", wanted.settings)
    column = read.splits[split].rows.column("raw")
    return Raw(column, read.columns.targets, place, read.names[split])


def _in_splits(wanted: _Wanted, read: _Found, labels: tuple[str, ...], notes: list[str]) -> Dataset:
    """Count what was set aside, find repeats, cut the splits that are missing, audit."""
    settings, cells = wanted.settings, wanted.cells
    tables = {name: one.rows for name, one in read.splits.items()}
    rejected = [row for one in read.splits.values() for row in one.rejected]
    _check_rejected(rejected, tables, settings, read.names["train"])
    tables, columns = ids.with_unique(tables, read.columns, read.names, chosen=settings.id is not None)
    exact, near = _clusters(tables, settings.near_duplicate, cells)
    brought = len(tables) > 1
    tables, exact, near, uneven = complete(tables, exact, near, settings, wanted.seed, wanted.cache, cells)
    notes = [*notes, *uneven]
    report = audit(tables, labels, columns, rejected, exact, near, brought=brought, notes=notes, cells=cells)
    described, warnings = wanted.targets.described(tables, labels) if wanted.targets else ({}, [])
    report |= described
    report["warnings"] += warnings
    return Dataset(tables, read.problem, labels, columns, report, rejected)


def load_labelled(
    source: str,
    settings: DataSettings,
    columns: Columns,
    settled: Settled,
    cache: Path,
    cells: Cells = TEXT,
    targets: Targets | None = CLASSES,
) -> Canonical:
    """Other labelled rows for a model that is trained already; unknown labels are rejected.

    Args:
        targets: the kind of target; None where what is learned stands among the inputs.

    Raises:
        DataError: a column is missing, or no row is usable.
    """
    opened = _unfolded(open_source(source, settings.encoding, cells.readers))
    column = settings.split_column
    if column is not None and len(opened) == 1 and column in opened["train"].columns:
        opened = by_column(source, settings.encoding, column, cells.readers)
    chosen = opened.get("test", opened["train"])
    columns = _standing_in(chosen, columns, settings, cells, targets if columns.targets else None)
    read = canonical(chosen, columns, "test", settings, cache / "labelled.raw.arrow", cells)
    if not read.rows.num_rows:
        _refuse_empty(read, chosen.name)
    if targets is None or not columns.targets:  # which texts stand side by side says all
        return read
    place = Place(chosen.folder, cache / "labelled.targets", settings)
    parsed = _parsed(read, targets, targets.reading(place, settled), cache / "labelled.arrow", "test")
    if not parsed.rows.num_rows:
        _refuse_empty(parsed, chosen.name)
    return parsed


def read_inputs(
    source: str, settings: DataSettings, inputs: tuple[str, ...], cache: Path, cells: Cells = TEXT
) -> Canonical:
    """Rows without targets, for predictions: the columns `inputs` of a file."""
    opened = _unfolded(open_source(source, settings.encoding, cells.readers))
    chosen = opened.get("test", opened["train"])
    columns = _standing_in(chosen, Columns(inputs, (), settings.id, None, (), ()), settings, cells, None)
    return canonical(chosen, columns, "row", settings, cache / "inputs.arrow", cells)


def _standing_in(
    source: Source, columns: Columns, settings: DataSettings, cells: Cells, targets: Targets | None
) -> Columns:
    """`columns` where `source` has them; otherwise what stands there for inputs and targets, where one reading is safe.

    Raises:
        DataError: a column is missing, and nothing can stand in for it.

    Warns:
        GuessWarning: something stands in, or the form of the source was guessed.
    """
    for guess in source.guesses:
        warnings.warn(guess, GuessWarning, stacklevel=3)
    wanted, header = (*columns.inputs, *columns.targets), {str(name).strip() for name in source.columns}
    missing = next((name for name in wanted if name not in header), None)
    if missing is not None:
        asked = settings.model_copy(
            update={"input": None, "target": None, "id": None, "group": None, "split_column": None}
        )
        try:
            found = choose(source.columns, asked, source.name, cells, targets)
        except DataError:
            found = None  # `positions` says what is missing
        if found and (len(found.inputs), len(found.targets)) == (len(columns.inputs), len(columns.targets)):
            read = ", ".join(map(repr, (*found.inputs, *found.targets)))
            warnings.warn(f"{source.name} has no column {missing!r}: {read} is read.", GuessWarning, stacklevel=3)
            columns = replace(columns, inputs=found.inputs, targets=found.targets)
    return positions(source.columns, columns, source.name)


def opened(settings: DataSettings, others: Mapping[str, str] = {}) -> dict[str, Source]:
    """The tables by split, not yet read: those that the training source brings, and those that are named beside it.

    Args:
        others: as `open_source` has them.

    Raises:
        DataError: there is no such source, or none that can be read.
    """
    found = (
        dict(open_source(settings.train, settings.encoding, others))
        if settings.split_column is None
        else by_column(settings.train, settings.encoding, settings.split_column, others)
    )
    for name, where in (("validation", settings.validation), ("test", settings.test)):
        if where is not None and name in found and settings.split_column is not None:
            raise DataError(
                f"The column {settings.split_column!r} of {settings.train} names {name} rows, and data.{name} names a file.",
                f"Leave data.{name} or data.split_column away.",
            )
        if where is not None:
            opened = open_source(where, settings.encoding, others)
            found[name] = opened.get(name, opened["train"])
    return _unfolded({name: found[name] for name in SPLITS if name in found})


def _unfolded(found: Mapping[str, Source]) -> dict[str, Source]:
    """Translations as columns by language, in every split."""
    return {name: unfolded(source) for name, source in found.items()}


def _parsed(read: Canonical, targets: Targets, reading: Reading, path: Path, split: str) -> Canonical:
    """`read` with its raw targets made into values, which are groups too where rows of one belong together, or tie those
    together that are named; rows without a good one are set aside."""
    names = [name for name in read.rows.column_names if name != "raw"]
    made = ["target", "group"] if targets.apart and "group" not in names else ["target"]
    rejected = list(read.rejected)

    def usable() -> Iterator[tuple[Any, ...]]:
        for batch in read.rows.to_batches():
            kept = [batch.column(name).to_pylist() for name in names]
            for *row, value in zip(*kept, reading.values(batch), strict=True):
                if isinstance(value, Reason):
                    rejected.append(Rejected(split, row[1], str(value), excerpt(row[2])))
                else:
                    yield *row, *[value] * len(made)

    fields = [read.rows.schema.field(name) for name in names]
    schema = pa.schema(fields + [(name, reading.kind) for name in made])
    stored = store(usable(), schema, path)
    tied = targets.apart and "group" in names and stored.num_rows
    return Canonical(_tied(stored) if tied else stored, rejected)


def _tied(rows: pa.Table) -> pa.Table:
    """`rows` with groups that no target crosses: those that targets tie together go by the name of the first."""
    first = pa.array(linked(rows, np.arange(rows.num_rows)))
    return rows.set_column(rows.schema.get_field_index("group"), "group", rows.column("group").take(first))


def _refuse_empty(read: Canonical, name: str) -> None:
    if not read.rejected:
        raise DataError(f"{name} has a header but no rows.", "Give a file with rows.")
    reason, count = Counter(row.reason for row in read.rejected).most_common(1)[0]
    raise DataError(
        f"None of the {len(read.rejected):,} rows of {name} can be used; the commonest reason is: {reason} ({count:,})."
    )


def _check_rejected(rejected: list[Rejected], tables: dict[str, pa.Table], settings: DataSettings, name: str) -> None:
    total = len(rejected) + sum(table.num_rows for table in tables.values())
    if len(rejected) > settings.max_rejected * total:
        reason, count = Counter(row.reason for row in rejected).most_common(1)[0]
        rows = [row for row in rejected if row.reason == reason]
        lines = ", ".join(f"{row.line}" for row in rows[:LINES_SHOWN] if row.split == rows[0].split)
        raise DataError(
            f"{len(rejected):,} of {total:,} rows cannot be used, more than data.max_rejected allows "
            f"({100 * settings.max_rejected:.0f} %); the commonest reason is: {reason} "
            f"({count:,}, first in {rows[0].split}, {'lines' if ',' in lines else 'line'} {lines}).",
            "Mend the file, or raise data.max_rejected if this is meant: the rows are then listed in data/rejected.jsonl.",
        )
    empty = next((split for split, table in tables.items() if not table.num_rows), None)
    if empty:
        own = Counter(row.reason for row in rejected if row.split == empty).most_common(1)
        why = f"; the commonest reason is: {own[0][0]} ({own[0][1]:,})" if own else ""
        raise DataError(
            f"The {empty} split has no usable row{why}.", "Leave it away to have it cut from the training data."
        )


def _without_hidden(read: dict[str, Canonical], settings: DataSettings) -> tuple[dict[str, Canonical], list[str]]:
    """Leave away splits that came with the training source and have no label at all, as test splits of the Hub do."""
    named = {"train", *(name for name in SPLITS if getattr(settings, name) is not None)}
    hidden = [
        name
        for name, one in read.items()
        if name not in named and one.rows.num_rows and one.rows.column("raw").null_count == one.rows.num_rows
    ]
    notes = [f"The {name} split of {settings.train} has no labels; another one is cut from train." for name in hidden]
    return {name: one for name, one in read.items() if name not in hidden}, notes


def _clusters(
    tables: dict[str, pa.Table], threshold: float, cells: Cells
) -> tuple[dict[str, Indices], dict[str, Indices]]:
    ends = np.cumsum([table.num_rows for table in tables.values()])[:-1]
    return tuple(  # type: ignore[return-value]
        dict(zip(tables, np.split(found, ends), strict=True))
        for found in cells.clusters(list(tables.values()), threshold)
    )
