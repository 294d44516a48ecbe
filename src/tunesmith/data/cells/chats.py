"""Chats: a list of turns, each with who says it and what. Files spell both in several ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.data.cells import Indices, Place, Unusable
from tunesmith.data.cells.text import Text, unusable
from tunesmith.data.rejected import excerpt
from tunesmith.data.written import parts_in

ASSISTANT, USER, SYSTEM, TOOL = "assistant", "user", "system", "tool"
ROLES = {
    "assistant": ASSISTANT, "gpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT, "chatgpt": ASSISTANT,
    "user": USER, "human": USER, "prompter": USER,
    "system": SYSTEM, "developer": SYSTEM,
    "tool": TOOL, "function": TOOL, "observation": TOOL, "ipython": TOOL,
}  # fmt: skip
CALLS = ("tool_calls", "function_call")
"""What a turn asks of tools beside what it says."""
WHO, WHAT = ("role", "from", "speaker"), ("content", "value", "text")
Turns = list[dict[str, str]]


class Chats(Text):
    """One column: the turns, kept as JSON."""

    noun = "chat"
    most = 1
    listed = True
    names: Sequence[str] = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns")
    preferred: Sequence[str] = ("messages", "conversations")
    pairs: Sequence[tuple[str, ...]] = ()

    def __init__(self, *, answered: bool) -> None:
        """`answered`: whether a chat without a turn of the assistant, of which nothing can be learned, is refused."""
        self.answered = answered

    def read(self, cells: Sequence[Any], row: str, place: Place) -> tuple[Any, ...] | Unusable:
        turns = turns_of(cells[0], tools=True)
        if isinstance(turns, str):
            return Unusable(0, turns, excerpt(cells[0]))
        if self.answered:
            last = max((number for number, turn in enumerate(turns) if turn["role"] == ASSISTANT), default=None)
            if last is None:
                return Unusable(0, "no turn of the assistant", excerpt(cells[0]))
            turns = turns[: last + 1]  # of what follows nothing is learned
        if sum(len(turn["content"]) for turn in turns) > place.settings.max_characters:
            return Unusable(0, f"chat of more than {place.settings.max_characters:,} characters", excerpt(cells[0]))
        return (json.dumps(turns, ensure_ascii=False),)

    def clusters(self, tables: list[pa.Table], threshold: float) -> tuple[Indices, Indices]:
        """By what is said; how a chat is written down would make all alike."""
        return super().clusters([pa.table({"input": _said(rows)}) for rows in tables], threshold)

    def described(self, tables: dict[str, pa.Table]) -> tuple[dict[str, Any], list[str]]:
        """`turns` by split beside the characters: how many a chat has."""
        found, warnings = super().described(tables)
        turns = {}
        for name, rows in tables.items():
            counts = [len(json.loads(chat)) for chat in rows.column("input").to_pylist()]
            low, middle, high = np.quantile(counts, [0, 0.5, 1]).tolist() if counts else (0.0, 0.0, 0.0)
            turns[name] = {"min": low, "median": middle, "max": high}
        return found | {"turns": turns}, warnings


def _said(rows: pa.Table) -> pa.Array:
    chats = (json.loads(chat) for chat in rows.column("input").to_pylist())
    return pa.array(["\n".join(turn["content"] for turn in chat) for chat in chats], pa.string())


CHATS, QUESTIONS = Chats(answered=True), Chats(answered=False)
"""To learn from, and to be gone on with."""


def turns_of(cell: Any, *, tools: bool = False) -> Turns | str:
    """The turns of a chat, by the roles that templates know; or the reason why there are none.

    Args:
        tools: whether some may be a tool's.

    A text that is no list is one turn of the user.
    """
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, str):
        found = parts_in(cell)
        cell = [{"role": USER, "content": cell}] if found is None else found
    if not isinstance(cell, list | tuple):
        return "no chat"
    if not cell:
        return "chat without a turn"
    turns: Turns = []
    for part in cell:
        turn = _turn(part)
        if isinstance(turn, str):
            return turn
        if turn["role"] == TOOL and not tools:
            return "turn of a tool, which is not read here"
        turns.append(turn)
    return turns


def _turn(part: Any) -> dict[str, str] | str:
    if not isinstance(part, Mapping):
        return "turn that is not a mapping with role and content"
    who, what = (next((key for key in known if key in part), None) for known in (WHO, WHAT))
    if who is None or what is None:
        return "turn without role or content"
    role = ROLES.get(str(part[who]).strip().lower())
    if role is None:
        return f"turn of the unknown role {str(part[who])[:20]!r}"
    if called := next((key for key in CALLS if part.get(key)), None):
        return f"{called!r} in a turn of the {role}: calls of tools are not read"
    what = part[what]
    if isinstance(what, str) and not what.strip() and role == SYSTEM:
        return {"role": role, "content": ""}
    if reason := unusable(what, 10**9):
        return f"{reason} in a turn of the {role}"
    return {"role": role, "content": what}
