"""References, prepared and measured without a run around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tunesmith import prepare, settings
from tunesmith.evaluate import retention
from tunesmith.evaluate.retention import Reference
from tunesmith.prepare import Prepared
from tunesmith.settings import ReferenceSettings


def ready_of(given: dict[str, Any], folder: Path) -> Prepared:
    return prepare.prepare(settings.parse(given), folder / "cache", torch.device("cpu"), lambda _: None)


def referred(ready: Prepared, source: Path, folder: Path, said: list[str] | None = None, **more: Any) -> Reference:
    wanted = ReferenceSettings.model_validate({"name": "other", "data": str(source)} | more)
    how = ready.settings.evaluate
    say = (said if said is not None else []).append
    (found,) = retention.prepare([wanted], ready.model, ready.settings.task, folder, 0, "fp32", evaluate=how, say=say)
    return found
