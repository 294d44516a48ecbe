"""Real identities, from the folder shared/ beside the checkout; skipped, and said so, where it is absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.cells.image import IMAGES
from tunesmith.data.load import Dataset, load
from tunesmith.data.targets.identities import Identities
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings

DATA = Path(__file__).parents[3] / "shared" / "data"
TILES, CIFAR = DATA / "magnetic-tile", DATA / "cifar10-slice"
with_tiles = pytest.mark.skipif(not TILES.is_dir(), reason="no folder shared/data/magnetic-tile beside the checkout")
with_cifar = pytest.mark.skipif(not CIFAR.is_dir(), reason="no folder shared/data/cifar10-slice beside the checkout")


def read(where: Path, cache: Path, **settings: Any) -> Dataset:
    return load(DataSettings(train=str(where), **settings), cache, 0, Identities(), IMAGES)


@with_tiles
def test_tiles_of_one_image_each_show_nothing_of_two_images_of_one_thing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Each of the 792 identities of .* has one image"):
        read(TILES / "splits.csv", tmp_path, target="tile")


@with_tiles
def test_defects_part_by_kind_and_tiles_stay_whole(tmp_path: Path) -> None:
    found = read(TILES / "splits.csv", tmp_path, group="tile")
    assert found.columns.targets == ("label",)
    assert sum(one["identities"] for one in found.audit["identities"].values()) == 6
    assert [one["identities"] for one in found.audit["identities"].values()] == [2, 2, 2]
    # Whole identities are drawn, with the tiles that belong to them.
    assert len(found.splits["train"].column("group").unique()) == 2


@with_cifar
def test_brought_splits_of_the_same_classes_are_told(tmp_path: Path) -> None:
    found = read(CIFAR, tmp_path)
    identities = found.audit["identities"]
    assert identities["test"] == {"identities": 10, "images": {"min": 100, "median": 100, "max": 100}, "single": 0}
    assert identities["train"]["identities"] + identities["validation"]["identities"] == 10
    shared = identities["train"]["identities"]
    assert (
        f"test: {shared} of 10 identities stand in train too, so that figures on them are not about unseen ones."
    ) in found.audit["warnings"]


@with_cifar
def test_one_table_of_real_images_is_cut_by_identity(tmp_path: Path) -> None:
    found = read(CIFAR / "train", tmp_path)
    train, validation, test = (set(rows.column("target").to_pylist()) for rows in found.splits.values())
    assert (len(train), len(validation), len(test)) == (6, 2, 2)  # so that there is something to confuse
    assert not train & (validation | test)
