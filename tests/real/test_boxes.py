"""Real boxes, from the folder shared/ beside the checkout; skipped, and said so, where it is absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.readers import open_source
from tunesmith.data.rejected import Rejected
from tunesmith.data.targets import Reason
from tunesmith.data.targets.box_cells import boxes_of

BCCD = Path(__file__).parents[3] / "shared" / "data" / "bccd"
pytestmark = pytest.mark.skipif(not BCCD.is_dir(), reason="no folder shared/data/bccd beside the checkout")


def boxes(where: Path) -> dict[str, dict[str, set[Any]]]:
    """By split and by the stem of the image, corners and classes."""
    found: dict[str, dict[str, set[Any]]] = {}
    for split, source in open_source(str(where), "utf-8").items():
        found[split] = {}
        for record in source.records:
            assert not isinstance(record, Rejected)
            _, image, objects = record[1]
            assert (where / image).is_file()
            read = boxes_of(json.dumps(objects), "auto")
            assert not isinstance(read, Reason)
            found[split][Path(image).stem] = set(read)
    return found


def test_coco_and_voc_say_the_same_of_all_blood_cells() -> None:
    coco, voc = boxes(BCCD), boxes(BCCD / "voc")
    assert {split: len(rows) for split, rows in coco.items()} == {"train": 205, "validation": 87, "test": 72}
    assert {split: len(rows) for split, rows in voc.items()} == {"train": 364}
    assert {name: row for rows in coco.values() for name, row in rows.items()} == voc["train"]
