"""The splits that the user did not bring, cut from the training rows: how they are asked for, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data import duplicates
from tunesmith.data.canonical import mapped
from tunesmith.data.cells import Cells
from tunesmith.data.split import cut
from tunesmith.data.targets import classes_in
from tunesmith.errors import DataError
from tunesmith.run import writing
from tunesmith.settings import DataSettings

SPLITS = ("train", "validation", "test")
FEWEST_ROWS = 10
SCORE_BINS = 10
MOST_UNEVEN = 0.25
"""A split that misses its share by more than this part of it is worth a word."""
LEAST_NAMES = 2
"""Names with two rows or more that a split needs, so that there is something to find, and something else to find instead."""
Indices = npt.NDArray[np.int64]


def complete(
    tables: dict[str, pa.Table],
    exact: dict[str, Indices],
    near: dict[str, Indices],
    settings: DataSettings,
    seed: int,
    cache: Path,
    cells: Cells,
) -> tuple[dict[str, pa.Table], dict[str, Indices], dict[str, Indices], list[str]]:
    """Cut the splits that are missing from the training rows.

    Args:
        exact, near: per split, the cluster of each row (see `duplicates.clusters`).
        cache: a folder for the rows.
        cells: what inputs are.

    Returns:
        tables and clusters of all splits, and sentences about shares that could not be kept.

    Raises:
        DataError: there are too few rows, or rows that belong together leave none for a split.
    """
    missing = [name for name in SPLITS if name not in tables]
    if not missing:
        return tables, exact, near, []
    train = tables["train"]
    wanted = dict(zip(SPLITS, settings.split, strict=True))
    total = wanted["train"] + sum(wanted[name] for name in missing)
    shares = [wanted["train"] / total, *(wanted[name] / total for name in missing)]
    if train.num_rows < FEWEST_ROWS:
        usable = "is 1 usable row" if train.num_rows == 1 else f"are {train.num_rows} usable rows"
        raise DataError(
            f"There {usable}, too few to cut into splits (at least {FEWEST_ROWS}).",
            "Give more rows, or bring data.validation and data.test yourself.",
        )
    strata, together = _strata(train), linked(train, near["train"])
    if settings.group is None and (shared := cells.shared(train)) is not None:
        together = duplicates.joined(together, shared)
    split = cut(strata, together, shares, seed)
    if _parts(train):
        split = _several_names(train, together, split, len(shares))
    notes = _uneven(np.bincount(split, minlength=len(shares)), ["train", *missing], shares)
    pieces: dict[str, pa.Table] = dict(tables)
    clusters = {"exact": dict(exact), "near": dict(near)}
    for index, name in enumerate(["train", *missing]):
        rows = np.flatnonzero(split == index)
        if not len(rows):
            raise DataError(*_why_none_left(name, strata, together))
        pieces[name] = _taken(train, rows, cache / f"{name}.cut.arrow")
        for kind, found in (("exact", exact), ("near", near)):
            clusters[kind][name] = found["train"][rows]
    ordered = [{name: one[name] for name in SPLITS} for one in (pieces, clusters["exact"], clusters["near"])]
    return ordered[0], ordered[1], ordered[2], notes


def _uneven(counts: Indices, names: Sequence[str], shares: Sequence[float]) -> list[str]:
    """A sentence for each split that rows belonging together made much larger or smaller than asked for."""
    total = int(counts.sum())
    return [
        f"The {name} split has {count:,} rows ({100 * count / total:.0f} %) instead of {share * total:,.0f}, as rows "
        "that belong together stay on one side."
        for name, count, share in zip(names, counts, shares, strict=True)
        if abs(count - share * total) > max(FEWEST_ROWS, MOST_UNEVEN * share * total)
    ]


def _why_none_left(split: str, strata: Indices, together: Indices) -> tuple[str, str]:
    classes, clusters = int(strata.max()) + 1, len(np.unique(together))
    if 2 * classes > len(strata):
        why = f"most of the {classes:,} classes have a single row, and training needs that one"
    else:
        of = f"{clusters:,} cluster{'' if clusters == 1 else 's'}"
        why = f"the {len(strata):,} rows belong together in {of} of near-duplicates, groups or identities"
    return f"No row is left for the {split} split: {why}.", "Give more rows, or bring the splits yourself."


def _taken(table: pa.Table, rows: Indices, path: Path) -> pa.Table:
    """Some rows of a mapped table, as another mapped table; never more than a block in memory."""
    with writing(path), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for start in range(0, len(rows), 50_000):
            writer.write_table(table.take(rows[start : start + 50_000]))
    return mapped(path)


def _strata(table: pa.Table) -> Indices:
    """The class of each row; for several labels the rarest one; for scores the decile; one for all without a target, and
    where it is a name, by which splits part."""
    if "target" not in table.column_names or _parts(table):
        return np.zeros(table.num_rows, dtype=np.int64)
    target = classes_in(table.column("target"))
    if pa.types.is_floating(target.type):
        values = target.to_numpy()
        edges = np.quantile(values, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
        return np.unique(np.searchsorted(edges, values), return_inverse=True)[1].astype(np.int64)
    if pa.types.is_list(target.type):
        cells = target.to_pylist()
        counts = Counter(label for cell in cells for label in cell)
        rarest = [min(cell, key=lambda label: counts[label]) if cell else -1 for cell in cells]
        return np.unique(rarest, return_inverse=True)[1].astype(np.int64)
    return np.unique(target.to_numpy(), return_inverse=True)[1].astype(np.int64)


def linked(table: pa.Table, near: Indices) -> Indices:
    """Clusters that no group, no target that is a name, and no near-duplicates cross: what is linked by any of them belongs
    together. Where `near` numbers the rows, each cluster goes by its first row."""
    found = near
    for column in ("group", "target"):
        if column in table.column_names and _of_names(table, column):
            found = duplicates.joined(found, _numbered(table, column))
    return found


def _several_names(table: pa.Table, together: Indices, split: Indices, splits: int) -> Indices:
    """`split` with LEAST_NAMES names of two rows or more in each, where there are so many: what lacks some gets the smallest
    clusters of what has most."""
    names, clusters = _numbered(table, "target"), np.unique(together, return_inverse=True)[1]
    sizes = np.bincount(clusters)
    owner, place = np.zeros(names.max() + 1, dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
    owner[names], place[clusters] = clusters, split
    held = np.bincount(owner[np.bincount(names) > 1], minlength=len(sizes))
    for poor in range(splits):
        while (have := np.bincount(place, weights=held, minlength=splits))[poor] < LEAST_NAMES:
            spare = np.flatnonzero((held > 0) & (place != poor) & (have[place] - held >= LEAST_NAMES))
            if not len(spare):
                break
            place[spare[np.lexsort((sizes[spare], -have[place[spare]]))[0]]] = poor
    return place[clusters]


def _numbered(table: pa.Table, column: str) -> Indices:
    """(rows,) a number for each value of a column of names."""
    return np.unique(np.asarray(table.column(column).to_pylist(), dtype=str), return_inverse=True)[1].astype(np.int64)


def _parts(table: pa.Table) -> bool:
    """Whether targets are names, by which splits part."""
    return "target" in table.column_names and _of_names(table, "target")


def _of_names(table: pa.Table, column: str) -> bool:
    return bool(pa.types.is_string(table.schema.field(column).type))
