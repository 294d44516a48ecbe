"""Writes docs/settings.md and docs/settings.schema.json from the settings classes: `make reference`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunesmith import methods, tasks
from tunesmith.models.augment import Augment
from tunesmith.registry import look_up
from tunesmith.settings import (
    AdaptSettings,
    Budget,
    DataSettings,
    EvaluateSettings,
    LineSettings,
    PhaseSettings,
    ReferenceSettings,
    Settings,
    TrainSettings,
    UserModel,
)
from tunesmith.tasks.generation import Generation

FOLDER = Path(__file__).parent
KINDS = {"task": tasks.TABLE, "method": methods.TABLE}


def schema() -> dict[str, Any]:
    """The JSON schema of a settings file, with the settings of every task and method."""
    found = Settings.model_json_schema()
    found.get("$defs", {}).pop("Named", None)
    for kind, table in KINDS.items():
        named = [_named(kind, name, table) for name in table]
        found["properties"][kind] = {"anyOf": [{"enum": list(table)}, *named], "default": _default(kind)}
    found["properties"]["budget"] = {"anyOf": [{"type": ["string", "number"]}, {"$ref": "#/$defs/Budget"}]}
    found["properties"]["data"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/DataSettings"}]}
    reference = found["$defs"]["ReferenceSettings"]["properties"]
    reference["data"] = {"$ref": "#/properties/data"}
    more = [_named("task", name, tasks.REFERENCES) for name in tasks.REFERENCES]  # of names that runs have too
    reference["task"] = {"anyOf": [{"$ref": "#/properties/task"}, *more, {"type": "null"}]}
    adapt = {"$ref": "#/$defs/AdaptSettings"}
    found["properties"]["adapt"] = {"anyOf": [{"type": ["string", "boolean", "null"]}, adapt], "default": None}
    texts = found["$defs"]["AdaptSettings"]["properties"]
    texts["data"] = {"anyOf": [{"$ref": "#/properties/data"}, {"type": "null"}], "default": None}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Tunesmith settings"} | found


def page() -> str:
    """The settings in Markdown, a table for each group."""
    parts = [
        "# Settings",
        "",
        "All keys of a settings file, with their defaults. `--set group.key=value` sets one on the command line. This page",
        "and `settings.schema.json` (for editors) are written by `make reference`.",
        "",
        *_table("The run", "", Settings),
        *_table("A network of one's own", "model.", UserModel),
        *_table("Data", "data.", DataSettings),
        *_table("Adaptation before the task", "adapt.", AdaptSettings),
        *_table("Budget", "budget.", Budget),
        *_table("Training", "train.", TrainSettings),
        *_table("A line of the plan, under the stage's name", "plan.STAGE.", LineSettings),
        *_table("A phase of the plan, under its name", "plan.PHASE.", PhaseSettings),
        *_table("Measuring", "evaluate.", EvaluateSettings),
        *_table("A reference of `evaluate.retention`", "evaluate.retention[].", ReferenceSettings),
    ]
    parts += _table("How training images are varied", "task.augment.", Augment)
    parts += _table("How `seq2seq` writes", "task.generation.", Generation)
    for name in tasks.REFERENCES:
        own = look_up("task", name, tasks.REFERENCES).Settings
        parts += _table(f"The task `{name}` of a reference", "evaluate.retention[].task.", own)
    for kind, table in KINDS.items():
        for name in table:
            parts += _table(f"The {kind} `{name}`", f"{kind}.", look_up(kind, name, table).Settings)
    return "\n".join(parts)


def _named(kind: str, name: str, table: dict[str, str]) -> dict[str, Any]:
    own = look_up(kind, name, table).Settings.model_json_schema()
    own["properties"] = {"name": {"const": name}} | own.get("properties", {})
    return own | {"title": name, "required": ["name"]}


def _default(kind: str) -> str:
    named = Settings.model_fields[kind].default
    return str(named.name)


def _table(title: str, prefix: str, group: type[BaseModel]) -> list[str]:
    rows = [
        f"| `{prefix}{name}` | {_spelled(field.get_default(call_default_factory=True), required=field.is_required())} "
        f"| {' '.join((field.description or '').split())} |"
        for name, field in group.model_fields.items()
        if not isinstance(field.default, BaseModel) or prefix or hasattr(field.default, "name")
    ]
    if not rows:
        return [f"## {title}", "", "No settings of its own.", ""]
    return [f"## {title}", "", "| key | default | meaning |", "| --- | --- | --- |", *rows, ""]


def _spelled(value: Any, *, required: bool) -> str:
    if required:
        return "required"
    if isinstance(value, BaseModel):
        return f"`{value.name}`" if hasattr(value, "name") else ""
    return "none" if value is None else f"`{json.dumps(value)}`"


if __name__ == "__main__":
    (FOLDER / "settings.md").write_text(page(), encoding="utf-8")
    (FOLDER / "settings.schema.json").write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
