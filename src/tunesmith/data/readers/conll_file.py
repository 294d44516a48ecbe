"""CoNLL's form: a line a token, with its tag last and perhaps other columns between; an empty line ends a sentence.

Read line by line, so that any size of file will do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tunesmith.data.readers import Record, Source
from tunesmith.data.readers.delimited import broken, encoding_of
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.errors import DataError
from tunesmith.run import path_of

SEEN_FOR_COLUMNS = 1000
DOCUMENT = "-DOCSTART-"
"""The token of lines that part documents."""
_BLANKS = re.compile("[ \t]+")


class Line(NamedTuple):
    """One line of a file."""

    number: int
    text: str
    """Without what blanks end it; empty between sentences."""


class Form(NamedTuple):
    """How the lines of a file are made."""

    tabs: bool
    """Whether TABs part columns, so that a token may hold blanks."""
    width: int

    def columns(self, line: str) -> list[str]:
        return line.split("\t") if self.tabs else _BLANKS.split(line.strip(" \t"))


def read(where: str, encoding: str) -> dict[str, Source]:
    """A row a sentence, a list a column: `tokens`, those between as `column_2`, `column_3`, …, `tags`.

    Where lines hold a token alone, there are no tags. The number of a row is the line of its first token.

    Raises:
        DataError: there is no token.
    """
    path = path_of(where)
    form = form_of(text for _, text in lines(path, encoding))
    if form is None:
        raise DataError(
            f"{where} holds no sentence.", "Expected: a token and its tag a line, and an empty line between."
        )
    names = ["tokens", *(f"column_{place}" for place in range(2, form.width)), "tags"][: form.width]
    return {"train": Source(where, names, _sentences(path, encoding, form))}


def form_of(every: Iterable[str]) -> Form | None:
    """As most of the first lines with a token are; None where there is no token."""
    seen = list(islice(filter(has_token, every), SEEN_FOR_COLUMNS))
    if not seen:
        return None
    tabs = 2 * sum("\t" in line for line in seen) > len(seen)
    widths = Counter(len(Form(tabs, 0).columns(line)) for line in seen)
    return Form(tabs, widths.most_common(1)[0][0])


def has_token(line: str) -> bool:
    """Whether a line is neither empty, nor a comment, nor between documents."""
    return bool(line) and not line.startswith(("#", DOCUMENT))


def lines(path: Path, encoding: str) -> Iterator[Line]:
    """All lines, and one that is empty at the end."""
    name, skip = encoding_of(path, encoding)
    number = 0
    with open(path, encoding=name, errors="tunesmith.mark") as handle:
        if skip:
            handle.read(1)
        for number, line in enumerate(handle, 1):
            yield Line(number, line.rstrip())
    yield Line(number + 1, "")


def _sentences(path: Path, encoding: str, form: Form) -> Iterator[Record | Rejected]:
    name, _ = encoding_of(path, encoding)
    tags = {"O"}
    first, tokens = 0, list[list[str]]()
    wrong: Rejected | None = None
    for number, line in lines(path, encoding):
        columns = form.columns(line)
        if not line or columns[0] == DOCUMENT:
            if wrong or tokens:
                yield wrong or (first, [list(column) for column in zip(*tokens, strict=True)])
            tokens, wrong = [], None
        elif not tokens and not wrong and _is_comment(line, columns, form, tags):
            continue
        elif broken(line):
            wrong = wrong or Rejected("", number, f"broken encoding: not {name}", excerpt(line))
        elif len(columns) != form.width:
            reason = f"wrong column count: {len(columns)} instead of {form.width}"
            wrong = wrong or Rejected("", number, reason, excerpt(line))
        else:
            first = first if tokens else number
            tokens.append(columns)
            tags.add(columns[-1])


def _is_comment(line: str, columns: list[str], form: Form, tags: set[str]) -> bool:
    """Whether a line before a sentence's first token is one; the token # stands with a tag, as others do."""
    if len(columns) == form.width and columns[-1] in tags:
        return False
    return line.startswith("# ") or (form.tabs and line.startswith("#") and "\t" not in line)
