"""Masks: how files spell classes, what is set aside and why, and how folders and tables pair images with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tunesmith.data.cells.image import IMAGES
from tunesmith.data.load import Dataset, load, load_labelled
from tunesmith.data.targets import Settled
from tunesmith.data.targets.masks import VOID, Masks, read_classes, unpacked
from tunesmith.errors import DataError
from tunesmith.report import verdict
from tunesmith.settings import DataSettings

SIZE = (12, 8)


def draw(folder: Path, masks: list[Any], *, images: str = "images", beside: str = "masks") -> Path:
    """Images of noise, which differ, and their masks: arrays, Pillow images, or None for none."""
    random = np.random.default_rng(0)
    for name in (images, beside):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks):
        pixels = random.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / images / f"{number:02}.png")
        if mask is not None:
            found = mask if isinstance(mask, Image.Image) else Image.fromarray(np.asarray(mask, dtype=np.uint8))
            found.save(folder / beside / f"{number:02}.png")
    return folder


def plain(*values: int, rows: int = 12) -> list[np.ndarray]:
    """Masks in which each of `values` fills a stripe, the order turning from row to row."""
    found = []
    for row in range(rows):
        order = np.roll(values, row)
        found.append(np.repeat(order, -(-SIZE[0] // len(order)))[: SIZE[0]][None].repeat(SIZE[1], axis=0))
    return found


def read(folder: Path, classes: Any = None, ignore: tuple[int, ...] = (), **settings: Any) -> Dataset:
    wanted = DataSettings(train=str(folder), near_duplicate=1.0, **settings)
    return load(wanted, folder.parent / "cache", 0, Masks(classes, ignore), IMAGES)


def values(found: Dataset) -> set[int]:
    cells = [row for rows in found.splits.values() for row in rows.column("target").to_pylist()]
    return set().union(*(np.unique(unpacked(cell["mask"])).tolist() for cell in cells))


def test_numbers_are_classes_and_a_file_beside_them_says_their_names(tmp_path: Path) -> None:
    folder = draw(tmp_path / "rows", plain(0, 1, 2, 255))
    (folder / "classes.txt").write_text("# names\nroad\nsky\ngrass and trees\n")
    found = read(folder)
    assert found.labels == ("road", "sky", "grass and trees")
    assert found.problem == "mask"
    assert values(found) == {0, 1, 2, VOID}
    assert found.audit["classes"]["train"] == dict.fromkeys(found.labels, found.splits["train"].num_rows)
    assert any("classes.txt" in guess for guess in found.columns.guesses)
    pixels = found.audit["pixels"]["train"]
    assert pixels["labelled"] == pytest.approx(0.75)
    assert sum(pixels["classes"].values()) == pytest.approx(1)
    assert "Pixels of the train split: road" in verdict.contents(found.audit)[0]


def test_masks_of_two_values_are_a_thing_on_nothing(tmp_path: Path) -> None:
    found = read(draw(tmp_path / "rows", plain(0, 255)))
    assert found.labels == ("background", "object")
    assert values(found) == {0, 1}
    assert any("background and object" in guess for guess in found.columns.guesses)
    named = read(draw(tmp_path / "more", plain(0, 7)), classes=["good", "bad"])
    assert named.labels == ("good", "bad")
    assert values(named) == {0, 1}


def test_values_without_names_are_their_own(tmp_path: Path) -> None:
    found = read(draw(tmp_path / "rows", plain(3, 17, 200)))
    assert found.labels == ("3", "17", "200")
    assert values(found) == {0, 1, 2}


def test_colours_are_classes_where_a_file_says_so(tmp_path: Path) -> None:
    stripes = plain(0, 1, 2)
    colours = np.array([[128, 64, 0], [0, 0, 255], [9, 9, 9]], dtype=np.uint8)
    folder = draw(tmp_path / "rows", [Image.fromarray(colours[mask]) for mask in stripes])
    (folder / "classes.txt").write_text("name,r,g,b\nroad,128,64,0\n0 0 255 sky\n")
    found = read(folder)
    assert found.labels == ("road", "sky")
    assert values(found) == {0, 1, VOID}  # a colour that the file leaves out is not labelled
    (folder / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no file says which class each stands for"):
        read(folder, classes=["road", "sky"])


def test_where_classes_have_colours_grey_ones_are_colours_too(tmp_path: Path) -> None:
    colours = np.array([[255, 255, 255], [0, 0, 0]], dtype=np.uint8)
    folder = draw(tmp_path / "rows", [Image.fromarray(colours[mask]) for mask in plain(0, 1)])
    (folder / "classes.txt").write_text("building 255 255 255\nground 0 0 0\n")
    found = read(folder)
    first = found.splits["train"].slice(0, 1).to_pylist()[0]
    row = int(first["file"][-6:-4])
    np.testing.assert_array_equal(unpacked(first["target"]["mask"]), plain(0, 1)[row])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("class,red,green,blue\nroad,1,2,3\nsky,4,5,6\n", {"road": (1, 2, 3), "sky": (4, 5, 6)}),
        ("0,road,1,2,3\n1,sky,4,5,6\n", {"road": (1, 2, 3), "sky": (4, 5, 6)}),
        ("0 road\n1 sky\n", {"road": None, "sky": None}),
        ("lane 1 1 2 3\nlane 2 4 5 6\n", {"lane 1": (1, 2, 3), "lane 2": (4, 5, 6)}),
        ("\ufeff64 128 64\tAnimal\n192 0 128\tArchway\n", {"Animal": (64, 128, 64), "Archway": (192, 0, 128)}),
        ("# label:color_rgb:parts:actions\nroad:1,2,3::\nsky:4,5,6::\n", {"road": (1, 2, 3), "sky": (4, 5, 6)}),
        ("²\nvoie ferrée\n", {"²": None, "voie ferrée": None}),
    ],
)
def test_files_of_classes_come_in_many_forms(tmp_path: Path, text: str, named: dict[str, Any]) -> None:
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    assert read_classes(tmp_path / "classes.txt") == named


def test_what_training_masks_mean_holds_for_all_others(tmp_path: Path) -> None:
    """Void of a split that lacks a class is no class, and another order beside other data changes nothing."""
    masks = plain(0, 1, 255, rows=12)
    for split, given in (("train", masks), ("val", plain(0, 255, rows=4)), ("test", plain(0, 1, rows=4))):
        draw(tmp_path / "rows" / split, given)
    found = read(tmp_path / "rows")
    assert found.labels == ("background", "object")
    held = [unpacked(row["mask"]) for row in found.splits["validation"].column("target").to_pylist()]
    assert set(np.unique(held).tolist()) == {0, VOID}
    other = draw(tmp_path / "more", plain(0, 1))
    (other / "classes.txt").write_text("sky\nroad\ntree\n")
    settled = Settled("mask", found.labels, found.coding)
    wanted = DataSettings(train=str(other))
    again = load_labelled(str(other), wanted, found.columns, settled, tmp_path / "again", IMAGES, Masks(None, ()))
    assert again.rows.num_rows == 12


def test_a_folder_of_xml_is_no_folder_of_masks(tmp_path: Path) -> None:
    folder = draw(tmp_path / "rows", plain(0, 1), images="JPEGImages", beside="SegmentationClass")
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "00.xml").write_text("<annotation/>")
    (folder / "SegmentationClass" / "00.txt").write_text("note")
    assert sum(read(folder).audit["rows"].values()) == 12
    Image.new("L", SIZE).save(folder / "SegmentationClass" / "00.bmp")
    with pytest.raises(DataError, match="Two masks go by one name"):
        read(folder)


def test_masks_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    folder = draw(tmp_path / "rows", plain(0, 1))
    lines = "\n".join(f"images/{number:02}.png,elsewhere/{number:02}.png" for number in range(12))
    (folder / "rows.csv").write_text(f"file,mask\n{lines}\n")
    with pytest.raises(DataError, match=r"the commonest reason is: no such file \(elsewhere/00.png\) \(12 of 12\)"):
        load(DataSettings(train=str(folder / "rows.csv")), tmp_path / "cache", 0, Masks(None, ()), IMAGES)


def test_values_of_deep_masks_are_whole_numbers_of_any_size(tmp_path: Path) -> None:
    deep = [Image.fromarray(np.asarray(mask, dtype=np.int32)) for mask in plain(-1, 0, 70_000)]
    found = read(draw_tiff(tmp_path / "rows", deep))
    assert found.labels == ("-1", "0", "70000")
    assert values(found) == {0, 1, 2}
    fractions = [Image.fromarray(mask.astype(np.float32) + 0.5) for mask in plain(0, 1)]
    with pytest.raises(DataError, match="mask of fractions"):
        read(draw_tiff(tmp_path / "more", fractions))


def draw_tiff(folder: Path, masks: list[Any]) -> Path:
    draw(folder, [None] * len(masks))
    for number, mask in enumerate(masks):
        mask.save(folder / "masks" / f"{number:02}.tif")
    return folder


def test_palettes_and_deep_grey_hold_numbers(tmp_path: Path) -> None:
    stripes = plain(0, 1, 2)
    indexed = []
    for place, mask in enumerate(stripes):
        image = Image.fromarray(mask.astype(np.uint8), "P") if place % 2 else Image.fromarray(mask.astype(np.uint16))
        if place % 2:
            image.putpalette([level for index in range(256) for level in (index, 255 - index, 7)])
        indexed.append(image)
    assert values(read(draw(tmp_path / "rows", indexed), classes=["a", "b", "c"])) == {0, 1, 2}


def test_what_cannot_be_learned_from_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    masks: list[Any] = plain(0, 1, 2, rows=40)
    masks[3] = None
    masks[5] = np.zeros((4, 4))
    masks[7] = np.full((SIZE[1], SIZE[0]), 255)
    masks[9] = np.full((SIZE[1], SIZE[0]), 9)
    folder = draw(tmp_path / "rows", masks)
    (folder / "masks" / "11.png").write_bytes(b"no image")
    found = read(folder, classes=["a", "b", "c"], max_rejected=0.5)
    reasons = {row.line: row.reason for row in found.rejected}
    assert reasons == {
        4: "no mask",
        6: "mask of 4 × 4 pixels for an image of 12 × 8",
        8: "mask without a labelled pixel",
        10: "mask with the value 9, which is no class (task.ignore: values that are not labelled)",
        12: "mask: not an image of a known kind",
    }
    assert sum(found.audit["rejected"].values()) == 5
    again = read(folder, classes=["a", "b", "c"], max_rejected=0.5, ignore=(9,))
    assert "mask without a labelled pixel" in {row.reason for row in again.rejected if row.line == 10}


@pytest.mark.parametrize("layout", ["train/images", "images/train"])
def test_each_split_may_have_its_own_folders(tmp_path: Path, layout: str) -> None:
    for split, rows in (("train", 12), ("val", 6), ("test", 3)):
        inner = layout.replace("train", split)
        draw(tmp_path / "rows", plain(0, 1, rows=rows), images=inner, beside=inner.replace("images", "masks"))
    found = read(tmp_path / "rows")
    assert found.audit["rows"] == {"train": 12, "validation": 6, "test": 3}


def test_a_table_names_image_and_mask(tmp_path: Path) -> None:
    folder = draw(tmp_path / "rows", plain(0, 1), images="a", beside="b")
    lines = "\n".join(f"a/{number:02}.png,b/{number:02}.png" for number in range(12))
    (folder / "rows.csv").write_text(f"file,mask\n{lines}\n")
    wanted = DataSettings(train=str(folder / "rows.csv"), near_duplicate=1.0)
    assert load(wanted, tmp_path / "cache", 0, Masks(None, ()), IMAGES).audit["rows"]["train"] >= 9


@pytest.mark.parametrize(
    ("text", "told"), [("", "names none"), ("road\nroad\n", "names 'road' twice"), (None, "cannot be read")]
)
def test_a_wrong_file_of_classes_is_one_sentence(tmp_path: Path, text: str | None, told: str) -> None:
    folder, file = draw(tmp_path / "rows", plain(0, 1)), tmp_path / "names.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=told):
        read(folder, classes=str(file))


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only the class '4'"):
        read(draw(tmp_path / "rows", plain(4)))


def as_jpeg(folder: Path) -> Path:
    for file in sorted((folder / "masks").glob("*.png")):
        Image.open(file).convert("L").save(file.with_suffix(".jpg"), quality=80)
        file.unlink()
    return folder


def test_a_jpeg_holds_black_and_white_and_no_numbers(tmp_path: Path) -> None:
    """Its values are not those that were saved: of two there would be a dozen, each of them a class."""
    folder = as_jpeg(draw(tmp_path / "rows", plain(0, 255)))
    assert len(np.unique(np.asarray(Image.open(folder / "masks" / "00.jpg")))) > 2
    found = read(folder)
    assert found.labels == ("background", "object")
    assert values(found) == {0, 1}
    assert any("black (0) and white (255)" in guess for guess in found.columns.guesses)
    with pytest.raises(DataError, match="save masks as PNG"):
        read(as_jpeg(draw(tmp_path / "more", plain(3, 90, 150))))
