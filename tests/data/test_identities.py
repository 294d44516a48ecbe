"""Identities: how names are read, how splits part by them, and what is told of those that teach or measure little."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from tunesmith.data.cells.image import IMAGES
from tunesmith.data.load import Dataset, load, load_labelled
from tunesmith.data.targets import Settled
from tunesmith.data.targets.identities import PROBLEM, Identities
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings

SPLITS = ("train", "validation", "test")


def draw(file: Path, same_as: str | None = None) -> None:
    """An image of noise, which differs from those of other names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list((same_as or str(file)).encode()))
    Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(file)


def folders(root: Path, images: dict[str, int]) -> Path:
    """A folder for each identity, with as many images."""
    for name, count in images.items():
        for number in range(count):
            draw(root / name / f"{number}.png")
    return root


def table(folder: Path, cells: Sequence[Any], **more: Sequence[Any]) -> Path:
    """A .csv of images, identities and other columns."""
    columns = {"identity": cells, **more}
    folder.mkdir(parents=True)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns])
        for number, values in enumerate(zip(*columns.values(), strict=True)):
            draw(folder / f"{number:03}.png")
            writer.writerow([f"{number:03}.png", *values])
    return folder / "rows.csv"


def read(where: Path, seed: int = 0, **settings: Any) -> Dataset:
    wanted = DataSettings(**{"train": str(where), "max_rejected": 0.5, **settings})
    return load(wanted, where.parent / "cache", seed, Identities(), IMAGES)


def each(identities: int, images: int = 4) -> list[str]:
    return [f"thing {number % identities:02}" for number in range(identities * images)]


def inside(found: Dataset, column: str = "target") -> dict[str, set[str]]:
    return {split: set(rows.column(column).to_pylist()) for split, rows in found.splits.items()}


def assert_parted(found: Dataset, column: str = "target") -> None:
    train, validation, test = inside(found, column).values()
    assert train
    assert validation
    assert test
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_folders_are_identities_and_splits_part_by_them(tmp_path: Path) -> None:
    found = read(folders(tmp_path / "things", {f"thing {number:02}": 2 + number % 4 for number in range(30)}))
    assert (found.problem, found.labels) == (PROBLEM, ())
    assert found.splits["train"].schema.field("target").type == pa.string()
    assert_parted(found)
    total = sum(found.audit["rows"].values())
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert found.audit["rows"][split] == pytest.approx(share * total, abs=5)
        assert found.splits[split].column("group") == found.splits[split].column("target")
    assert sum(one["identities"] for one in found.audit["identities"].values()) == 30
    train = Counter(found.splits["train"].column("target").to_pylist())
    assert found.audit["identities"]["train"] == {
        "identities": len(train),
        "images": {"min": 2, "median": float(np.median(list(train.values()))), "max": 5},
        "single": 0,
    }
    assert "classes" not in found.audit
    assert "imbalance" not in found.audit
    few = f"test: figures on {found.audit['identities']['test']['identities']} identities say little about others."
    assert [warning for warning in found.audit["warnings"] if "identit" in warning] == [few]


def test_seeds_cut_other_splits_and_the_same_seed_the_same(tmp_path: Path) -> None:
    where = table(tmp_path / "rows", each(20))
    cuts = [inside(read(where, seed)) for seed in (0, 0, 1, 2)]
    assert cuts[0] == cuts[1]
    assert len({tuple(sorted(cut["test"])) for cut in cuts}) > 1


def test_groups_that_are_asked_for_are_kept_together_and_identities_as_well(tmp_path: Path) -> None:
    names = each(30)
    scenes = [f"scene {number // 4 % 20}" for number in range(len(names))]  # each across identities, and they across it
    by_day = [f"day {int(name.split()[1]) // 2}" for name in names]
    found = read(table(tmp_path / "days", names, day=by_day), group="day")
    for column in ("target", "group"):
        assert_parted(found, column)
    assert inside(found, "group")["train"] <= set(by_day)
    for rows in found.splits.values():
        assert len(set(zip(*(rows.column(name).to_pylist() for name in ("target", "group")), strict=True))) == len(
            set(rows.column("target").to_pylist())
        )
    with pytest.raises(DataError, match="belong together in 1 cluster of near-duplicates, groups or identities"):
        read(table(tmp_path / "scenes", names, scene=scenes), group="scene")


def test_identities_stay_whole_where_groups_are_smaller(tmp_path: Path) -> None:
    names = each(20)
    found = read(table(tmp_path / "rows", names, shot=[f"shot {number // 2}" for number in range(80)]), group="shot")
    assert_parted(found)


