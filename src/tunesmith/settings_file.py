"""Settings as a YAML file holds them: read, changed by `--set key=value`, written. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tunesmith.errors import SettingsError
from tunesmith.settings import Settings


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings file as a mapping.

    Raises:
        SettingsError: no such file, not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"There is no settings file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as a settings file: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path}{line} is not valid YAML: {getattr(error, 'problem', error)}.") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} does not hold keys and values.", "Start it with, say, `data: rows.csv`.")
    return values


def override(values: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`values` with each "a.b=value" of `assignments` set; the value is read as YAML, so numbers and lists work."""
    result = dict(values)
    for assignment in assignments:
        key, sign, text = assignment.partition("=")
        if not sign or not key:
            raise SettingsError(f"--set {assignment!r} is not of the form key=value.", "Example: --set train.epochs=3")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        result = put(result, key, value)
    return result


_SHORT = {"data": "train", "budget": "time", "adapt": "data"}
"""The key that a value alone stands for; under all others that is `name`."""


def put(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """`values` with `value` at the dotted `key`; short forms on the way (`method: full`) become mappings."""
    result = dict(values)
    first, dot, rest = key.partition(".")
    if not dot:
        result[first] = value
        return result
    inner = result.get(first)
    if first == "adapt" and isinstance(inner, bool):  # yes or no, with settings to come
        inner = {}
    if inner is not None and (isinstance(inner, str) or first == "budget") and not isinstance(inner, Mapping):
        inner = {_SHORT.get(first, "name"): inner}
    if inner is not None and not isinstance(inner, Mapping):
        raise SettingsError(
            f"{first} = {inner!r} holds no keys, so {key} cannot be set.", f"Give {first} as a mapping."
        )
    result[first] = put(inner or {}, rest, value)
    return result


def to_yaml(settings: Settings) -> str:
    """The settings in full, ready to be read again by `read_yaml`."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
