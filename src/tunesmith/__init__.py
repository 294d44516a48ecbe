"""Tunesmith: fine-tune a pre-trained model on a small labelled data set, and know what it is worth.

The names below are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tunesmith.api import check, compare, finetune, load, plan, resume
    from tunesmith.errors import TunesmithError
    from tunesmith.settings import Settings

_HOMES = {
    "check": "tunesmith.api",
    "compare": "tunesmith.api",
    "finetune": "tunesmith.api",
    "load": "tunesmith.api",
    "plan": "tunesmith.api",
    "resume": "tunesmith.api",
    "Settings": "tunesmith.settings",
    "TunesmithError": "tunesmith.errors",
}

__all__ = [
    "Settings",
    "TunesmithError",
    "__version__",
    "check",
    "compare",
    "finetune",
    "load",
    "plan",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunesmith' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
