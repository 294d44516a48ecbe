"""Entities in texts: which words in a row are one, and of which type; or a tag for each word, as of its part of speech.

Cells hold tags or spans of characters, and become words in a row with classes, whatever they are spelled in. Tags that do
not fit their scheme, and spans that cut words, are repaired, and counted; spans that cannot be learned are set aside with
their reason, and the others of their text stay. A text without any entity is a good one. Of a type that no training text has,
entities stay too, by themselves: a model that cannot find them has missed them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from tunesmith.data.cells import Place
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.data.targets.classes import natural
from tunesmith.data.targets.entity_counts import described
from tunesmith.data.targets.tag_cells import Spans, Tags, marks_of
from tunesmith.data.targets.tag_schemes import (
    OUTSIDE,
    Entity,
    Scheme,
    entities_of,
    has_letters,
    scheme_of,
    spelled,
    stray,
    types_in,
    without_letters,
)
from tunesmith.data.targets.word_spans import Fitted, fitted
from tunesmith.errors import DataError, SettingsError

UNKNOWN = pa.struct([("first", pa.int64()), ("last", pa.int64()), ("label", pa.string())])
KIND = pa.struct(
    [
        ("first", pa.list_(pa.int64())),  # word that an entity begins with; in their order
        ("last", pa.list_(pa.int64())),  # word after its last
        ("classes", pa.list_(pa.int64())),
        ("repaired", pa.int64()),  # how many tags, or spans, did not fit
        ("set_aside", pa.list_(pa.string())),  # why, one a span
        ("unknown", pa.list_(UNKNOWN)),  # entities of types that no training text has; a training text has none
    ]
)
Tagging = Literal["entities", "tags"]
"""Whether words in a row are told apart from others, or each word has a tag."""
Marks = Tags | Spans


class Entities:
    """Targets that are entities with types, or tags of words."""

    names: Sequence[str] = (
        "tags", "ner_tags", "ner", "entities", "spans", "labels", "label", "annotations", "pos_tags", "pos", "upos", "xpos",
        "chunk_tags", "chunk", "tag", "target",
    )  # fmt: skip
    preferred: Sequence[str] = ("tags", "ner_tags", "entities", "spans", "upos")
    several = False
    apart = False

    def __init__(self, problem: Tagging | None, classes: Sequence[str] | None = None) -> None:
        """`problem`: which of the two it is; read off the cells when it is None. `classes`: the tags, which cells may say by
        their index, or the types of entities; those in the training rows when absent.

        Raises:
            SettingsError: a name stands in `classes` twice.
        """
        self.problem, self.classes = problem, tuple(classes) if classes else None
        if twice := next((name for name, count in Counter(self.classes).items() if count > 1), None):
            raise SettingsError(f"task.classes names {twice!r} twice.", "Give each class a name of its own.")
        if self.classes and not any(name.isdecimal() for name in self.classes):
            self._named = {str(index): name for index, name in enumerate(self.classes)}
        else:
            self._named = {}

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where no cell can be read, there is nothing to find, or tags are asked for and spans are there."""
        read = [self._marks(cell) for cell in raw.column.to_pylist()]
        spans = [one for one in read if isinstance(one, Spans)]
        tags = [one for one in read if isinstance(one, Tags)]
        if not spans and not tags:
            reason, count = Counter(map(str, read)).most_common(1)[0]
            raise DataError(
                f"No tags or spans of {raw.name} can be read; the commonest reason is: {reason} ({count:,} of "
                f"{len(read):,}).",
                "data.target names the column of tags or spans.",
            )
        distinct = {tag for one in tags for tag in one}
        # By most of the texts: a single odd tag is a mistake, and no other kind of target.
        plain = len(tags) > sum(map(bool, spans)) and not has_letters({tag for one in spelled(tags) for tag in one})
        outside = _outside(tags, raw.columns[0]) if plain else None
        problem = self.problem or ("tags" if plain and outside is None else "entities")
        numbers = bool(tags) and all(map(_is_number, distinct))
        coding: dict[str, Any] = {}
        if numbers and problem == "entities" and outside is not None:
            tags = [named for one in tags if isinstance(named := _with_outside(one, outside), Tags)]
            coding["outside"] = outside
        scheme = scheme_of(spelled(tags)) if tags and problem == "entities" else None
        if problem == "tags":
            labels = self._tags(distinct, any(spans), raw.name)
        elif numbers and not coding:
            raise DataError(
                f"The tags of {raw.name} are numbers, which do not say where entities begin and end.",
                "Set task.classes to the names of the tags by number, such as [O, B-person, I-person].",
            )
        else:
            labels = self._types(tags, spans, scheme, raw.name)
        guess = _guess(problem, scheme, labels, self.problem is not None, raw.columns[0] if outside else None)
        notes = _notes(problem, labels, numbers, raw.name)
        return Settled(problem, labels, {"scheme": scheme, **coding}, guess, notes)

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """`entities`: by split, how many there are, what became of the others, and how many of the test split's are new.

        Raises:
            DataError: training is left with no entity, or another split with no tag that training has.
        """
        return described(tables, labels)

    def reading(self, place: Place, settled: Settled) -> Reading:
        index = {name: number for number, name in enumerate(settled.labels)}
        outside = settled.coding.get("outside")

        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            read = [self._marks(cell) for cell in rows.column("raw").to_pylist()]
            if outside is not None:
                read = [_with_outside(marks, outside) if isinstance(marks, Tags) else marks for marks in read]
            # Beside tags an empty list is a text that lacks them; elsewhere it is one without entities.
            tagged = any(isinstance(marks, Tags) for marks in read)
            columns = (rows.column(name).to_pylist() for name in ("input", "words"))
            for marks, text, words in zip(read, *columns, strict=True):
                if isinstance(marks, Reason):
                    yield marks
                else:
                    found = _fitted(marks, text, words, settled, tagged)
                    yield found if isinstance(found, Reason) else self._value(found, index)

        return Reading(KIND, values)

    def _marks(self, cell: str | None) -> Marks | Reason:
        """What a cell holds, with the names of what it says by number."""
        marks = marks_of(cell)
        if isinstance(marks, Reason) or not self._named:
            return marks
        what, said = ("tag", marks) if isinstance(marks, Tags) else ("label", [span.name for span in marks])
        unknown = next((one for one in said if _is_number(one) and one not in self._named), None)
        if unknown is not None:
            return Reason(f"{what} {unknown}, which task.classes does not name")
        names = (self._named.get(one, one) for one in said)
        if isinstance(marks, Tags):
            return Tags(names)
        return Spans(span._replace(name=name) for span, name in zip(marks, names, strict=True))

    def _tags(self, found: Collection[str], any_spans: bool, source: str) -> tuple[str, ...]:
        """The labels where each word has a tag."""
        if any_spans and not found:
            raise DataError(
                f"task.problem is tags, but {source} holds spans.",
                "Leave task.problem away, or let data.target name a column with one tag a word.",
            )
        if len(found) < 2:
            only = f"only the tag {next(iter(found))!r}" if found else "no tag"
            raise DataError(
                f"The rows of {source} have {only}.",
                "At least two are needed to tell apart; data.target names the column of tags.",
            )
        return self.classes or tuple(sorted(found, key=natural))

    def _types(
        self, tags: Sequence[Tags], spans: Sequence[Spans], scheme: Scheme | None, source: str
    ) -> tuple[str, ...]:
        """The labels where there are entities."""
        found = {span.name for one in spans for span in one}
        if scheme is not None:
            fit = (one for one in tags if stray(one, scheme) is None)
            found |= {entity.name for one in fit for entity in entities_of(one, scheme)[0]}
        if not found:
            raise DataError(
                f"The rows of {source} hold no entity.",
                "Some texts must show what is to be found; data.target names the column of tags or spans.",
            )
        return tuple(types_in(self.classes)) if self.classes else tuple(sorted(found, key=natural))

    def _value(self, found: Fitted, index: Mapping[str, int]) -> dict[str, Any] | Reason:
        """The entities of one text as `KIND` has them, or one that `classes` does not name."""
        known = [one for one in found.entities if one.name in index]
        unknown = [one for one in found.entities if one.name not in index]
        if unknown and self.classes is not None:
            return Reason(f"label {unknown[0].name!r}, which task.classes does not name")
        return {
            "first": [one.first for one in known],
            "last": [one.last for one in known],
            "classes": [index[one.name] for one in known],
            "repaired": found.moved,
            "set_aside": found.set_aside,
            "unknown": [dict(zip(UNKNOWN.names, one, strict=True)) for one in unknown],
        }


