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
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data.cells import Place
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.errors import DataError

Indices = npt.NDArray[np.int64]
KIND = pa.string()
PROBLEM = "identity"
NONE = Reason("no identity")
MOST_SINGLE = 0.1
"""A larger share of training identities with one image is worth a word."""
FEWEST = 10
"""Fewer identities in the test split than these say little about others."""
LEAST_ASKING = 0.5
"""So is a smaller share of images that have another one of their identity."""
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
    several = False
    apart = True

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where there is nothing to tell apart, or nothing that shows what two images of one thing share."""
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
            DataError: training is left with one identity, or another split with nothing that could be found or confused.
        """
        counts = {split: Counter(rows.column("target").to_pylist()) for split, rows in tables.items()}
        if len(counts["train"]) < 2:
            raise DataError(
                f"The train split is left with the identity {next(iter(counts['train']))!r} alone, so that there is "
                "nothing to tell it from.",
                "Give more identities, or bring the splits yourself.",
            )
        images = {split: np.array(list(one.values())) for split, one in counts.items()}
        notes = _single(images["train"])
        for split in ("validation", "test"):
            insist_measurable(f"The {split} split", images[split])
            notes += doubts(split, images[split])
        return {"identities": {split: _counted(one) for split, one in images.items()}}, [*notes, *_shared(counts)]

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


def insist_measurable(where: str, images: Indices) -> None:
    """Insist that images can be asked for others of their identity, and that the answer can be wrong.

    Args:
        images: (identities,) how many each has.

    Raises:
        DataError: there is one identity, or none has two images.
    """
    why = (
        "has images of one identity only, so that there is nothing to tell it from"
        if len(images) < 2
        else "has no identity with two images, so that there is nothing to find"
        if images.max() < 2
        else None
    )
    if why:
        raise DataError(f"{where} {why}.", "Give at least two identities, with two images or more.")


def doubts(split: str, images: Indices) -> list[str]:
    """Sentences on what makes figures on a split worth little.

    Args:
        images: (identities,) how many each has.
    """
    told = []
    if split == "test" and len(images) < FEWEST:
        told.append(f"{split}: figures on {len(images):,} identities say little about others.")
    asking, total = int(images[images > 1].sum()), int(images.sum())
    if asking < LEAST_ASKING * total:
        told.append(
            f"{split}: figures are about {asking:,} of {total:,} images, as the others are the only ones of their identity."
        )
    return told


def _counted(images: Indices) -> dict[str, Any]:
    """What one split has of identities, from how many images each has."""
    least, median, most = map(float, np.quantile(images, [0, 0.5, 1]))
    return {
        "identities": len(images),
        "images": {"min": least, "median": median, "max": most},
        "single": int((images == 1).sum()),
    }


def _single(images: Indices) -> list[str]:
    """A sentence where many of the training identities have one image each."""
    single = int((images == 1).sum())
    if single <= MOST_SINGLE * len(images):
        return []
    return [
        f"train: {single:,} of {len(images):,} identities have a single image, which does not show what two images of one "
        "thing share."
    ]


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
