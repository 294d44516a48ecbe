"""CSV and TSV: read line by line, so that one broken row is one rejected row and any size of file will do."""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tunesmith.data.readers import Record, Source
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.errors import DataError

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_BROKEN = "\udc80", "\udcff"


def read_csv(where: str, encoding: str) -> dict[str, Source]:
    """Cells parted by commas."""
    return {"train": _read(Path(where).expanduser(), where, encoding, ",")}


def read_tsv(where: str, encoding: str) -> dict[str, Source]:
    """Cells parted by tabs."""
    return {"train": _read(Path(where).expanduser(), where, encoding, "\t")}


def encoding_of(path: Path, encoding: str) -> tuple[str, int]:
    """The encoding that a byte order mark names, or `encoding`; and how many bytes to skip."""
    with open(path, "rb") as handle:
        start = handle.read(4)
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name, len(mark)
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise DataError(f"data.encoding is {encoding!r}, which is no known encoding.", "Use utf-8.") from None
    return encoding, 0


def broken(text: str) -> bool:
    """Whether `text` holds bytes that did not decode; they were read as lone surrogates."""
    return not text.isascii() and any(_BROKEN[0] <= sign <= _BROKEN[1] for sign in text)


def _read(path: Path, where: str, encoding: str, delimiter: str) -> Source:
    csv.field_size_limit(sys.maxsize)
    name, skip = encoding_of(path, encoding)

    def open_lines() -> TextIO:
        # Bytes that do not decode become lone surrogates, so that the row they stand in can be told and set aside.
        handle = open(path, encoding=name, errors="surrogateescape", newline="")  # noqa: SIM115
        if skip:
            handle.read(1)
        return handle

    with open_lines() as start:
        header = _header(start, delimiter, where)

    def records() -> Iterator[Record | Rejected]:
        with open_lines() as handle:
            lines = csv.reader(handle, delimiter=delimiter)
            next(lines)
            while True:
                line = lines.line_num + 1
                try:
                    cells = next(lines)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Rejected("", line, f"not valid CSV: {error}")
                    continue
                if not cells:
                    continue
                if len(cells) != len(header):
                    shown = excerpt(delimiter.join(cells))
                    yield Rejected("", line, f"wrong column count: {len(cells)} instead of {len(header)}", shown)
                elif any(map(broken, cells)):
                    yield Rejected("", line, f"broken encoding: not {name}", excerpt(delimiter.join(cells)))
                else:
                    yield line, cells

    return Source(where, header, records())


def _header(start: TextIO, delimiter: str, where: str) -> list[str]:
    try:
        header = next(csv.reader(start, delimiter=delimiter))
    except (StopIteration, csv.Error, UnicodeError):
        header = []
    if not any(cell.strip() for cell in header):
        raise DataError(f"{where} has no header.", "Its first line should name the columns.")
    return header
