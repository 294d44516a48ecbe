"""Boxes: the forms that cells spell them in, what is cut or set aside, and how COCO and VOC pair them with images."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from tunesmith.data.boxed import boxed
from tunesmith.data.cells.image import IMAGES
from tunesmith.data.load import Dataset, load, load_labelled
from tunesmith.data.pixels import Pixels
from tunesmith.data.readers import open_source
from tunesmith.data.rejected import Rejected
from tunesmith.data.targets import Reason, Settled
from tunesmith.data.targets.box_cells import boxes_of
from tunesmith.data.targets.boxes import Boxes
from tunesmith.errors import DataError, SettingsError
from tunesmith.settings import DataSettings

WIDTH, HEIGHT = 40, 30
ROWS = {"train": 8, "validation": 3, "test": 2}
FOLDERS = (("train", 8), ("valid", 3), ("test", 2))
CAT = {"bbox": [2, 3, 10, 8], "category_id": 1}
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dög"}]


def draw(folder: Path, names: list[str]) -> Path:
    """Images of noise, which differ from those of other names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(list(str(folder / name).encode()))
        Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / name)
    return folder


def numbered(rows: int) -> list[str]:
    return [f"{number:02}.png" for number in range(rows)]


def table(folder: Path, cells: list[Any]) -> Path:
    """A .jsonl of images and objects."""
    names = numbered(len(cells))
    draw(folder, names)
    lines = [json.dumps({"image": name, "objects": cell}) for name, cell in zip(names, cells, strict=True)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "rows.jsonl"


def read(where: Path, classes: Any = None, box_format: Any = "auto", **settings: Any) -> Dataset:
    wanted = DataSettings(**{"train": str(where), "near_duplicate": 1.0, "max_rejected": 0.5, **settings})
    return load(wanted, where.parent / "cache", 0, Boxes(classes, box_format), IMAGES)


def targets(found: Dataset) -> dict[str, dict[str, Any]]:
    """By the name of the image's file, from all splits."""
    rows = [row for one in found.splits.values() for row in one.select(["file", "target"]).to_pylist()]
    return {Path(row["file"]).name: row["target"] for row in rows}


def coco(file: Path, annotations: list[Any], names: list[str], **more: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES} | more
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def on_each(names: list[str], **more: Any) -> list[dict[str, Any]]:
    return [{"image_id": number} | CAT | more for number in range(len(names))]


def voc(file: Path, objects: list[tuple[Any, ...]], file_name: str | None = None) -> None:
    """Objects: a name, four sides, perhaps whether it is difficult."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = ""
    for name, *sides in objects:
        corners = "".join(
            f"<{key}>{side}</{key}>" for key, side in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=False)
        )
        difficult = f"<difficult>{sides[4]}</difficult>" if len(sides) > 4 else ""
        text += f"<object><name>{name}</name><bndbox>{corners}</bndbox>{difficult}</object>"
    called = f"{file.stem}.png" if file_name is None else file_name
    file.write_text(f"<annotation><filename>{called}</filename>{text}</annotation>", encoding="utf-8")


def records(where: Path) -> dict[str, list[Any]]:
    return {split: list(source.records) for split, source in open_source(str(where), "utf-8").items()}


@pytest.mark.parametrize(
    "cell",
    [
        {"boxes": [[2, 3, 12, 11], [0, 0, 5, 5]], "labels": ["cat", "7"]},
        {"boxes": [[2, 3, 12, 11], [0, 0, 5, 5]], "labels": ["cat", 7], "ignored": [False, False]},
        {"bbox": [[2, 3, 10, 8], [0, 0, 5, 5]], "category": ["cat", "7"], "iscrowd": [0, 0], "area": [80, 25]},
        {"bbox": [[2, 3, 10, 8], [0, 0, 5, 5]], "categories": ["cat", 7.0], "iscrowd": None},
        [{"bbox": [2, 3, 10, 8], "category": "cat"}, {"bbox": [0, 0, 5, 5], "category_id": 7}],
        [{"box": [2, 3, 12, 11], "label": " cat "}, {"box": {"xmin": 0, "ymin": 0, "xmax": 5, "ymax": 5}, "class": 7}],
        [
            {"xmin": "2", "ymin": "3", "xmax": "12", "ymax": "11", "label": "cat"},
            {"xmin": 0, "ymin": 0, "xmax": 5, "ymax": 5, "label": "7"},
        ],
    ],
)
def test_every_form_of_cell_says_the_same(cell: Any) -> None:
    found = boxes_of(json.dumps(cell), "auto")
    assert found == [((2, 3, 12, 11), "cat", False), ((0, 0, 5, 5), "7", False)]


def test_one_object_needs_no_list_and_the_setting_says_how_numbers_are_read() -> None:
    one = json.dumps({"bbox": [2, 3, 12, 11], "label": "cat"})
    assert boxes_of(one, "auto") == [((2, 3, 14, 14), "cat", False)]
    assert boxes_of(one, "corners") == [((2, 3, 12, 11), "cat", False)]
    named = json.dumps([{"xmin": 2, "ymin": 3, "xmax": 12, "ymax": 11, "label": "cat"}])
    assert boxes_of(named, "xywh") == [((2, 3, 12, 11), "cat", False)]


@pytest.mark.parametrize("cell", ["[]", '{"boxes": [], "labels": []}', '{"bbox": [], "category": []}'])
def test_an_empty_list_is_an_image_without_objects(cell: str) -> None:
    assert boxes_of(cell, "auto") == []


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "no boxes"),
        ("  ", "no boxes"),
        ("null", "no boxes"),
        ('{"bbox": null, "category": null}', "no boxes"),
        ("cat at 3, 4", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5_000, "not JSON"),
        ("7", "neither"),
        ("[[1, 2, 3, 4]]", "neither"),
        ("{}", "object without a box"),
        ('[{"label": "cat"}]', "object without a box"),
        ('[{"xmin": 1, "ymin": 2, "xmax": 3, "label": "cat"}]', "box without 'ymax'"),
        ('[{"bbox": [1, 2, 3], "label": "cat"}]', "not of four numbers"),
        ('[{"bbox": [[1], 2, 3, 4], "label": "cat"}]', "not of four numbers"),
        ('[{"bbox": "1 2 3 4", "label": "cat"}]', "not of four numbers"),
        ('[{"bbox": [1, 2, 3, 4]}]', "box without a class"),
        ('[{"bbox": [1, 2, 3, 4], "label": ""}]', "box without a class"),
        ('[{"bbox": [1, 2, 3, 4], "label": 1.5}]', "neither a name nor a whole number"),
        ('[{"bbox": [1, 2, 3, 4], "label": ["cat"]}]', "neither a name nor a whole number"),
        ('{"boxes": [[1, 2, 3, 4]], "labels": ["a", "b"]}', "1 in 'boxes', but 2 in 'labels'"),
        ('{"boxes": [[1, 2, 3, 4]], "labels": "a"}', "1 in 'boxes', but no list in 'labels'"),
    ],
)
def test_a_cell_that_cannot_be_read_says_why(cell: str | None, reason: str) -> None:
    found = boxes_of(cell, "auto")
    assert isinstance(found, Reason)
    assert reason in found


def test_boxes_are_cut_to_the_image_and_those_without_a_use_are_set_aside(tmp_path: Path) -> None:
    corners: list[Any] = [
        [-4, 2, 10, 10],  # cut
        [5, 5, WIDTH + 0.4, 20],  # rounding
        [5, 5, 5, 20],
        [9, 5, 5, 20],
        [WIDTH + 1, 0, WIDTH + 9, 9],
        [-1e300, -1e300, 1e300, 1e300],  # cut to the whole image
        [1, 1, float("nan"), 5],
        [1, 1, float("inf"), 5],
        [1, 1, 10**400, 5],
        [1, 1, "wide", 5],
        [1, 1, None, 5],
        [-5, 0, 0.5, 10],
        [-4, 2, 10, 10],  # the first again
    ]
    cells: list[Any] = [{"boxes": [[1, 1, 9, 9]], "labels": ["cat"]}] * 10
    cells[3] = {"boxes": corners, "labels": ["cat"] * len(corners)}
    found = read(table(tmp_path / "rows", cells))
    target = targets(found)["03.png"]
    assert np.reshape(target["boxes"], (-1, 4)).tolist() == [
        [0, 2, 10, 10],
        [5, 5, WIDTH, 20],
        [0, 0, WIDTH, HEIGHT],
    ]
    assert target["classes"] == [0, 0, 0]
    assert target["cut"] == 2
    reasons = {
        "not a number": 5, "no area": 2, "outside the image": 1, "less than a pixel wide or high": 1,
        "stands there twice": 1,
    }  # fmt: skip
    split = next(name for name, one in found.audit["boxes"].items() if one["cut"])
    counted = found.audit["boxes"][split]
    assert counted["set_aside"] == reasons
    assert counted["examples"] == [[found.splits[split].column("id")[_row(found, split)].as_py(), one] for one in (
        "no area", "no area", "outside the image", "not a number", "not a number",
    )]  # fmt: skip
    assert (
        f"{split}: 2 boxes reached out of their image and were cut to it; 10 were set aside (not a number: 5, "
        "no area: 2, outside the image: 1, less than a pixel wide or high: 1, stands there twice: 1)."
    ) in found.audit["warnings"]


def _row(found: Dataset, split: str) -> int:
    names = [Path(file).name for file in found.splits[split].column("file").to_pylist()]
    return names.index("03.png")


def test_images_without_objects_stay_and_are_counted(tmp_path: Path) -> None:
    cells: list[Any] = [[]] * 14 + [[{"box": [1, 1, 9, 9], "label": "cat"}, {"box": [2, 2, 9, 9], "label": "cat"}]] * 6
    found = read(table(tmp_path / "rows", cells))
    assert sum(found.audit["rows"].values()) == 20
    train = found.audit["boxes"]["train"]
    assert train["boxes"] == 2 * (found.audit["rows"]["train"] - train["without"])
    assert train["a_image"] == {"min": 0, "median": 0, "max": 2}
    assert found.audit["classes"]["train"] == {"cat": train["boxes"]}
    assert f"train: {train['without']} of {found.audit['rows']['train']} images have no box." in found.audit["warnings"]


def test_one_class_is_enough_and_a_class_of_no_training_row_is_set_aside(tmp_path: Path) -> None:
    cat, dog = ([{"box": [1, 1, 9, 9], "label": name}] for name in ("cat", "dog"))
    crowd = [*cat, {"box": [3, 3, 9, 9], "label": "dog", "iscrowd": 1}]
    train, test = table(tmp_path / "train", [cat] * 10), table(tmp_path / "test", [cat, cat, dog, crowd])
    found = read(train, test=str(test))
    assert found.labels == ("cat",)
    assert [row.reason for row in found.rejected] == ["label 'dog', which no training row has"]
    assert found.audit["boxes"]["test"]["set_aside"] == {"ignored, and of an unknown class": 1}
    settled = Settled("boxes", found.labels, found.coding)
    wanted = DataSettings(train=str(test))
    again = load_labelled(str(test), wanted, found.columns, settled, tmp_path / "again", IMAGES, Boxes(None))
    assert again.rows.num_rows == 3
    with pytest.raises(DataError, match=r"task\.classes does not name"):
        read(train, classes=["bird"])


def test_numbers_are_classes_that_a_list_or_a_file_names(tmp_path: Path) -> None:
    cells = [{"boxes": [[1, 1, 9, 9], [2, 2, 9, 9]], "labels": [number % 2, 10]} for number in range(12)]
    where = table(tmp_path / "rows", cells)
    assert read(where).labels == ("0", "1", "10")
    names = [f"class {number}" for number in range(11)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    for classes in (names, str(tmp_path / "names.txt")):
        found = read(where, classes=classes)
        assert found.labels == tuple(names)
        assert targets(found)["03.png"]["classes"] == [1, 10]
    of_numbers = read(where, classes=["10", "1", "0"])  # names that are numbers are names
    assert targets(of_numbers)["03.png"]["classes"] == [1, 0]
    with pytest.raises(SettingsError, match="names 'a' twice"):
        Boxes(["a", "b", "a"])


def test_what_nothing_can_be_learned_from_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the commonest reason is: boxes that are not JSON \(10 of 10\)"):
        read(table(tmp_path / "words", ["a cat"] * 10))
    with pytest.raises(DataError, match="hold no box"):
        read(table(tmp_path / "empty", [[]] * 10))
    with pytest.raises(DataError, match=r"pixels: shares times width and height"):
        read(table(tmp_path / "shares", [[{"box": [0.1, 0.1, 0.9, 1], "label": "cat"}]] * 10))


@pytest.mark.parametrize("form", ["lists", "mappings"])
def test_tables_of_arrow_hold_structs(tmp_path: Path, form: str) -> None:
    names = numbered(10)
    draw(tmp_path / "rows", names)
    cell = {"bbox": [[2.0, 3.0, 10.0, 8.0]], "category": ["кот"]}
    cells = [cell] * 10 if form == "lists" else [[{"bbox": cell["bbox"][0], "category": "кот"}]] * 10
    pa.parquet.write_table(pa.table({"image": names, "objects": cells}), tmp_path / "rows" / "rows.parquet")
    found = read(tmp_path / "rows" / "rows.parquet")
    assert found.labels == ("кот",)
    assert targets(found)["00.png"]["boxes"] == [2, 3, 12, 11]


def test_coco_has_a_row_an_image(tmp_path: Path) -> None:
    names = numbered(12)
    draw(tmp_path / "rows" / "Images", names)
    annotations = on_each(names[:-1])
    annotations += [{"image_id": 1, "category_id": 2, "bbox": [0, 0, 20, 20], "iscrowd": 1}]
    annotations += [{"image_id": 2, "category_id": 9, "bbox": [0, 0, 20, 20]}]
    annotations += [{"image_id": 3, "category_id": 2, "segmentation": []}]
    annotations += [{"image_id": 4, "category_id": 2, "bbox": [1, 1, 5, 5]}]
    annotations += [{"image_id": 4, "caption": "what the image is about"}]
    annotations += [{"image_id": 77, "category_id": 2, "bbox": [1, 1, 5, 5]}, "no annotation"]
    found = read(coco(tmp_path / "rows" / "all.json", annotations, names))
    assert found.labels == ("cat", "dög")
    assert sum(found.audit["rows"].values()) == 11
    assert found.audit["boxes"]["train"]["set_aside"] == {"not a number": 1}  # of an outline alone
    assert [(row.line, row.reason) for row in found.rejected] == [
        (3, "annotation of the category 9, which is not listed"),
        (0, "2 annotations of images that are not listed"),
    ]
    by_name = targets(found)
    assert by_name["01.png"]["boxes"] == [2, 3, 12, 11]
    assert by_name["01.png"]["ignored"] == [0, 0, 20, 20]
    assert by_name["01.png"]["ignored_classes"] == [1]
    assert by_name["04.png"]["classes"] == [0, 1]
    assert by_name["11.png"]["classes"] == []


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("all.json", "."),
        ("all.json", "JPEGImages"),
        ("all.json", "all"),
        ("labels/all.json", "images"),
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/train2017.json", "train2017"),
    ],
)
def test_coco_finds_its_images_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, images: str
) -> None:
    names = numbered(12)
    draw(tmp_path / "rows" / images, names[1:])  # the first is missing
    where = coco(tmp_path / "rows" / file, on_each(names), names)
    found = read(where)
    assert sum(found.audit["rows"].values()) == 11
    assert [row.reason for row in found.rejected] == ["no such file in 'image'"]
    monkeypatch.chdir(where.parent)
    cells = [record[1][1] for record in records(Path(where.name))["train"]]
    assert all(os.path.isfile(cell) and not os.path.isabs(cell) for cell in cells[1:])


def test_coco_through_a_link_finds_its_images(tmp_path: Path) -> None:
    names = numbered(12)
    draw(tmp_path / "disk" / "deep" / "images", names)
    coco(tmp_path / "disk" / "deep" / "labels" / "all.json", on_each(names), names)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "labels").symlink_to(tmp_path / "disk" / "deep" / "labels")
    draw(tmp_path / "rows" / "images", names)
    assert not read(tmp_path / "rows" / "labels" / "all.json").rejected


def test_coco_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    names = numbered(3)
    images = [{"id": 5, "file_name": name} for name in names]
    with pytest.raises(DataError, match=r"the id 5 to two images: 00\.png and 01\.png"):
        records(coco(tmp_path / "twice.json", [], names, images=images))
    with pytest.raises(DataError, match="lists no images"):
        records(coco(tmp_path / "none.json", [], []))
    where = coco(tmp_path / "odd.json", [], [], images=["no image", {"id": 1}, {"id": 2, "file_name": "x.png"}])
    odd = records(where)["train"]
    assert [one.reason for one in odd if isinstance(one, Rejected)] == ["image without an id or a file_name"] * 2


def test_coco_without_categories_has_numbers_and_its_numbers_may_be_corners(tmp_path: Path) -> None:
    names = numbered(10)
    draw(tmp_path / "rows", names)
    where = coco(tmp_path / "rows" / "all.json", on_each(names), names, categories=None)
    assert read(where).labels == ("1",)
    assert targets(read(where, box_format="corners"))["00.png"]["boxes"] == [2, 3, 10, 8]


def test_a_file_of_coco_a_split_is_one_source(tmp_path: Path) -> None:
    for split, rows in FOLDERS:
        names = [f"{split}{name}" for name in numbered(rows)]
        draw(tmp_path / "rows" / "images", names)
        coco(tmp_path / "rows" / f"{split}.json", on_each(names), [f"images/{name}" for name in names])
    assert {split: len(one) for split, one in records(tmp_path / "rows").items()} == ROWS
    assert read(tmp_path / "rows").audit["rows"] == ROWS


def test_coco_own_folders_are_read(tmp_path: Path) -> None:
    for split, rows in FOLDERS:
        draw(tmp_path / "rows" / f"{split}2017", numbered(rows))
        file = tmp_path / "rows" / "annotations" / f"instances_{split}2017.json"
        coco(file, on_each(numbered(rows)), numbered(rows))
    (tmp_path / "rows" / "annotations" / "captions_train2017.json").write_text("{}")
    found = read(tmp_path / "rows")
    assert found.audit["rows"] == ROWS
    assert not found.rejected
    coco(tmp_path / "rows" / "annotations" / "instances_train2014.json", on_each(numbered(2)), numbered(2))
    with pytest.raises(DataError, match="two of the train split"):
        records(tmp_path / "rows")


def test_coco_beside_a_folder_of_images_is_no_folder_of_masks(tmp_path: Path) -> None:
    draw(tmp_path / "rows" / "images", numbered(4))
    coco(tmp_path / "rows" / "annotations" / "instances_default.json", on_each(numbered(4)), numbered(4))
    (only,) = records(tmp_path / "rows").values()
    assert [record[1][1] for record in only] == [f"images/{name}" for name in numbered(4)]


@pytest.mark.parametrize("layout", ["splits", "whole"])
def test_roboflow_folders_are_read(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "rows"
    for split, rows in FOLDERS if layout == "splits" else ((".", 10),):
        draw(root / split, numbered(rows))
        coco(root / split / "_annotations.coco.json", on_each(numbered(rows)), numbered(rows))
    found = read(root)
    assert not found.rejected
    if layout == "splits":
        assert found.audit["rows"] == ROWS
        (root / "train" / "_annotations.coco.json").unlink()
        with pytest.raises(DataError, match="none for train"):
            records(root)
    else:
        (root / "_annotations.coco.json").write_text("[]")
        with pytest.raises(DataError, match="not of COCO's form"):
            records(root)


def annotate(root: Path, rows: int, *, xml: str = "Annotations", images: str = "JPEGImages") -> Path:
    """A folder of VOC's form, with a cat and a difficult dog on each image."""
    names = numbered(rows)
    draw(root / images, names)
    for name in names:
        voc(root / xml / name.replace(".png", ".xml"), [("cat", 2, 3, 12, 11, 0), ("dög", 1, 1, 9.5, 9, 1)])
    return root


def test_voc_has_splits_in_image_sets(tmp_path: Path) -> None:
    root = annotate(tmp_path / "rows", 12)
    main = root / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("00\n01\n\n02.png\n03\n04\n05\n05\n99\n")
    (main / "val.txt").write_text("06\n07\n")
    (main / "trainval.txt").write_text("00\n06\n")
    (main / "test.txt").write_text("08\n09\n")
    (main / "cat_train.txt").write_text("00  1\n01 -1\n")
    for where in (root, root / "Annotations"):
        found = read(where)
        assert found.audit["rows"] == {"train": 6, "validation": 2, "test": 2}
        assert [(row.line, row.reason) for row in found.rejected] == [(7, "listed, but without an XML file")]
        assert found.labels == ("cat",)  # of dögs there are difficult ones alone
    (main / "train.txt").unlink()
    read_again = records(root)
    assert {split: [record[1][0] for record in one] for split, one in read_again.items()} == {
        "train": ["00", "06"], "test": ["08", "09"],
    }  # fmt: skip
    (main / "trainval.txt").unlink()
    with pytest.raises(DataError, match="none for train"):
        records(root)


@pytest.mark.parametrize(
    ("xml", "images"),
    [
        (".", "."),
        ("annotations", "images"),
        ("Annotations", "."),
        (".", "images"),
        ("Annotations", "Annotations"),
        ("Annotations", "Annotations/img"),
    ],
)
def test_voc_finds_images_in_and_beside_its_folder(tmp_path: Path, xml: str, images: str) -> None:
    root = annotate(tmp_path / "rows", 10, xml=xml, images=images)
    if (xml, images) == ("Annotations", "Annotations"):
        root = root / xml  # with images in it, what is in the folder above might be masks
    found = read(root)
    assert sum(found.audit["rows"].values()) == 10
    target = targets(found)["04.png"]
    assert (target["boxes"], target["classes"]) == ([2, 3, 12, 11], [0])
    assert target["set_aside"] == ["ignored, and of an unknown class"]


@pytest.mark.parametrize("xml", [".", "Annotations"])
def test_voc_may_have_a_folder_a_split(tmp_path: Path, xml: str) -> None:
    for split, rows in FOLDERS:
        annotate(tmp_path / "rows" / split, rows, xml=xml, images="." if xml == "." else "images")
    found = read(tmp_path / "rows")
    assert found.audit["rows"] == ROWS


def test_voc_names_its_image_in_many_ways(tmp_path: Path) -> None:
    draw(tmp_path / "rows", ["a.png", "b.b.jpg", "c.webp", "d.png", "é e.png"])
    for stem, called in (
        ("a", r"C:\data\a.png"), ("b.b", "b.b"), ("c", "elsewhere.jpg"), ("other", "d.png"), ("é e", ""), ("x", "x.png"),
    ):  # fmt: skip
        voc(tmp_path / "rows" / f"{stem}.xml", [], called)
    (only,) = records(tmp_path / "rows").values()
    assert {record[1][0]: record[1][1] for record in only} == {
        "a": "a.png", "b.b": "b.b.jpg", "c": "c.webp", "other": "d.png", "é e": "é e.png", "x": "x.png",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<annotation><object>", "broken XML (no element found)"),
        (b"", "broken XML (no element found)"),
        (b"\xff\xfe\x00nothing", "broken XML (syntax error)"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "broken XML (unknown encoding)"),
        (b"<html/>", "XML of <html>, where <annotation> is expected"),
        (
            b'<!DOCTYPE x [<!ENTITY a "ha">]><annotation><filename>&a;</filename></annotation>',
            "XML that declares entities",
        ),
        (
            b'<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/hostname">]><annotation>&a;</annotation>',
            "XML that declares entities",
        ),
        (b"<annotation><object><bndbox/></object></annotation>", "object without a name"),
        (b"<annotation><object><name>a</name></object></annotation>", "object without a bndbox"),
        (
            b"<annotation><object><name>a</name><bndbox><xmin>1</xmin></bndbox></object></annotation>",
            "object without a bndbox",
        ),
    ],
)
def test_a_broken_file_of_voc_is_a_row_set_aside(tmp_path: Path, content: bytes, reason: str) -> None:
    root = annotate(tmp_path / "rows", 4)
    (root / "Annotations" / "02.xml").write_bytes(content)
    (root / "Annotations" / "._02.xml").write_bytes(content)
    found = [one for one in records(root)["train"] if isinstance(one, Rejected)]
    assert [(one.line, one.text) for one in found] == [(3, "02.xml")]
    assert found[0].reason.startswith(reason)


