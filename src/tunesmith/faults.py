"""The faults that pydantic finds in settings, as one sentence that names the key and the nearest good one."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from tunesmith.errors import did_you_mean

_PLAIN = ("str", "list[", "int", "float", "tuple[")
"""What pydantic calls the branches of a union of plain kinds."""


def explain(kind: type[BaseModel], faults: Sequence[Any], where: str) -> tuple[str, str]:
    """What is wrong, and the mend, of the `faults` that pydantic found in `where`, the values of a `kind`."""
    # Where a key may be a name or a mapping, a mapping's faults are those of its keys.
    inside = [one for one in faults if any("UserModel" in str(part) for part in one["loc"]) and len(_path(one)) > 1]
    fault = inside[0] if inside else faults[0]
    path = _path(fault)
    key = ".".join(path)
    if fault["type"] == "extra_forbidden":
        known = _keys(kind, path[:-1])
        return f"{where}: unknown key {key!r}{did_you_mean(path[-1], known)}", f"Known here: {', '.join(known)}."
    if fault["type"] == "missing":
        return f"{where}: the key {key!r} is missing.", f"Add it, or give it with --set {key}=…"
    # Where a key may be of several kinds, each says what it misses.
    reasons = [one["msg"].removeprefix("Value error, ") for one in faults if _path(one) == path]
    told = " or ".join(dict.fromkeys(f"{reason[0].lower()}{reason[1:]}" for reason in reasons))
    return f"{where}: {key} = {fault['input']!r} is not usable: {told}.", ""


def _path(fault: Any) -> list[str]:
    """The keys down to a fault; pydantic adds the branch of a union, which no user knows."""
    branches = ("function-", "literal[", "constrained", *_PLAIN)
    return [str(part) for part in fault["loc"] if not str(part).startswith(branches)]


def _keys(kind: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part.isdigit():  # an entry of a list, whose kind is known already
            continue
        inner = kind.model_fields[part].annotation if part in kind.model_fields else None
        candidates = [inner, *typing.get_args(inner)]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        kind = nested[0]
    return list(kind.model_fields)
