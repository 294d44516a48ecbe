"""What was found in the data, as data/audit.json holds it, and the plain warnings that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.cells import Cells
from tunesmith.data.cells.text import TEXT
from tunesmith.data.columns import Columns
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.data.targets import classes_in

if TYPE_CHECKING:
    from tunesmith.data.load import Dataset

EXAMPLES = 5
Indices = npt.NDArray[np.int64]


def audit(
    splits: dict[str, pa.Table],
    labels: Sequence[str],
    columns: Columns,
    rejected: Sequence[Rejected],
    exact: Mapping[str, Indices],
    near: Mapping[str, Indices],
    *,
    brought: bool,
    notes: Sequence[str] = (),
    cells: Cells = TEXT,
) -> dict[str, Any]:
    """The content of audit.json.

    Args:
        exact, near: per split, the cluster of each row (see `duplicates.clusters`).
        brought: whether the user brought more than one split, so that they may overlap.
        notes: warnings of earlier steps.
        cells: the kind of input.
    """
    described, warnings = cells.described(splits)
    found: dict[str, Any] = {
        "rows": {name: rows.num_rows for name, rows in splits.items()},
        "rejected": dict(Counter(row.reason for row in rejected).most_common()),
        "columns": {
            "inputs": list(columns.inputs),
            "targets": list(columns.targets),
            "id": columns.id,
            "group": columns.group,
            "ignored": list(columns.ignored),
            "guesses": list(columns.guesses),
        },
        **described,
        "duplicates": _duplicates(splits, exact, near),
        "overlap": _overlap(splits, exact, near) if brought else {},
    }
    if columns.targets:
        found["conflicting_labels"] = _conflicts(splits, exact, f"{cells.noun}s")
    if labels:
        found["classes"] = {name: _classes(rows, labels) for name, rows in splits.items()}
        found["imbalance"] = _imbalance(found["classes"]["train"])
    found["warnings"] = [*notes, *warnings, *_warnings(found, splits, labels, cells.noun)]
    return found


def splits_json(dataset: Dataset) -> dict[str, list[str]]:
    """Which row went where, by id."""
    return {name: rows.column("id").to_pylist() for name, rows in dataset.splits.items()}


def _classes(rows: pa.Table, labels: Sequence[str]) -> dict[str, int]:
    target = classes_in(rows.column("target"))
    flat = pc.list_flatten(target) if pa.types.is_list(target.type) else target
    counts = np.bincount(flat.to_numpy(), minlength=len(labels)) if len(flat) else np.zeros(len(labels), dtype=int)
    return {label: int(count) for label, count in zip(labels, counts, strict=True)}


def _imbalance(counts: Mapping[str, int]) -> dict[str, Any]:
    """The largest and the smallest class of the training split; the ratio is absent where the smallest has no row."""
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    found: dict[str, Any] = {"largest": largest, "smallest": smallest}
    return found | ({"ratio": counts[largest] / counts[smallest]} if counts[smallest] else {})


def _duplicates(
    splits: Mapping[str, pa.Table], exact: Mapping[str, Indices], near: Mapping[str, Indices]
) -> dict[str, Any]:
    all_exact, all_near = (np.concatenate(list(found.values())) for found in (exact, near))
    return {
        "exact": int(len(all_exact) - len(np.unique(all_exact))),
        "near": int(len(np.unique(all_exact)) - len(np.unique(all_near))),
        "examples": _pairs(splits, all_near)[:EXAMPLES],
    }


def _pairs(splits: Mapping[str, pa.Table], cluster: Indices) -> list[list[str]]:
    """The first two rows of some clusters, as text."""
    order = np.argsort(cluster, kind="stable")
    second = np.flatnonzero(cluster[order[1:]] == cluster[order[:-1]])[: 4 * EXAMPLES]
    texts = pa.chunked_array([chunk for rows in splits.values() for chunk in rows.column("input").chunks])
    pairs = [[texts[int(order[at])].as_py(), texts[int(order[at + 1])].as_py()] for at in second]
    # Pairs that are not the same to the letter tell more.
    return [[excerpt(text) for text in pair] for pair in sorted(pairs, key=lambda pair: pair[0] == pair[1])]


def _overlap(
    splits: Mapping[str, pa.Table], exact: Mapping[str, Indices], near: Mapping[str, Indices]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = list(splits)
    for index, later in enumerate(names):
        for earlier in names[:index]:
            inside = np.isin(near[later], near[earlier])
            if inside.any():
                examples = splits[later].column("input").take(np.flatnonzero(inside)[:EXAMPLES]).to_pylist()
                found[f"{later} in {earlier}"] = {
                    "rows": int(inside.sum()),
                    "exact": int(np.isin(exact[later], exact[earlier]).sum()),
                    "share": float(inside.mean()),
                    "examples": [excerpt(text) for text in examples],
                }
    return found


def _conflicts(splits: Mapping[str, pa.Table], exact: Mapping[str, Indices], name: str) -> dict[str, Any]:
    """Inputs that stand there with more than one target."""
    cluster = np.concatenate(list(exact.values()))
    targets = (
        [str(value) for rows in splits.values() for value in rows.column("target").to_pylist()]
        if len(np.unique(cluster)) < len(cluster)
        else []
    )
    if not targets:
        return {name: 0, "examples": []}
    code = np.unique(targets, return_inverse=True)[1]
    pairs = np.unique(np.stack([cluster, code], axis=1), axis=0)
    clusters, counts = np.unique(pairs[:, 0], return_counts=True)
    torn = clusters[counts > 1]
    texts = pa.chunked_array([chunk for rows in splits.values() for chunk in rows.column("input").chunks])
    first = [int(np.flatnonzero(cluster == one)[0]) for one in torn[:EXAMPLES]]
    return {name: len(torn), "examples": [excerpt(texts[row].as_py()) for row in first]}


def _warnings(found: Mapping[str, Any], splits: Mapping[str, pa.Table], labels: Sequence[str], noun: str) -> list[str]:
    warnings: list[str] = []
    rejected = sum(found["rejected"].values())
    if rejected:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in list(found["rejected"].items())[:3])
        warnings.append(
            f"{_rows(rejected)} could not be used and {'was' if rejected == 1 else 'were'} set aside ({reasons})."
        )
    for where, overlap in found["overlap"].items():
        later, _, earlier = where.partition(" in ")
        warnings.append(
            f"{_rows(overlap['rows'])} of {later} ({100 * overlap['share']:.1f} %) "
            f"{'stands' if overlap['rows'] == 1 else 'stand'}, exactly or nearly, in {earlier} too: "
            f"figures on {later} flatter the model by as much."
        )
    if count := found.get("conflicting_labels", {}).get(f"{noun}s", 0):
        warnings.append(f"{count:,} {noun}{'s stand' if count > 1 else ' stands'} in the data with different labels.")
    if labels and "train" in found["classes"]:
        counts = found["classes"]["train"]
        rare = [label for label, count in counts.items() if count < 5]
        if rare:
            shown = ", ".join(repr(label) for label in rare[:3]) + (" …" if len(rare) > 3 else "")
            warnings.append(
                f"{len(rare):,} class{'es have' if len(rare) > 1 else ' has'} fewer than 5 training rows ({shown})."
            )
        absent = [label for label, count in found["classes"].get("test", {}).items() if not count]
        if absent:
            shown = ", ".join(repr(label) for label in absent[:3]) + (" …" if len(absent) > 3 else "")
            warnings.append(
                f"The test split has no row of {len(absent):,} class{'es' if len(absent) > 1 else ''} ({shown})."
            )
    small = splits["test"].num_rows if "test" in splits else 0
    if 0 < small < 100:
        warnings.append(f"The test split has only {small} rows, so intervals are wide.")
    return warnings


def _rows(count: int) -> str:
    return f"{count:,} row" + ("" if count == 1 else "s")
