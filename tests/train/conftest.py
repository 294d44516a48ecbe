"""What tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steps import prepared
from tunesmith.prepare import Prepared


@pytest.fixture
def ready(settings: dict[str, Any], tmp_path: Path) -> Prepared:
    return prepared(settings, tmp_path)
