"""Real masks, from the folder shared/ beside the checkout; skipped, and said so, where it is absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tunesmith

DATA = Path(__file__).parents[3] / "shared" / "data"


def checked(name: str, data: dict[str, Any], **task: Any) -> dict[str, Any]:
    if not (DATA / name).is_dir():
        pytest.skip(f"no folder shared/data/{name} beside the checkout")
    data = {"train": str(DATA / name)} | data
    return dict(tunesmith.check({"task": {"name": "semantic-segmentation", **task}, "data": data}))


def test_streets_are_read_whole_with_their_splits_and_names() -> None:
    found = checked("camvid", {}, ignore=[11])
    assert found["rows"] == {"train": 120, "validation": 40, "test": 60}
    assert (found["rejected"], found["overlap"]) == ({}, {})
    names = (DATA / "camvid" / "classes.txt").read_text(encoding="utf-8").split()
    for split in found["rows"]:
        assert list(found["classes"][split]) == names
        assert sum(found["pixels"][split]["classes"].values()) == pytest.approx(1)
    assert found["pixels"]["train"]["labelled"] == pytest.approx(0.961, abs=1e-3)  # 11 is void


def test_defects_of_tiles_are_told_from_their_ground() -> None:
    """Masks of 0 and 255 beside images of which half, those free of defects, have none."""
    found = checked("magnetic-tile", {"max_rejected": 0.6}, classes=["ground", "defect"])
    assert found["rejected"] == {"no mask": 400}
    assert {row["text"].split("/")[-2] for row in found["rejected_rows"]} == {"free"}
    assert sum(found["rows"].values()) == 392
    assert all(0.01 < one["classes"]["defect"] < 0.3 for one in found["pixels"].values())