def test_a_number_of_voc_that_is_none_costs_its_box_alone(tmp_path: Path) -> None:
    root = annotate(tmp_path / "rows", 10)
    voc(root / "Annotations" / "05.xml", [("cat", 1, 1, "NaN", 9), ("cat", 1, 1, "wide", 9), ("cat", 3, 3, 9, 9)])
    target = targets(read(root))["05.png"]
    assert target["boxes"] == [3, 3, 9, 9]
    assert target["set_aside"] == ["not a number"] * 2


def test_kinds_of_folders_are_told_apart(tmp_path: Path) -> None:
    root = annotate(tmp_path / "rows", 4)
    assert list(open_source(str(root), "utf-8")["train"].columns) == ["id", "image", "objects"]
    draw(root / "SegmentationClass", numbered(4))
    assert open_source(str(root), "utf-8")["train"].columns == ["image", "mask"]
    assert open_source(str(root / "Annotations"), "utf-8")["train"].columns == ["id", "image", "objects"]
    draw(tmp_path / "masks" / "images", numbered(4))
    draw(tmp_path / "masks" / "annotations", numbered(4))
    assert open_source(str(tmp_path / "masks"), "utf-8")["train"].columns == ["image", "mask"]
    draw(tmp_path / "classes", ["cat/0.png", "dog/0.png"])
    (tmp_path / "classes" / "note.xml").write_text("<note/>")
    assert open_source(str(tmp_path / "classes"), "utf-8")["train"].columns == ["file", "label"]


