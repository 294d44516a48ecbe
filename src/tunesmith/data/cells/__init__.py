"""What one input is: text, an image, … Everything about reading data that depends on it; one file a kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.settings import DataSettings

Indices = npt.NDArray[np.int64]


class Unusable(NamedTuple):
    """Why the cells of a row cannot be used."""

    column: int
    """Which of the input columns is at fault."""
    reason: str
    shown: str = ""
    """What stands there, for people."""


@dataclass(frozen=True)
class Place:
    """Where the cells of a source come from, and where what they hold may be kept."""

    folder: Path
    """Relative paths start here."""
    kept: Path
    """A folder for files that a table holds inside it."""
    settings: DataSettings


class Cells(Protocol):
    """One kind of input."""

    noun: str
    """What messages call one input."""
    least: int
    """Columns that one row must have, and"""
    most: int
    """may have."""
    names: Sequence[str]
    """Names that a column of inputs goes by."""
    preferred: Sequence[str]
    """Those of them that win where several are there, best first."""
    pairs: Sequence[tuple[str, ...]]
    """Names that several columns of inputs go by together, those first that are looked for first."""
    optional: int
    """Of several columns, how many of the last an input that is given by itself may lack."""
    listed: bool
    """Whether one input may itself be a list."""
    workers: int
    """Threads that read cells side by side."""
    readers: Mapping[str, str]
    """Kinds of source that are read otherwise than for other inputs, as readers.TABLE names them."""
    together: int
    """How many inputs are predicted at once, so that they fit into memory."""

    def fields(self, columns: int) -> list[tuple[str, pa.DataType]]:
        """The canonical columns, `input` first, that so many columns of the source become."""
        ...

    def read(self, cells: Sequence[Any], row: str, place: Place) -> tuple[Any, ...] | Unusable:
        """The values of `fields`.

        Args:
            cells: of the input columns.
            row: "split:line", the name that no other row has.
        """
        ...

    def clusters(self, tables: list[pa.Table], threshold: float) -> tuple[Indices, Indices]:
        """Which rows are the same, and which nearly (those among them): two arrays, (rows of all tables,) each.

        Args:
            threshold: data.near_duplicate.
        """
        ...

    def shared(self, rows: pa.Table) -> Indices | None:
        """(rows,) what of its input each row has in common with others, which splits are best cut by; None for nothing."""
        ...

    def described(self, tables: dict[str, pa.Table]) -> tuple[dict[str, Any], list[str]]:
        """Sections of the audit on the inputs of each split, and warnings."""
        ...

    def expanded(self, inputs: Sequence[str]) -> list[str]:
        """What the command line gives as inputs, one entry an input."""
        ...

    def named(self, row: str, shown: str) -> str:
        """The id of an input that was given by itself: its position `row`, or what it is called."""
        ...
