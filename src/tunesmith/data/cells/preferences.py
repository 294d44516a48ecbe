"""Preferences: what was asked, the answer that was chosen, and the one that was rejected; as texts, or as turns of chats.

Without a column of prompts the prompt is what both begin with.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data import duplicates
from tunesmith.data.cells import Indices, Place, Unusable
from tunesmith.data.cells.chats import ASSISTANT, Turns, turns_of
from tunesmith.data.cells.text import Text, unusable
from tunesmith.data.readers import Source
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.data.written import parts_in

ANSWERS = ("chosen", "rejected")
PROMPTED = ("prompt", "question", "instruction", "query", "input")
REPLY = "\n\nAssistant:"
"""What opens an answer in texts that hold a whole chat, as Anthropic's do."""
LOOKED_AT = 100
"""Rows by which it is told whether answers are texts or turns."""
LOPSIDED = 0.7
"""Of so many pairs the chosen answer is the longer one: length alone would then tell them."""


class Preferences(Text):
    """Two or three columns: the prompt, which may be absent, and both answers."""

    noun = "prompt, the chosen and the rejected answer"
    least = 2
    most = 3
    listed = True
    names: Sequence[str] = ()
    preferred: Sequence[str] = ()
    pairs: Sequence[tuple[str, ...]] = (*((name, *ANSWERS) for name in PROMPTED), ANSWERS)

    def __init__(self, *, chats: bool) -> None:
        """`chats`: whether all of them are turns, kept as JSON; otherwise texts."""
        self.chats = chats

    def fields(self, columns: int) -> list[tuple[str, pa.DataType]]:
        return [(name, pa.string()) for name in ("input", *ANSWERS)]

    def read(self, cells: Sequence[Any], row: str, place: Place) -> tuple[Any, ...] | Unusable:
        found = _turns(cells) if self.chats else _texts(cells)
        if isinstance(found, Unusable):
            return found
        last = len(cells) - 1
        most = place.settings.max_characters
        for column, text in zip((0, last - 1, last), found, strict=True):
            if len(text) > most:
                return Unusable(column, f"text of more than {most:,} characters", excerpt(text))
        if found[1].strip() == found[2].strip():
            return Unusable(last, "the chosen answer again", excerpt(cells[last]))
        return found

    def clusters(self, tables: list[pa.Table], threshold: float) -> tuple[Indices, Indices]:
        """The same: prompt and answers; nearly the same: the prompt, so that no two splits have answers to one."""
        _, near = duplicates.clusters([pa.table({"input": self._said(table, "input")}) for table in tables], threshold)
        exact, _ = duplicates.clusters([self._whole(table) for table in tables], 1.0)
        return exact, near

    def _said(self, rows: pa.Table, name: str) -> pa.Array:
        """A column as text: of turns what is said, as how they are written down would make all alike."""
        if not self.chats:
            return rows.column(name)
        chats = (json.loads(chat) for chat in rows.column(name).to_pylist())
        return pa.array(["\n".join(turn["content"] for turn in chat) for chat in chats], pa.string())

    def _whole(self, rows: pa.Table) -> pa.Table:
        """Prompts, and beside them both answers as one text."""
        answers = [self._said(rows, side).to_pylist() for side in ANSWERS]
        pairs = ["\x1f".join(pair) for pair in zip(*answers, strict=True)]
        return pa.table({"input": self._said(rows, "input"), "pair": pa.array(pairs, pa.string())})

    def described(self, tables: dict[str, pa.Table]) -> tuple[dict[str, Any], list[str]]:
        """`pairs` by split beside the characters: how long both are, and how often the chosen one is the longer."""
        found, warnings = super().described(tables)
        pairs: dict[str, dict[str, Any]] = {}
        for name, rows in tables.items():
            chosen, rejected = (pc.utf8_length(self._said(rows, side)).to_numpy(False) for side in ANSWERS)
            longer = float((chosen > rejected).mean() + (chosen == rejected).mean() / 2) if rows.num_rows else 0.0
            medians = {side: float(np.median(one)) for side, one in zip(ANSWERS, (chosen, rejected), strict=True)}
            pairs[name] = {"characters": medians, "chosen_longer": longer}
        share = pairs["train"]["chosen_longer"]
        if not 1 - LOPSIDED < share < LOPSIDED:
            side = "longer" if share > 0.5 else "shorter"
            warnings.append(
                f"In {100 * max(share, 1 - share):.0f} % of the training pairs the chosen answer is the {side} one: length "
                "is what is easiest to learn from them."
            )
        return found | {"pairs": pairs}, warnings


