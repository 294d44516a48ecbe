"""What a cell says of the words of a text, in the forms that data sets are spelled in: a tag for each word, or spans of
characters. Knows neither the text nor the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith.data.targets import Reason
from tunesmith.data.written import parts_in

STARTS = ("start", "start_offset", "start_char", "begin")
ENDS = ("end", "end_offset", "end_char")
NAMES = ("label", "labels", "entity", "entity_group", "entity_type", "type", "tag")
"""Keys of a span's first character, of the one after its last, and of its class, best first."""
HOLDERS = ("entities", "spans")
"""Keys of a mapping that holds the spans of a text, as spaCy's do."""


class Tags(tuple[str, ...]):
    """One a word; whole numbers as text."""

    __slots__ = ()


class Span(NamedTuple):
    """One entity, as the cell says it."""

    start: int
    """Its first character."""
    end: int
    """The one after its last."""
    name: str


class Spans(tuple[Span, ...]):
    """Any number; an empty list may be no tags as well."""

    __slots__ = ()


class _Wrong(Exception):
    """The cell cannot be read; the message is the reason, for people."""


def marks_of(cell: str | None) -> Tags | Spans | Reason:
    """The tags or spans in a cell, in one of these forms, or why there are none:

    - a tag a word: `["B-PER", "I-PER", "O"]` or `[1, 2, 0]`
    - spans as mappings: `[{"start": 0, "end": 9, "label": "PER"}]`, with other names of the three keys too, with the label
      alone in a list, and with all that under `value`
    - spans as triples: `[[0, 9, "PER"]]`
    - lists side by side: `{"start": [0], "end": [9], "label": ["PER"]}`
    - any of those spans under one key: `{"entities": [[0, 9, "PER"]]}`

    The whole as JSON, or as Python writes it.
    """
    if cell is None or not cell.strip():
        return Reason("no tags or spans")
    try:
        return _read(parts_in(cell))
    except _Wrong as wrong:
        return Reason(str(wrong))


def _read(found: Any) -> Tags | Spans:
    if isinstance(found, dict):
        if any(value is not None for value in found.values()):
            found = _held(found)
        else:  # what a table makes of an empty cell
            raise _Wrong("no tags or spans")
    if not isinstance(found, list):
        raise _Wrong("neither a list of tags nor one of spans")
    if any(isinstance(one, dict | list | tuple) for one in found):
        return Spans(map(_span, found))
    return Tags(_name(one, "tag") for one in found) if found else Spans()


def _held(found: Mapping[str, Any]) -> Any:
    """The spans of a mapping."""
    if key := next((key for key in HOLDERS if isinstance(found.get(key), list | dict)), None):
        return _held(found[key]) if isinstance(found[key], dict) else found[key]
    keys = [_key(found, names) for names in (STARTS, ENDS, NAMES)]
    lists = [found[key] for key in keys if key is not None]
    if len(lists) < 3 or not all(isinstance(one, list) for one in lists):
        return None
    if len(set(map(len, lists))) > 1:
        raise _Wrong(f"lists of {', '.join(f'{len(one):,}' for one in lists)} starts, ends and labels side by side")
    return [list(one) for one in zip(*lists, strict=True)]


def _key(one: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if one.get(name) is not None), None)


def _span(one: Any) -> Span:
    if isinstance(one, dict):
        one = one["value"] if isinstance(one.get("value"), dict) else one
        keys = [_key(one, names) for names in (STARTS, ENDS, NAMES)]
        for key, what in zip(keys, ("start", "end", "label"), strict=True):
            if key is None:
                raise _Wrong(f"span without {'an' if what == 'end' else 'a'} {what}")
        one = [one[key] for key in keys if key is not None]
    if not isinstance(one, list | tuple) or len(one) != 3:
        raise _Wrong("span that is not of a start, an end and a label")
    start, end, name = one
    if isinstance(name, list):
        if len(name) != 1:
            raise _Wrong(f"span with {len(name)} labels, where one is needed")
        (name,) = name
    return Span(_place(start), _place(end), _name(name, "label"))


def _place(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Wrong("span whose start or end is no whole number")
    return value


def _name(value: Any, what: str) -> str:
    """A tag or a label; a whole number as text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise _Wrong(f"{what} that is neither a name nor a whole number")
    name = "" if value is None else str(value).strip()
    if not name:
        raise _Wrong(f"empty {what}")
    if any("\ud800" <= sign <= "\udfff" for sign in name):
        raise _Wrong(f"{what} of broken encoding")
    return name