def test_groups_are_those_of_identities_and_of_what_is_asked_for_together(tmp_path: Path) -> None:
    names = each(20)
    shots = [f"shot {number // 2}" for number in range(80)]  # of things 0 and 1, of 2 and 3, …; four of each pair
    where = table(tmp_path / "rows", names, shot=shots)
    found = read(where, group="shot")
    for rows in found.splits.values():
        by_group: dict[str, set[str]] = {}
        for target, group in zip(*(rows.column(name).to_pylist() for name in ("target", "group")), strict=True):
            assert group in shots
            by_group.setdefault(group, set()).add(target)
        assert all(len(one) == 2 for one in by_group.values())
    brought = table(tmp_path / "test", ["a", "b", "b", "c", "d", "d"], shot=["1", "1", "2", "3", "4", "3"])
    found = read(where, group="shot", test=str(brought))
    assert found.splits["test"].column("group").to_pylist() == ["1", "1", "1", "3", "3", "3"]


@pytest.mark.parametrize("seed", range(5))
def test_each_split_gets_two_identities_with_two_images_where_there_are_so_many(tmp_path: Path, seed: int) -> None:
    images = [f"big {number % 3}" for number in range(120)] + [f"small {number % 3}" for number in range(9)]
    found = read(table(tmp_path / "rows", [*images, *(f"single {number}" for number in range(20))]), seed)
    assert_parted(found)
    for one in found.audit["identities"].values():
        assert one["identities"] - one["single"] >= 2


@pytest.mark.parametrize("column", ["person", "Product_ID", "label", "who"])
def test_the_column_goes_by_many_names(tmp_path: Path, column: str) -> None:
    where = table(tmp_path / "rows", each(10))
    where.write_text(where.read_text().replace("identity", column, 1))
    found = read(where)
    assert found.columns.targets == (column,)
    assert any(f"the column '{column}', by name" in guess for guess in found.columns.guesses)


def test_a_thing_wins_over_a_class_and_data_target_over_both(tmp_path: Path) -> None:
    names = each(10)
    where = table(tmp_path / "rows", names, label=["cat", "dog"] * 20, tag=names[::-1])
    assert read(where).columns.targets == ("identity",)
    assert read(where, target="tag").columns.targets == ("tag",)
    with pytest.raises(DataError, match="names 2 columns, but this task reads one"):
        read(where, target=["identity", "tag"])


def test_brought_splits_that_share_identities_are_told(tmp_path: Path) -> None:
    root = tmp_path / "things"
    folders(root / "train", {f"thing {number}": 3 for number in range(6)})
    folders(root / "val", {"thing 5": 2, "other": 2})
    folders(root / "test", {"thing 0": 2, "thing 1": 2, "other": 2, "third": 2})
    found = read(root)
    warnings = found.audit["warnings"]
    assert "test: 2 of 4 identities stand in train too, so that figures on them are not about unseen ones." in warnings
    assert (
        "validation: 1 of 2 identities stands in train too, so that figures on them are not about unseen ones."
    ) in warnings
    assert (
        "test: 1 of 4 identities stands in validation too, so that what is chosen by validation was chosen by them."
    ) in warnings


def test_what_is_cut_beside_a_brought_test_split_is_parted(tmp_path: Path) -> None:
    test = table(tmp_path / "test", ["a", "a", "b", "b"])
    found = read(table(tmp_path / "train", each(20)), test=str(test))
    assert_parted(found)
    assert found.audit["rows"]["test"] == 4


def test_what_teaches_or_measures_nothing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="have only the identity 'one'"):
        read(table(tmp_path / "one", ["one"] * 12))
    with pytest.raises(DataError, match=r"Each of the 12 identities of .* has one image"):
        read(table(tmp_path / "single", each(12, 1)))
    with pytest.raises(DataError, match=r"names an identity; the commonest reason is: no identity \(12 of 12\)"):
        read(table(tmp_path / "empty", [""] * 11 + ["  "]))
    with pytest.raises(DataError, match="No row is left for the test split: the 12 rows belong together in 2 clusters"):
        read(table(tmp_path / "two", each(2, 6)))
    with pytest.raises(DataError, match=r"left with the identity 'thing \d\d' alone"):
        read(table(tmp_path / "three", each(3, 6)))


def test_identities_with_a_single_image_are_counted(tmp_path: Path) -> None:
    found = read(table(tmp_path / "rows", [*each(20), *(f"single {number}" for number in range(20))]))
    train = found.audit["identities"]["train"]
    assert train["single"] > 10
    assert (
        f"train: {train['single']} of {train['identities']} identities have a single image, which does not show what two "
        "images of one thing share."
    ) in found.audit["warnings"]


def test_splits_that_can_measure_nothing_are_refused(tmp_path: Path) -> None:
    one, single = table(tmp_path / "one", ["a"] * 4), table(tmp_path / "single", ["b", "c", "d"])
    train, good = table(tmp_path / "train", each(5)), table(tmp_path / "good", ["e", "e", "f"])
    with pytest.raises(
        DataError, match="The validation split has images of one identity only, so that there is nothing"
    ):
        read(train, validation=str(one), test=str(good))
    with pytest.raises(
        DataError, match="The test split has no identity with two images, so that there is nothing to find"
    ):
        read(train, validation=str(good), test=str(single))
    with pytest.raises(DataError, match="The validation split has images of one identity only"):
        read(table(tmp_path / "three", each(3, 6)), test=str(good))