def _outside(rows: Sequence[Tags], column: str) -> str | None:
    """The tag of words that are in no entity, where tags without letters stand in a column that is called after named
    entities; None elsewhere. Of numbers it is 0, which then is the commonest."""
    counts = Counter(tag for row in rows for tag in row)
    if not column.casefold().startswith("ner") or not counts:
        return None
    if all(map(_is_number, counts)):
        return "0" if counts.most_common(1)[0][0] == "0" else None
    return OUTSIDE if OUTSIDE in counts else None


def _with_outside(tags: Tags, outside: str) -> Tags | Reason:
    """`tags`, all of them numbers, with O in place of `outside`."""
    wrong = next((tag for tag in tags if not tag.isdecimal()), None)
    if wrong is not None:
        return Reason(f"tag {wrong!r}, where a number from 0 is expected")
    return Tags(OUTSIDE if tag == outside else tag for tag in tags)


def _guess(
    problem: str, scheme: Scheme | None, labels: Sequence[str], asked: bool, column: str | None
) -> tuple[str, ...]:
    """What was inferred, as a sentence, where not all of it was `asked` for.

    Args:
        column: whose name decided that there are entities; None where it did not.
    """
    letters = "they have no letters" if scheme == "IO" else "their letters show"
    if asked:
        told = problem == "entities" and scheme is not None
        return (f"Entities are read from the tags in the scheme {scheme}, as {letters}.",) if told else ()
    what = "entities, from spans of characters" if scheme is None else f"entities, from tags in the scheme {scheme}"
    other = ""
    if problem == "tags":
        what = f"one tag a word, as {without_letters(labels)!r} has no letter such as B- or I- before it"
        other = "; with entities, words in a row with one tag are one, and O is none" if OUTSIDE in labels else ""
    elif column is not None:
        what += f", as they stand in the column {column!r}: words in a row with one tag are one entity"
    return (f"The target is read as {what} (task.problem={problem}; task.problem sets another reading{other}).",)