def test_boxes_become_shares_of_the_image() -> None:
    ones = np.ones(3, dtype=np.float32)
    pixels = Pixels(np.zeros((3, 3, 8, 8), dtype=np.uint8), ones, ones, None, "key")
    sizes = np.array([[30, 40], [30, 40], [10, 10]])
    values = [
        {"boxes": [0, 0, 20, 15, 10, 0, 30, 30], "classes": [1, 0], "ignored": [], "ignored_classes": []},
        {"boxes": [], "classes": [], "ignored": [0, 0, 40, 30], "ignored_classes": [1]},
        {"boxes": [0, 0, 10, 10], "classes": [0], "ignored": [], "ignored_classes": []},
    ]
    found = boxed(pixels, values, sizes)
    assert found.count(np.array([0, 1, 2])) == 4
    assert found.count(np.array([], dtype=np.int64)) == 0
    (first, classes), (second, none) = found.truth(np.array([0, 1]))
    assert first.tolist() == [[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.5, 1]]
    assert classes.tolist() == [1, 0]
    assert second.shape == (0, 4)
    assert none.dtype == np.int64
    assert found.ignored is not None
    assert found.ignored[1].tolist() == [[0.5, 0.5, 1, 1]]
    moved = [values[1], values[0], values[2]]
    assert len({found.key, boxed(pixels, moved, sizes).key, "key"}) == 3
    assert boxed(pixels, values, sizes).key == found.key
    without = boxed(pixels, None, sizes)
    assert (without.boxes, without.key, without.count(np.array([0, 2]))) == (None, "key", 2)


