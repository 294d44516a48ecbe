"""What the splits have of entities, as the audit tells it, and what is worth a warning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.targets import classes_in
from tunesmith.errors import DataError

MOST_WITHOUT = 0.9
"""A larger share of texts without an entity is worth a warning."""
MOST_REPAIRED = 0.5
"""A larger share of repaired ones looks like spans that count something else than characters."""

SHOWN = 5
"""Types that a sentence names."""


def described(tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The section `entities`, by split, and warnings.

    What test has of forms, the words of an entity as they stand there, is compared with train, unless each word of train is
    an object by itself, as one with a tag is.

    Raises:
        DataError: training is left with no entity, or another split with no tag that training has.
    """
    found = {split: _counted(rows, labels) for split, rows in tables.items()}
    if not found["train"]["objects"]:
        raise DataError(
            "The train split is left without an entity.", "Give more texts with entities, or bring the splits yourself."
        )
    if lost := next(
        (split for split, one in found.items() if sum(one["unknown_types"].values()) == one["words"]), None
    ):
        raise DataError(
            f"No word of the {lost} split has a tag that a training text has.",
            "Check that both have the same set of tags.",
        )
    if found["train"]["objects"] != found["train"]["words"]:
        forms, known = _forms(tables["test"]), _forms(tables["train"])
        found["test"] |= {
            "forms": len(forms),
            "forms_in_train": len(forms & known),
            "unseen": len(forms - known) / len(forms) if forms else 0.0,
        }
    warnings = [warning for split, one in found.items() for warning in _warnings(split, one)]
    return {"entities": found}, warnings


def _counted(rows: pa.Table, labels: Sequence[str]) -> dict[str, Any]:
    """What one split has."""
    target = rows.column("target")
    objects = classes_in(target)
    unknown = pc.struct_field(target, "unknown")
    counts = pc.list_value_length(objects).to_numpy() + pc.list_value_length(unknown).to_numpy()
    by_class = np.bincount(pc.list_flatten(objects).to_numpy(), minlength=len(labels))
    set_aside = pc.list_flatten(pc.struct_field(target, "set_aside"))
    return {
        "rows": rows.num_rows,
        "words": pc.sum(pc.list_value_length(rows.column("words"))).as_py() // 2,
        "objects": int(counts.sum()),
        "without": int((counts == 0).sum()),
        "repaired": pc.sum(pc.struct_field(target, "repaired")).as_py(),
        "set_aside": dict(Counter(set_aside.to_pylist()).most_common()),
        "classes": {label: int(count) for label, count in zip(labels, by_class, strict=True)},
        "unknown_types": unknown_types(target),
    }


def unknown_types(target: pa.ChunkedArray) -> dict[str, int]:
    """How often which type occurs that no training text has, the commonest first."""
    unknown = pc.list_flatten(pc.struct_field(target, "unknown"))
    return dict(Counter(pc.struct_field(unknown, "label").to_pylist()).most_common())


def unknown_told(types: Mapping[str, int], *, whole: bool) -> str:
    """What `unknown_types` means, as a sentence.

    Args:
        whole: whether each word has a tag.
    """
    count = sum(types.values())
    shown = ", ".join(f"{name}: {times:,}" for name, times in list(types.items())[:SHOWN])
    what, answered = ("word", "wrong") if whole else ("entity", "missed")
    if count == 1:
        said = f"1 {what} {'has a tag' if whole else 'is of a type'}"
    else:
        said = f"{count:,} words have tags" if whole else f"{count:,} entities are of types"
    return (
        f"{said} that no training text has ({shown}{', …' if len(types) > SHOWN else ''}), and "
        f"{'counts' if count == 1 else 'count'} as {answered}."
    )


def _forms(rows: pa.Table) -> set[str]:
    """The entities of a split as their texts have them."""
    columns = (rows.column(name).to_pylist() for name in ("input", "words", "target"))
    return {
        text[words[2 * first] : words[2 * last - 1]]
        for text, words, target in zip(*columns, strict=True)
        for first, last in zip(target["first"], target["last"], strict=True)
    }


def _warnings(split: str, counted: Mapping[str, Any]) -> list[str]:
    """What was changed in a split, and what it has too little of, as sentences."""
    told = []
    repaired, set_aside = counted["repaired"], sum(counted["set_aside"].values())
    if repaired:
        one = repaired == 1
        many = repaired > MOST_REPAIRED * counted["objects"]
        told.append(
            f"{split}: {repaired:,} tag{'' if one else 's'} or span{'' if one else 's'} did not fit and "
            f"{'was' if one else 'were'} repaired: tags to those of their scheme, spans to whole words."
            + " Do spans count characters of the text, from 0, with the end exclusive?"
            * many
        )
    if set_aside:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in counted["set_aside"].items())
        one = set_aside == 1
        told.append(f"{split}: {set_aside:,} span{' was' if one else 's were'} set aside ({reasons}).")
    if unknown := counted["unknown_types"]:
        told.append(f"{split}: {unknown_told(unknown, whole=counted['objects'] == counted['words'])}")
    if counted["without"] > MOST_WITHOUT * counted["rows"]:
        told.append(f"{split}: {counted['without']:,} of {counted['rows']:,} texts have no entity.")
    return told