def _notes(problem: str, labels: Sequence[str], numbers: bool, source: str) -> tuple[str, ...]:
    """What is worth a warning where tags, or labels of spans, are numbers."""
    if numbers and problem == "entities":
        return (
            f"The tags of {source} are numbers: 0 is read as no entity, and every other number as a type of its own. Where "
            "they stand for tags such as B-person and I-person, set task.classes to these, in the order of the numbers.",
        )
    if not numbers and not all(map(_is_number, labels)):
        return ()
    what = "tags" if numbers else "labels"
    return (
        f"The {what} of {source} are numbers, and stand for themselves; task.classes names them, in the order of the numbers "
        "from 0.",
    )


def _is_number(tag: str) -> bool:
    return tag.removeprefix("-").isdecimal()


def _fitted(marks: Marks, text: str, words: Sequence[int], settled: Settled, tagged: bool) -> Fitted | Reason:
    """The entities of one text, or why its cell does not go with its words.

    Args:
        tagged: whether cells beside it hold tags.
    """
    scheme = settled.coding["scheme"]
    whole = settled.problem == "tags"
    if isinstance(marks, Spans) and (marks or not (whole or (tagged and scheme is not None))):
        return Reason("spans, where each word needs a tag") if whole else fitted(marks, text, words)
    if isinstance(marks, Spans) or 2 * len(marks) != len(words):
        listed = all(start == end + 1 for start, end in zip(words[2::2], words[1::2], strict=False))
        mend = "" if listed else "; tags need the text as a list of tokens"
        return Reason(f"more or fewer tags than words{mend}")
    if whole:
        return Fitted([Entity(place, place + 1, tag) for place, tag in enumerate(marks)], 0, [])
    known: Scheme = scheme or "IOB2"
    if (odd := stray(marks, known)) is not None:
        return Reason(f"tag {odd!r}, which has no letter such as B- or I- before it")
    return Fitted(*entities_of(marks, known), [])
