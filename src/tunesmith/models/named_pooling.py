"""The pooling that a folder of sentence-transformers names: the one that its weights were taught with."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tunesmith.models import sources
from tunesmith.models.pooling import POOLING_MODES, SENTENCE_TRANSFORMERS
from tunesmith.run import path_of


@dataclass(frozen=True)
class Named:
    """What the list of modules says."""

    kinds: tuple[str, ...]
    """Of the modules, in their order: "Transformer", "Pooling", …"""
    told: tuple[str, ...]
    """What the pooling is called there; several where vectors are joined, empty where there is no such module."""
    pooling: str | None
    """The same as this package calls it; None where it is not known here, or not named."""


def named(folder: str) -> Named | None:
    """What the folder of a transformer, or the one above it, names; None where neither is of sentence-transformers, or it
    lies on the Hub."""
    root = sources.modules_of(folder)
    if root is None:
        return None
    listed = json.loads((root / sources.MODULES).read_text(encoding="utf-8"))
    if not (isinstance(listed, list) and all(isinstance(one, dict) and {"type", "path"} <= set(one) for one in listed)):
        return None  # another program's file of that name
    places = {str(one["type"]).rpartition(".")[2]: str(one["path"]) for one in listed}
    if "Transformer" not in places or (root / places["Transformer"]).resolve() != path_of(folder).resolve():
        return None
    if "Pooling" not in places:
        return Named(tuple(places), (), None)
    config = json.loads((root / places["Pooling"] / "config.json").read_text(encoding="utf-8"))
    if "pooling_mode" in config:
        told, names = [str(config["pooling_mode"])], SENTENCE_TRANSFORMERS
    else:
        told, names = [key for key, on in config.items() if key.startswith("pooling_mode_") and on], POOLING_MODES
    known = [how for how, name in names.items() if [name] == told]
    return Named(tuple(places), tuple(told), known[0] if known else None)