def test_boxes_of_an_image_of_another_size_are_set_aside(tmp_path: Path) -> None:
    names = numbered(20)
    draw(tmp_path, names)
    file = coco(tmp_path / "rows.json", on_each(names), names)
    content = json.loads(file.read_text())
    for image in content["images"]:
        image |= {"width": WIDTH, "height": HEIGHT}
    content["images"][3] |= {"width": 2 * WIDTH, "height": 2 * HEIGHT}
    content["images"][4] |= {"width": HEIGHT, "height": WIDTH}
    file.write_text(json.dumps(content))
    found = read(file)
    reasons = {row.reason for row in found.rejected}
    assert len(found.rejected) == 2
    assert f"boxes of {2 * WIDTH} × {2 * HEIGHT} pixels for an image of {WIDTH} × {HEIGHT}" in reasons


def test_voc_that_was_copied_goes_by_its_own_name(tmp_path: Path) -> None:
    names = numbered(12)
    draw(tmp_path, names)
    for name in names:
        voc(tmp_path / f"{Path(name).stem}.xml", [("cat", 2, 3, 12, 11)], file_name=names[0])
    assert sorted(targets(read(tmp_path))) == names


def test_coco_of_windows_finds_its_images(tmp_path: Path) -> None:
    names = [f"images/{name}" for name in numbered(12)]
    draw(tmp_path, names)
    file = coco(tmp_path / "rows.json", on_each(names), [name.replace("/", "\\") for name in names])
    assert len(targets(read(file))) == 12
