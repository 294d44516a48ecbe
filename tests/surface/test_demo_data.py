"""The embedded data set is what its card says."""

from __future__ import annotations

from pathlib import Path

import tunesmith
from tunesmith import api


def test_the_demo_data_are_read_with_their_known_noise() -> None:
    file = Path(tunesmith.__file__).parent / "demo" / "tickets.csv"
    found = api.check({"data": {"train": str(file), "input": "message", "target": "topic"}})
    assert sum(found["rows"].values()) >= 600
    assert len(found["classes"]["train"]) == 8
    assert found["rejected"] == {"empty text in 'message'": 3}
    assert found["duplicates"]["exact"] >= 4
