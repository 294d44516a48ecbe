"""JSON lines: one object a line; a line that is none is rejected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tunesmith.data.readers import Record, Source
from tunesmith.data.readers.delimited import broken, encoding_of
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.errors import DataError
from tunesmith.run import path_of

SEEN_FOR_COLUMNS = 100


def read(where: str, encoding: str) -> dict[str, Source]:
    """The objects; columns are the keys of the first hundred."""
    path = path_of(where)
    columns: dict[str, None] = {}
    for _, found in zip(range(SEEN_FOR_COLUMNS), _objects(path, encoding), strict=False):
        if isinstance(found, tuple):
            columns |= dict.fromkeys(found[1])
    if not columns:
        raise DataError(f"{where} holds no JSON objects, one a line.", "A .json file may hold one array of objects.")
    names = list(columns)

    def records() -> Iterator[Record | Rejected]:
        for found in _objects(path, encoding):
            if isinstance(found, Rejected):
                yield found
            else:
                yield found[0], [found[1].get(name) for name in names]

    return {"train": Source(where, names, records())}


def _objects(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, object]] | Rejected]:
    name, skip = encoding_of(path, encoding)
    with open(path, encoding=name, errors="tunesmith.mark", newline="\n") as handle:
        if skip:
            handle.read(1)
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            if broken(line):
                yield Rejected("", number, f"broken encoding: not {name}", excerpt(line))
                continue
            try:  # a number of thousands of digits is a plain ValueError
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Rejected("", number, f"not valid JSON: {error}", excerpt(line))
                continue
            if isinstance(value, dict):
                yield number, value
            else:
                yield Rejected("", number, "not a JSON object", excerpt(line))
