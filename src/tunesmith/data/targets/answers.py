"""Answers: where in a passage what answers the question stands, in characters, or that it is not answered there.

Files say so in many ways: text and start, side by side or in a list, or the text alone. A start that does not lead to its
text is mended by the nearest place where the text stands, and counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.cells import Place
from tunesmith.data.targets import Raw, Reading, Reason, Settled
from tunesmith.data.written import parts_in
from tunesmith.errors import DataError

KIND = pa.struct(
    [
        ("starts", pa.list_(pa.int64())),  # in characters of the passage; nothing where it does not answer
        ("ends", pa.list_(pa.int64())),  # exclusive
        ("texts", pa.list_(pa.string())),  # as the file has them
        ("classes", pa.list_(pa.int64())),  # there are none
        ("moved", pa.int64()),  # starts that did not lead to their text
        ("searched", pa.int64()),  # texts that came without a start
    ]
)
PROBLEM = "answers"
STARTS = ("answer_start", "start", "start_index", "start_offset", "begin")
TEXTS = ("text", "answer", "answer_text", "value")
NOT_THERE = Reason("answer that does not stand in its passage")
Text = str | None


class Answer(NamedTuple):
    """One answer as a file has it."""

    text: str
    start: int | None


class Answers:
    """Targets that are answers."""

    names: Sequence[str] = ("answers", "answer", "answer_text", "span", "label", "target")
    preferred: Sequence[str] = ("answers", "answer")
    several = False
    apart = False

    def settle(self, raw: Raw, brought: str | None) -> Settled:
        """Raise DataError where no cell can be read, or no question has an answer."""
        read = [answers_of(cell) for cell in raw.column.to_pylist()]
        reasons = Counter(str(one) for one in read if isinstance(one, Reason))
        if reasons and sum(reasons.values()) == len(read):
            reason, count = reasons.most_common(1)[0]
            raise DataError(
                f"No answer of {raw.name} can be read; the commonest reason is: {reason} ({count:,} of {len(read):,}).",
                "data.target names the column of answers.",
            )
        if not any(isinstance(one, list) and one for one in read):
            raise DataError(
                f"No question of {raw.name} has an answer.",
                "Some must have one to learn from; data.target names the column of answers.",
            )
        return Settled(PROBLEM, ())

    def described(self, tables: Mapping[str, pa.Table], labels: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """`answers`: by split, how many questions have none, how long answers are, what was mended, and how many passages
        stand in the training split too."""
        found = {split: _counted(rows) for split, rows in tables.items()}
        warnings = [warning for split, one in found.items() if (warning := _mended(split, one))]
        seen = set(tables["train"].column("pair").to_pylist())
        for split in ("validation", "test"):
            one = found[split]
            one["passages_in_train"] = len(seen.intersection(tables[split].column("pair").to_pylist()))
            warnings += _beside(split, one, found["train"])
        return {"answers": found}, warnings

    def reading(self, place: Place, settled: Settled) -> Reading:
        def values(rows: pa.RecordBatch) -> Iterator[Any]:
            for cell, passage in zip(*(rows.column(name).to_pylist() for name in ("raw", "pair")), strict=True):
                read = answers_of(cell)
                yield read if isinstance(read, Reason) else _placed(read, passage)

        return Reading(KIND, values)


def answers_of(cell: str | None) -> list[Answer] | Reason:
    """The answers in a cell; none where it is empty."""
    if cell is None or not cell.strip():
        return []
    found = parts_in(cell)
    if found is None:
        return [Answer(cell, None)]
    if isinstance(found, dict):
        return _of_mapping(found)
    answers: list[Answer] = []
    for part in found:
        own = [Answer(part, None)] if isinstance(part, str) else _of_mapping(part) if isinstance(part, dict) else None
        if own is None or isinstance(own, Reason):
            return own or Reason("answers that are neither text nor mappings")
        answers += own
    return _told(answers)


def _of_mapping(found: Mapping[str, Any]) -> list[Answer] | Reason:
    """Text and start, or lists of both side by side."""
    texts = next((found[key] for key in TEXTS if key in found), None)
    starts = next((found[key] for key in STARTS if key in found), None)
    if texts is None:
        told = starts is None and not found.keys().isdisjoint(TEXTS)
        return [] if told or not found else Reason("answer without its text")
    texts = texts if isinstance(texts, list) else [texts]
    starts = starts if isinstance(starts, list) else [starts] * len(texts)
    if len(texts) != len(starts):
        return Reason("more or fewer starts than answers")
    answers = []
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str):
            return Reason("answer that is not text")
        answers.append(Answer(text, _number(start)))
    return _told(answers)


def _number(start: Any) -> int | None:
    """A whole number, also as text, which is how cells of CSV hold it; None for anything else."""
    if isinstance(start, str):
        return int(start) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", start) else None
    whole = isinstance(start, int | float) and not isinstance(start, bool) and float(start).is_integer()
    return int(start) if whole else None


def _told(answers: list[Answer]) -> list[Answer] | Reason:
    """`answers`, of which none says nothing, unless all do."""
    empty = sum(not one.text.strip() for one in answers)
    if empty == len(answers):
        return []
    return Reason("empty answer beside others") if empty else answers


def _placed(answers: Sequence[Answer], passage: str) -> dict[str, Any] | Reason:
    """The answers where they stand in `passage`, as `KIND` has them."""
    spans: dict[tuple[int, int], str] = {}
    moved = searched = 0
    for text, start in answers:
        span = _at(text, start, passage)
        if span is None:
            return NOT_THERE
        searched += start is None
        moved += start is not None and (span[0] != start or passage[slice(*span)] != text)
        spans.setdefault(span, text)
    return {
        "starts": [start for start, _ in spans],
        "ends": [end for _, end in spans],
        "texts": list(spans.values()),
        "classes": [],
        "moved": moved,
        "searched": searched,
    }


def _at(text: str, start: int | None, passage: str) -> tuple[int, int] | None:
    """Where `text` stands: at `start`, or at the nearest place; blanks and composed letters may be spelled otherwise. Without
    a start, the first place where it is whole words, or else the first."""
    for begin in () if start is None or start < 0 else (start, *_counted_otherwise(start, passage)):
        if passage[begin : begin + len(text)] == text:
            return begin, begin + len(text)
    for pattern in (re.escape(text), _loose(text)):
        places = [match.span() for match in re.finditer(pattern, passage)]
        if not places:
            continue
        if start is None:
            return next((place for place in places if _apart(*place, passage)), places[0])
        return min(places, key=lambda place: abs(place[0] - (start or 0)))
    return None


def _counted_otherwise(start: int, passage: str) -> Iterator[int]:
    """What `start` is in characters where it was counted in bytes of UTF-8, or in units of UTF-16 (JavaScript, Java)."""
    if passage.isascii():
        return
    for encoding, size in (("utf-8", 1), ("utf-16-le", 2)):
        yield len(passage.encode(encoding)[: start * size].decode(encoding, "ignore"))


def _apart(start: int, end: int, passage: str) -> bool:
    """Whether no word goes on over either end."""
    return not any(
        passage[max(0, place - 1) : place + 1].isalnum() and 0 < place < len(passage) for place in (start, end)
    )


def _loose(text: str) -> str:
    """A pattern for `text` with any blanks between its words, and its letters composed or not."""
    words = text.split()
    either = ({unicodedata.normalize(form, word) for form in ("NFC", "NFD")} | {word} for word in words)
    return r"\s+".join("(?:" + "|".join(map(re.escape, sorted(forms))) + ")" for forms in either)


def _counted(rows: pa.Table) -> dict[str, Any]:
    """What one split has."""
    target = rows.column("target")
    starts, ends = (pc.struct_field(target, name) for name in ("starts", "ends"))
    counts = pc.list_value_length(starts).to_numpy()
    lengths = pc.list_flatten(ends).to_numpy() - pc.list_flatten(starts).to_numpy()
    least, median, most = map(float, np.quantile(lengths, [0, 0.5, 1])) if len(lengths) else (0.0, 0.0, 0.0)
    return {
        "rows": rows.num_rows,
        "passages": pc.count_distinct(rows.column("pair")).as_py(),
        "unanswerable": int((counts == 0).sum()),
        "answers_a_row": int(counts.max(initial=0)),
        "characters": {"min": least, "median": median, "max": most},
        "moved": int(pc.sum(pc.struct_field(target, "moved")).as_py()),
        "searched": int(pc.sum(pc.struct_field(target, "searched")).as_py()),
    }


def _mended(split: str, counted: Mapping[str, Any]) -> str:
    """What was mended of a split's answers, as a sentence; empty where nothing was."""
    told = []
    if moved := counted["moved"]:
        told.append(
            f"{moved:,} answer{'' if moved == 1 else 's'} did not stand where the file says, and the nearest was taken"
        )
    if searched := counted["searched"]:
        told.append(f"{searched:,} came without a place, and the first in the passage was taken")
    return f"{split}: {'; '.join(told)}." if told else ""


def _beside(split: str, counted: Mapping[str, Any], train: Mapping[str, Any]) -> list[str]:
    """What is worth a warning of a later split beside the training split."""
    warnings = []
    if shared := counted["passages_in_train"]:
        warnings.append(
            f"{split}: {shared:,} of {counted['passages']:,} passages {'stands' if shared == 1 else 'stand'} in train too, "
            f"so that figures on {split} are in part about new questions on passages that the model has seen. data.group, "
            "set to the column of the passage or of its title, keeps splits that are cut here apart by passage."
        )
    without, known = counted["unanswerable"], train["unanswerable"]
    if without and not known:
        warnings.append(
            f"train: every question has an answer, while {without:,} of {split} {'has' if without == 1 else 'have'} none: "
            "nothing teaches the model to give none."
        )
    if without == counted["rows"]:
        warnings.append(f"{split}: no question has an answer: {split} does not show whether the model can find one.")
    if known and not without:
        warnings.append(
            f"{split}: every question has an answer, while {known:,} of train {'has' if known == 1 else 'have'} none: "
            f"{split} does not show whether the model can tell."
        )
    return warnings
