"""What tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steps import prepared
from tunesmith.prepare import Prepared
from tunesmith.train.course import Course


@pytest.fixture
def start_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the weights that are kept have trained, however good the start was on a few rows."""
    monkeypatch.setattr(Course, "_from_sound_head", lambda _: False)


@pytest.fixture
def ready(settings: dict[str, Any], tmp_path: Path) -> Prepared:
    return prepared(settings, tmp_path)
