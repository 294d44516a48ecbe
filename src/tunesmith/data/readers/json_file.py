"""JSON: an array of objects, one object that holds such an array under some key, or the forms of COCO and of SQuAD."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tunesmith.data.readers import Record, Source, coco_file, squad_file
from tunesmith.data.readers.delimited import encoding_of
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.errors import DataError
from tunesmith.run import path_of


def read(where: str, encoding: str) -> dict[str, Source]:
    """The objects of the array; raises DataError where there is none."""
    value = value_of(where, encoding)
    if coco_file.holds_images(value):
        return {"train": coco_file.source(value, where, path_of(where).parent)}
    if squad_file.holds_questions(value):
        return {"train": squad_file.source(value, where, path_of(where).parent)}
    rows = _rows(value)
    if not rows:
        raise DataError(f"{where} holds no array of objects.", 'Expected: [{"text": …, "label": …}, …].')
    columns = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))

    def records() -> Iterator[Record | Rejected]:
        for number, row in enumerate(rows, 1):
            if isinstance(row, dict):
                yield number, [row.get(column) for column in columns]
            else:
                yield Rejected("", number, "not a JSON object", excerpt(row))

    return {"train": Source(where, columns, records())}


def value_of(where: str, encoding: str) -> Any:
    """What the file holds; raises DataError where it is no JSON."""
    path = path_of(where)
    name, skip = encoding_of(path, encoding)
    try:
        return json.loads(path.read_bytes()[skip:].decode(name))
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not {name}: byte {error.start:,} does not decode.", "Set data.encoding.") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise DataError(
            f"{where} is not valid JSON: {error}.", "One object a line belongs into a .jsonl file."
        ) from None


def _rows(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        arrays = [inner for inner in value.values() if isinstance(inner, list) and inner and isinstance(inner[0], dict)]
        if len(arrays) == 1:
            return arrays[0]
    return []