def test_splits_that_measure_little_are_told(tmp_path: Path) -> None:
    test = table(tmp_path / "test", ["a", "a", "b", "c", "d", "e"])
    found = read(table(tmp_path / "train", each(20)), test=str(test))
    assert "test: figures on 5 identities say little about others." in found.audit["warnings"]
    assert ("test: figures are about 2 of 6 images, as the others are the only ones of their identity.") in found.audit[
        "warnings"
    ]
    enough = table(tmp_path / "enough", [f"own {number % 10}" for number in range(20)])
    found = read(table(tmp_path / "again", each(20)), test=str(enough))
    assert not [warning for warning in found.audit["warnings"] if "figures" in warning]


def test_cells_without_one_name_are_set_aside(tmp_path: Path) -> None:
    cells = each(10)
    cells[3:9] = ["", "  ", '["a", "b"]', '{"a": 1}', "[" * 100_000 + "]" * 100_000, "[unknown]"]
    found = read(table(tmp_path / "rows", cells))
    assert sorted(Counter(row.reason for row in found.rejected).items()) == [
        ("a list, where one identity is needed", 2),
        ("no identity", 2),
    ]
    assert "[unknown]" in set().union(*inside(found).values())


def test_names_are_the_same_however_they_are_spelled(tmp_path: Path) -> None:
    cells = each(10)
    cells[:4] = ["Zoë", "Zoe\u0308", " Zoë ", "Zoë"]
    cells[4:8] = ["Маша 🦊", "Маша 🦊", "nan", "nan"]
    found = read(table(tmp_path / "rows", cells))
    names = Counter(name for rows in found.splits.values() for name in rows.column("target").to_pylist())
    assert (names["Zoë"], names["Маша 🦊"], names["nan"]) == (4, 2, 2)
    assert_parted(found)
    assert_parted(found, "group")


def test_numbers_are_names_and_nan_among_them_is_none(tmp_path: Path) -> None:
    cells = [f"{number % 10:03}" for number in range(40)]
    cells[:2] = ["nan", "NaN"]
    found = read(table(tmp_path / "rows", cells))
    assert set().union(*inside(found).values()) == {f"{number:03}" for number in range(10)}
    assert [row.reason for row in found.rejected] == ["no identity"] * 2


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_tables_may_hold_numbers_and_lists(tmp_path: Path, form: str) -> None:
    where = table(tmp_path / "rows", each(10)).with_suffix(f".{form}")
    images, numbers = [f"{number:03}.png" for number in range(40)], [number % 10 for number in range(40)]
    if form == "parquet":
        pa.parquet.write_table(pa.table({"image": images, "identity": numbers}), where)
    else:
        rows: list[dict[str, Any]] = [
            {"image": image, "identity": number} for image, number in zip(images, numbers, strict=True)
        ]
        rows[5]["identity"] = [1, 2]
        rows[6]["identity"] = None
        where.write_text("\n".join(map(json.dumps, rows)))
    found = read(where)
    assert set().union(*inside(found).values()) == set(map(str, range(10)))
    assert len(found.rejected) == (2 if form == "jsonl" else 0)


def test_one_image_under_two_names_is_told_and_links_them(tmp_path: Path) -> None:
    where = table(tmp_path / "rows", each(20))
    for image, other in (("000.png", "001.png"), ("021.png", "002.png")):  # of things 0 and 1, and of 1 and 2
        draw(where.parent / image, same_as=str(where.parent / other))
    for seed in range(5):
        found = read(where, seed)
        assert found.audit["conflicting_labels"]["images"] == 2
        assert "2 images stand in the data with different labels." in found.audit["warnings"]
        assert_parted(found)
        linked = {f"thing {number:02}" for number in range(3)}
        assert sum(bool(names & linked) for names in inside(found).values()) == 1


def test_other_rows_have_groups_too(tmp_path: Path) -> None:
    wanted = DataSettings(train=str(table(tmp_path / "rows", each(10))))
    found = load(wanted, tmp_path / "cache", 0, Identities(), IMAGES)
    other = table(tmp_path / "other", ["new", " new", "thing 00", ""], shot=["a", "a", "b", "b"])
    settled = Settled(PROBLEM, found.labels, found.coding)
    again = load_labelled(str(other), wanted, found.columns, settled, tmp_path / "again", IMAGES, Identities())
    assert again.rows.column("target").to_pylist() == ["new", "new", "thing 00"]
    assert again.rows.column("group").to_pylist() == ["new", "new", "thing 00"]
    assert [row.reason for row in again.rejected] == ["no identity"]
