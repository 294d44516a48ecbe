"""Plain text: a file without columns, read in passages, as its lines stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tunesmith.data.readers import Record, Source
from tunesmith.data.readers.delimited import broken, encoding_of
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.run import path_of

PASSAGE = 2_000
"""Characters after which a passage ends with its line: some 500 tokens, so that most have something before them."""


def read(where: str, encoding: str) -> dict[str, Source]:
    """One column, `text`: passages of whole lines; the number of a passage is that of its first line."""
    return {"train": Source(where, ["text"], _passages(path_of(where), encoding))}


def _passages(path: Path, encoding: str) -> Iterator[Record | Rejected]:
    name, skip = encoding_of(path, encoding)
    lines: list[str] = []
    first = size = 0
    with open(path, encoding=name, errors="tunesmith.mark") as handle:
        if skip:
            handle.read(1)
        for number, line in enumerate(handle, 1):
            if broken(line):
                yield Rejected("", number, f"broken encoding: not {name}", excerpt(line))
                continue
            if not lines and not line.strip():
                continue
            first = first if lines else number
            lines.append(line)
            size += len(line)
            if size >= PASSAGE:
                yield first, ["".join(lines).strip()]
                lines, size = [], 0
    if lines:
        yield first, ["".join(lines).strip()]
