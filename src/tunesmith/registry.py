"""One look-up: a name, found in a literal table, becomes the object it stands for, with settings of its own.

The tables (`tasks.TABLE`, `methods.TABLE`) hold "module:Class" strings, so that a name costs no import until it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from tunesmith.errors import SettingsError, did_you_mean
from tunesmith.settings import Named, check


def look_up(kind: str, name: str, table: Mapping[str, str]) -> Any:
    """The object that `name` stands for in `table`.

    Args:
        kind: what is looked up, for the message: "task", "method".
        name: a key of `table`.
        table: name to "module:Class".

    Raises:
        SettingsError: no such name; the nearest one is offered.
    """
    if name not in table:
        raise SettingsError(
            f"There is no {kind} {name!r}{did_you_mean(name, table)}", f"Known: {', '.join(sorted(table))}."
        )
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make(kind: str, table: Mapping[str, str], named: Named, where: str = "") -> Any:
    """The task or the method that `named` stands for, with the settings beside its name checked against its own class.

    Args:
        kind: "task" or "method".
        where: what the message of an error begins with; kind and name when it is empty.

    Raises:
        SettingsError: no such name, or a setting that it does not have.
    """
    found = look_up(kind, named.name, table)
    return found(check(found.Settings, named.own, where or f"{kind} {named.name!r}"))
