"""A row that cannot be used: where it is and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

EXCERPT = 200


@dataclass(frozen=True)
class Rejected:
    """`line` is the line of a text file (from 1), or the row's number elsewhere."""

    split: str
    line: int
    reason: str
    text: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def excerpt(text: object) -> str:
    """The start of `text`, printable."""
    shown = text if isinstance(text, str) else repr(text)
    shown = shown.encode("utf-8", "replace").decode().replace("\x00", "\\0")
    return shown if len(shown) <= EXCERPT else shown[: EXCERPT - 1] + "…"
