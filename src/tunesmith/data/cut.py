"""Where long rows were cut, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def where(found: Mapping[str, Any]) -> str:
    """The sides that `truncation` counts: "end", or "start of the prompt", or both."""
    start, end = (found.get(f"tokens_cut_from_{name}", 0) for name in ("start", "end"))
    if not start:
        return "end"
    return f"start of the prompt ({start:,} tokens) and at the end ({end:,})" if end else "start of the prompt"
