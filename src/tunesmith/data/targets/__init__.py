"""What one target is: a class, a mask, boxes, a name, …; all about reading data that depends on it; one file a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.cells import Place


class Reason(str):
    """Why a cell has no usable target."""


@dataclass(frozen=True)
class Raw:
    """The target cells of one split, not yet read."""

    column: pa.ChunkedArray
    """Strings."""
    columns: tuple[str, ...]
    """The columns of the source that each stands for."""
    place: Place
    name: str
    """What messages call the source."""


class Settled(NamedTuple):
    """What the training cells show of all targets."""

    problem: str
    """The kind of target."""
    labels: tuple[str, ...]
    """Class names by index; empty for scores."""
    coding: Mapping[str, Any] = {}
    """What else is needed to read cells as these were read, as JSON holds it."""
    guesses: tuple[str, ...] = ()
    """What was guessed, from what, in sentences."""
    notes: tuple[str, ...] = ()
    """What is worth a warning."""


class Reading(NamedTuple):
    """How cells become values."""

    kind: pa.DataType
    """Of the values. A target of parts has the part `classes`: the indices of the classes that occur in it; of objects
    one each."""
    values: Callable[[pa.RecordBatch], Iterator[Any]]
    """From canonical rows, with the column `raw`, to a value or a Reason for each."""


def classes_in(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What a column of targets says of classes: the column itself, or the part `classes` where targets have parts."""
    return pc.struct_field(column, "classes") if pa.types.is_struct(column.type) else column


def voted(rows: pa.Table) -> bool:
    """Whether neighbours can vote on the targets of `rows`: classes, labels and scores, but neither parts nor names of things
    that others than these never have."""
    kind = rows.schema.field("target").type
    return not pa.types.is_struct(kind) and not pa.types.is_string(kind)


class Targets(Protocol):
    """One kind of target."""

    names: Sequence[str]
    """Names that a column of targets goes by."""
    preferred: Sequence[str]
    """Those of them that win where several are there, best first."""
    several: bool
    """Whether columns of 0 and 1 may together stand for one target."""
    apart: bool
    """Whether rows of one target belong together, so that splits part them by it; such targets are strings."""

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """What the training cells show.

        Args:
            brought: the kind of target, where the form of the source says so.

        Raises:
            DataError: nothing can be learned from them.
        """
        ...

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Sections of the audit on the targets of each split, beside how many rows have which class, and warnings.

        Raises:
            DataError: nothing can be learned from what a split is left with.
        """
        ...

    def reading(self, place: Place, settled: Settled) -> Reading:
        """How the cells of any split are read, once that is settled."""
        ...
