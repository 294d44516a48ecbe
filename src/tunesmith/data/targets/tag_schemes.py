"""Entities that tags of words spell, in the schemes that data sets use.

A tag is O outside of entities; others are a letter and the type of the entity: B or I in IOB2 (Tjong Kim Sang & Veenstra
1999), where B begins each entity, and in IOB1 (Ramshaw & Marcus 1995), where it begins those alone that follow another of
their type; also E for the last word and S for a single one in IOBES, which are L and U in BILOU, and where M is I in BMES.
In IO, words of one type in a row are an entity, and tags have no letters.

Whatever the scheme, an entity goes on as long as letters and types allow: no word is lost for a tag that does not fit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU", "BMES", "IO"]
OUTSIDE = "O"
LETTERS = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S"}
"""The letters of all schemes, and what IOBES calls them."""
UNNAMED = "entity"
"""The type of entities whose tags are letters alone."""


class Entity(NamedTuple):
    """Words in a row."""

    first: int
    last: int
    """Exclusive."""
    name: str


def has_letters(tags: Collection[str]) -> bool:
    """Whether tags, all that there are, spell entities with letters."""
    marks = {tag for tag in tags if tag != OUTSIDE}
    return bool(marks) and (all(map(_lettered, marks)) or (marks <= LETTERS.keys() and "B" in marks))


def scheme_of(rows: Sequence[Sequence[str]]) -> Scheme:
    """The scheme that the tags of some texts follow, a sequence each, or come nearest to."""
    tags = {tag for row in rows for tag in row}
    if not has_letters(tags):
        return "IO"
    letters = {tag[0] for tag in tags if tag != OUTSIDE}
    if letters & {"L", "U"}:
        return "BILOU"
    if letters & {"M", "E", "S"}:
        return "BMES" if "M" in letters else "IOBES"
    return "IOB1" if "I" in letters and all(map(_begins_where_needed, rows)) and _begins_inside(rows) else "IOB2"


def spelled(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """The texts whose tags have letters, where most texts with a tag other than O are of that kind; all texts elsewhere."""
    tagged = [row for row in rows if set(row) != {OUTSIDE}]
    lettered = [row for row in tagged if has_letters(set(row))]
    return lettered if 2 * len(lettered) > len(tagged) else rows


def without_letters(tags: Collection[str]) -> str | None:
    """The first of `tags`, in the alphabet, that has no letter before it; None where all have one."""
    return min((tag for tag in tags if tag != OUTSIDE and not _lettered(tag)), default=None)


def types_in(tags: Collection[str]) -> list[str]:
    """The types of entities that tags are of, in their order, or those that they are where they have no letters."""
    lettered = has_letters(tags)
    return list(dict.fromkeys(_parts(tag, lettered)[1] for tag in tags if tag != OUTSIDE))


def stray(tags: Sequence[str], scheme: Scheme) -> str | None:
    """A tag that has not the form of those of `scheme`; None where all have it."""
    return None if scheme == "IO" else without_letters([tag for tag in tags if tag not in LETTERS])


def entities_of(tags: Sequence[str], scheme: Scheme) -> tuple[list[Entity], int]:
    """The entities, in their order, and how many tags are not those that spell them in `scheme`."""
    parts = [_parts(tag, scheme != "IO") for tag in tags]
    found: list[Entity] = []
    begin = None
    for place, (letter, name) in enumerate([*parts, (OUTSIDE, "")]):
        if begin is not None and (letter not in ("I", "E") or name != parts[begin][1]):
            found.append(Entity(begin, place, parts[begin][1]))
            begin = None
        if letter != OUTSIDE and begin is None:
            begin = place
        if letter in ("E", "S") and begin is not None:
            found.append(Entity(begin, place + 1, name))
            begin = None
    if scheme in ("IO", "IOB1"):
        return found, 0
    letters = [letter for letter, _ in parts]
    closing = scheme != "IOB2" or not {"E", "S"}.isdisjoint(letters)
    wanted = _letters(found, len(tags), closing)
    return found, sum(one != other for one, other in zip(letters, wanted, strict=True))


def _letters(entities: Sequence[Entity], words: int, closing: bool) -> list[str]:
    """The letters of tags that spell `entities`, in IOBES where it is `closing`, in IOB2 where it is not."""
    found = [OUTSIDE] * words
    for first, last, _ in entities:
        found[first:last] = ["B", *["I"] * (last - first - 1)]
        if closing:
            found[last - 1] = "S" if last - first == 1 else "E"
    return found


def _lettered(tag: str) -> bool:
    return len(tag) > 2 and tag[0] in LETTERS and tag[1] in "-_"


def _parts(tag: str, lettered: bool) -> tuple[str, str]:
    """The letter, as IOBES has it, and the type of a tag."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if not lettered:
        return "I", tag
    return LETTERS[tag[0]], tag[2:] or UNNAMED


def _begins_where_needed(tags: Sequence[str]) -> bool:
    """Whether B stands after a word of its type alone, as in IOB1."""
    pairs = zip([OUTSIDE, *tags], tags, strict=False)
    return all(before != OUTSIDE and before[1:] == tag[1:] for before, tag in pairs if tag[0] == "B")


def _begins_inside(rows: Sequence[Sequence[str]]) -> bool:
    """Whether I begins an entity, as it may in IOB1."""
    pairs = (pair for tags in rows for pair in zip([OUTSIDE, *tags], tags, strict=False))
    return any(tag[0] == "I" and (before == OUTSIDE or before[1:] != tag[1:]) for before, tag in pairs)
