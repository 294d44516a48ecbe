"""Pairs of translations as `datasets` has them, {"de": …, "en": …} in one column, as columns named by their languages."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tunesmith.data.readers import Record, Source
from tunesmith.data.rejected import Rejected
from tunesmith.data.written import parts_in

COLUMN = "translation"
SEEN = 100
"""Rows that are looked at for the languages."""


def unfolded(source: Source) -> Source:
    """`source` with a column a language in place of the column `translation`, where its cells hold languages by name."""
    place = next((at for at, name in enumerate(source.columns) if str(name).strip() == COLUMN), None)
    if place is None:
        return source
    seen = list(itertools.islice(source.records, SEEN))
    pairs = [_pair(record[1][place]) for record in seen if not isinstance(record, Rejected)]
    languages = list(dict.fromkeys(str(code) for pair in pairs for code in pair))
    records = itertools.chain(seen, source.records)
    if not languages:
        return replace(source, records=records)
    columns = [*source.columns[:place], *languages, *source.columns[place + 1 :]]

    def rows() -> Iterator[Record | Rejected]:
        for record in records:
            if isinstance(record, Rejected):
                yield record
                continue
            line, cells = record
            pair = _pair(cells[place])
            yield line, [*cells[:place], *(pair.get(code) for code in languages), *cells[place + 1 :]]

    return replace(source, columns=columns, records=rows())


def _pair(cell: Any) -> Mapping[str, Any]:
    """Text by language; nothing where the cell holds no such thing."""
    found = parts_in(cell) if isinstance(cell, str) else cell
    return found if isinstance(found, Mapping) else {}
