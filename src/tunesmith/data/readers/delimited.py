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
from tunesmith.run import path_of

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_BROKEN = "\udcff"
# Surrogateescape cannot stand in for UTF-16, so bytes that do not decode become a mark of our own, in any encoding.
codecs.register_error("tunesmith.mark", lambda error: (_BROKEN, error.end))  # type: ignore[attr-defined]
MANY_LINES = 20
"""A bad row that runs over more lines than this has probably swallowed its neighbours."""


def read_csv(where: str, encoding: str) -> dict[str, Source]:
    """Cells parted by commas."""
    return {"train": _read(path_of(where), where, encoding, ",")}


def read_tsv(where: str, encoding: str) -> dict[str, Source]:
    """Cells parted by tabs."""
    return {"train": _read(path_of(where), where, encoding, "\t")}


def encoding_of(path: Path, encoding: str) -> tuple[str, int]:
    """The encoding that a byte order mark names, or `encoding`; and how many bytes to skip."""
    with open(path, "rb") as handle:
        start = handle.read(4)
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name, len(mark)
    try:
        " ".encode(encoding)
    except LookupError:
        raise DataError(f"data.encoding is {encoding!r}, which is no known text encoding.", "Use utf-8.") from None
    return encoding, 0


def broken(text: str) -> bool:
    """Whether `text` holds bytes that did not decode; they were read as a mark."""
    return _BROKEN in text


def _read(path: Path, where: str, encoding: str, delimiter: str) -> Source:
    csv.field_size_limit(sys.maxsize)
    name, skip = encoding_of(path, encoding)

    def open_lines() -> TextIO:
        handle = open(path, encoding=name, errors="tunesmith.mark", newline="")  # noqa: SIM115
        if skip:
            handle.read(1)
        return handle

    with open_lines() as start:
        header = _header(start, delimiter, where)

    def records() -> Iterator[Record | Rejected]:
        with open_lines() as handle:
            lines = csv.reader(handle, delimiter=delimiter)
            next(lines)
            line = 1
            while True:
                before, line = line, lines.line_num + 1
                try:
                    cells = next(lines)
                except StopIteration:
                    if line > before + 1:
                        with open_lines() as again:
                            _refuse_open_quote(again, before, line - 1, delimiter, where)
                    return
                except csv.Error as error:
                    yield Rejected("", line, f"not valid CSV: {error}")
                    continue
                if not cells:
                    continue
                if len(cells) != len(header):
                    shown = excerpt(delimiter.join(cells))
                    reason = f"wrong column count: {len(cells)} instead of {len(header)}"
                    if lines.line_num - line >= MANY_LINES:
                        reason += f", over {lines.line_num - line + 1:,} lines: a quotation mark may be open"
                    yield Rejected("", line, reason, shown)
                elif any(map(broken, cells)):
                    yield Rejected("", line, f"broken encoding: not {name}", excerpt(delimiter.join(cells)))
                else:
                    yield line, cells

    return Source(where, header, records())


def _refuse_open_quote(handle: TextIO, first: int, last: int, delimiter: str, where: str) -> None:
    """Raise DataError when the row in lines `first` to `last`, the end of the file, only ended because the file did."""
    for _ in range(first - 1):
        next(handle)
    try:
        next(csv.reader(handle, delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise DataError(
                f"{where}: a quotation mark opened in line {first} is never closed, "
                f"so lines {first} to {last} would be read as one row.",
                'Close it, or double it ("") where it belongs to the text.',
            ) from None


def _header(start: TextIO, delimiter: str, where: str) -> list[str]:
    try:
        header = next(csv.reader(start, delimiter=delimiter))
    except (StopIteration, csv.Error, UnicodeError):
        header = []
    if not any(cell.strip() for cell in header):
        raise DataError(f"{where} has no header.", "Its first line should name the columns.")
    return header