TEXTS, CHATS = Preferences(chats=False), Preferences(chats=True)


def in_turns(source: Source, inputs: Sequence[str]) -> bool:
    """Whether some of the columns `inputs` of `source` hold turns of chats rather than texts, by its first rows."""
    header = [str(name).strip() for name in source.columns]
    places = [header.index(name) for name in inputs]
    records = itertools.islice(source.records, LOOKED_AT)
    rows = (record[1] for record in records if not isinstance(record, Rejected))
    return any(_turned(row[place]) for row in rows for place in places)


def _turned(cell: Any) -> bool:
    found = parts_in(cell) if isinstance(cell, str) else cell
    return isinstance(found, list | tuple | np.ndarray) and any(isinstance(part, Mapping) for part in found)


def _texts(cells: Sequence[Any]) -> tuple[str, str, str] | Unusable:
    for column, text in enumerate(cells):
        if reason := unusable(text, len(text) if isinstance(text, str) else 0):
            return Unusable(column, reason, excerpt(text))
    if len(cells) == 3:
        return cells[0], cells[1], cells[2]
    chosen, rejected = cells
    begin = chosen[: _alike(chosen, rejected, min(len(chosen), len(rejected)))]
    reply = begin.rfind(REPLY)
    # Words stay whole, and the blank before one is of the word, as tokenizers have it.
    end = reply + len(REPLY) if reply >= 0 else max(begin.rfind(blank) for blank in " \n\t")
    if end < 0 or not begin[:end].strip():
        return Unusable(1, "no beginning that both answers share, which would be the prompt,", excerpt(rejected))
    for column, text in enumerate((chosen[end:], rejected[end:])):
        if not text.strip():
            return Unusable(column, "no answer after the prompt", excerpt(cells[column]))
    return begin[:end], chosen[end:], rejected[end:]


def _turns(cells: Sequence[Any]) -> tuple[str, str, str] | Unusable:
    """Prompt and answers as JSON; answers that are whole chats without what both begin with."""
    last = len(cells) - 1
    read = []
    for column in (last - 1, last):
        turns = _answer(cells[column])
        if isinstance(turns, str):
            return Unusable(column, turns, excerpt(cells[column]))
        read.append(turns)
    prompt = turns_of(cells[0]) if len(cells) == 3 else []
    if isinstance(prompt, str):
        return Unusable(0, prompt, excerpt(cells[0]))
    whole = all(one[0]["role"] != ASSISTANT for one in read)
    if whole or not prompt:
        # The last turn of each is its answer, whatever the other has there.
        shared = _alike(read[0], read[1], min(map(len, read)) - 1)
        prompt, read = read[0][:shared], [one[shared:] for one in read]
    elif all(one[: len(prompt)] == prompt and len(one) > len(prompt) for one in read):
        read = [one[len(prompt) :] for one in read]
    if not prompt:
        return Unusable(last, "no turn that both answers begin with, which would be the prompt,", excerpt(cells[last]))
    for column, turns in zip((last - 1, last), read, strict=True):
        if turns[0]["role"] != ASSISTANT:
            return Unusable(
                column, f"turn of the {turns[0]['role']} where the answer should be", excerpt(cells[column])
            )
    texts = [json.dumps(one, ensure_ascii=False) for one in (prompt, *read)]
    return texts[0], texts[1], texts[2]


def _answer(cell: Any) -> Turns | str:
    """The turns up to the last one of the assistant; a text is a turn of theirs; or why there are none."""
    if isinstance(cell, str) and parts_in(cell) is None:
        reason = unusable(cell, len(cell))
        return reason or [{"role": ASSISTANT, "content": cell}]
    turns = turns_of(cell)
    if isinstance(turns, str):
        return turns
    ends = [number for number, turn in enumerate(turns, 1) if turn["role"] == ASSISTANT]
    return turns[: ends[-1]] if ends else "no turn of the assistant"


def _alike(one: Sequence[Any], other: Sequence[Any], most: int) -> int:
    """How many parts, `most` of them at most, both begin with."""
    return next((number for number in range(most) if one[number] != other[number]), most)
