"""Plain text: a file without columns, read in passages, as its lines stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.data.readers import Record, Source
from tunesmith.data.readers.delimited import broken, encoding_of
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.run import path_of

COLUMNS = ["text"]
PASSAGE = 2_000
"""Characters after which a passage ends with its line: some 500 tokens, so that most have something before them."""


def read(where: str, encoding: str) -> dict[str, Source]:
    """One column, `text`: passages of whole lines; the number of a passage is that of its first line."""
    return {"train": Source(where, COLUMNS, _passages(path_of(where), encoding))}


def lines(where: str, encoding: str) -> list[str]:
    """The lines without their ends, empty ones too; one that does not decode is `broken`."""
    return [line.removesuffix("\n") for line in _lines(path_of(where), encoding)]


def _lines(path: Path, encoding: str) -> Iterator[str]:
    name, skip = encoding_of(path, encoding)
    with open(path, encoding=name, errors="tunesmith.mark") as handle:
        if skip:
            handle.read(1)
        yield from handle


def _passages(path: Path, encoding: str) -> Iterator[Record | Rejected]:
    name, _ = encoding_of(path, encoding)
    held: list[str] = []
    first = size = 0
    for number, line in enumerate(_lines(path, encoding), 1):
        if broken(line):
            yield Rejected("", number, f"broken encoding: not {name}", excerpt(line))
            continue
        if not held and not line.strip():
            continue
        first = first if held else number
        held.append(line)
        size += len(line)
        if size >= PASSAGE:
            yield first, ["".join(held).rstrip()]
            held, size = [], 0
    if held:
        yield first, ["".join(held).rstrip()]
