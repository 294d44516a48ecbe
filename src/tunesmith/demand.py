"""Libraries that are imported when something of them is first needed, as importing them takes seconds."""

from __future__ import annotations

import importlib
from typing import Any


class OnDemand:
    """Stands for the module `name`, which is imported when an attribute of it is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
