"""Identities: which person, product or animal an image shows, by name; those of other splits are others.

A name is any text, a number too. Identities are no classes: a network that tells those of training apart is asked about
things that it never saw, so splits part by identity, and what stands in two of them is told.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.data.cells import Place
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.errors import DataError

KIND = pa.string()
PROBLEM = "identity"
NONE = Reason("no identity")
MOST_SINGLE = 0.1
"""A larger share of training identities with one image is worth a word."""
SHARED = {
    "train": "figures on them are not about unseen ones",
    "validation": "what is chosen by validation was chosen by them",
}
"""By the earlier split, what it means that identities of a later one stand there too."""


class Identities:
    """Targets that name what an image shows."""

    names: Sequence[str] = (
        "identity", "identity_id", "individual", "individual_id", "person", "person_id", "pid", "product", "product_id",
        "item", "item_id", "label", "class", "target",
    )  # fmt: skip
    preferred: Sequence[str] = names[:-3]
    apart = True

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where there is nothing to tell apart, or nothing that shows what two images of one thing share."""
        if raw.columns > 1:
            raise DataError(
                f"data.target names {raw.columns} columns, but an identity is one name.", "Name one column."
            )
        read = [_named(cell) for cell in raw.column.to_pylist()]
        numbers = all(_is_number(name) for name in read if not isinstance(name, Reason))
        read = [_without_nan(name) for name in read] if numbers else read
        counts = Counter(name for name in read if not isinstance(name, Reason))
        if not counts:
            reason, count = Counter(map(str, read)).most_common(1)[0]
            raise DataError(
                f"No row of {raw.name} names an identity; the commonest reason is: {reason} ({count:,} of "
                f"{len(read):,}).",
                "data.target names the column of identities.",
            )
        if len(counts) < 2:
            raise DataError(
                f"The rows of {raw.name} have only the identity {next(iter(counts))!r}.",
                "At least two are needed to tell apart; data.target names the column of identities.",
            )
        if max(counts.values()) < 2:
            raise DataError(
                f"Each of the {len(counts):,} identities of {raw.name} has one image: nothing shows what two images of "
                "one thing look like.",
                "Give more images of them, or set data.target to the column of identities.",
            )
        return Settled(PROBLEM, (), {"numbers": numbers})

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """`identities`: by split, how many there are, how many images they have, and how many have a single one.

        Raises:
            DataError: training is left with one identity.
        """
        counts = {split: Counter(rows.column("target").to_pylist()) for split, rows in tables.items()}
        if len(counts["train"]) < 2:
            raise DataError(
                f"The train split is left with the identity {next(iter(counts['train']))!r} alone, so that there is "
                "nothing to tell it from.",
                "Give more identities, or bring the splits yourself.",
            )
        found = {split: _counted(one) for split, one in counts.items()}
        return {"identities": found}, [*_too_few(found), *_shared(counts)]

    def reading(self, place: Place, settled: Settled) -> Reading:
        numbers = settled.coding["numbers"]

        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            for cell in rows.column("raw").to_pylist():
                yield _without_nan(_named(cell)) if numbers else _named(cell)

        return Reading(KIND, values)


def _named(cell: str | None) -> str | Reason:
    """The name in a cell, its letters composed: folders of some systems and tables spell one "é" differently."""
    name = unicodedata.normalize("NFC", cell or "").strip()
    if not name:
        return NONE
    return Reason("a list, where one identity is needed") if _of_parts(name) else name


def _without_nan(name: str | Reason) -> str | Reason:
    """ "nan" among numbers is what a table writes for an empty cell; among words it is a name."""
    return NONE if name.lower() == "nan" else name


def _of_parts(name: str) -> bool:
    if name[0] + name[-1] not in ("[]", "{}"):
        return False
    try:
        return isinstance(json.loads(name), list | dict)
    except (ValueError, RecursionError):
        return False


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _counted(counts: Mapping[str, int]) -> dict[str, Any]:
    """What one split has of identities, from how many images each has."""
    images = np.array(list(counts.values()))
    least, median, most = map(float, np.quantile(images, [0, 0.5, 1]))
    return {
        "identities": len(counts),
        "images": {"min": least, "median": median, "max": most},
        "single": int((images == 1).sum()),
    }


def _too_few(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each split that has too little of something."""
    told = []
    for split, one in found.items():
        if split == "train":
            if one["single"] > MOST_SINGLE * one["identities"]:
                told.append(
                    f"train: {one['single']:,} of {one['identities']:,} identities have a single image, which does not "
                    "show what two images of one thing share."
                )
        elif one["identities"] < 2:
            told.append(f"{split}: all images are of one identity, so that there is nothing to tell it from.")
        elif one["single"] == one["identities"]:
            told.append(f"{split}: no identity has two images, so that there is nothing to find.")
    return told


def _shared(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for each two splits that have identities in common, as only those can that are brought."""
    told = []
    for earlier, later in itertools.combinations(counts, 2):
        if both := len(counts[later].keys() & counts[earlier].keys()):
            told.append(
                f"{later}: {both:,} of {len(counts[later]):,} identities stand{'s' if both == 1 else ''} in {earlier} "
                f"too, so that {SHARED[earlier]}."
            )
    return told
