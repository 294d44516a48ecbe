"""Images from every form of source; what cannot be read is set aside with its reason; lookalikes; splits by a column."""

from __future__ import annotations

import contextlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from tiny import write_images
from tunesmith.data import lookalikes, picture
from tunesmith.data.cells.image import IMAGES
from tunesmith.data.load import Dataset, load, load_labelled
from tunesmith.data.targets import Settled
from tunesmith.errors import DataError
from tunesmith.record import fingerprint
from tunesmith.settings import DataSettings


def read(cache: Path, **settings: Any) -> Dataset:
    return load(DataSettings(**settings), cache, 0, cells=IMAGES)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 40)


def listed(images: Path) -> list[tuple[str, str]]:
    return [(str(file.relative_to(images.parent)), file.parent.name) for file in sorted(images.rglob("*.png"))]


def test_the_same_images_come_from_folders_tables_and_parquet(images: Path, tmp_path: Path) -> None:
    rows = listed(images)
    (tmp_path / "rows.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    (tmp_path / "rows.tsv").write_text("file_name\tlabel\n" + "".join(f"{path}\t{label}\n" for path, label in rows))
    lines = [json.dumps({"image": path, "label": label}) for path, label in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    contents = [(tmp_path / path).read_bytes() for path, _ in rows]
    labels = [label for _, label in rows]
    struct = pa.table({"image": [{"bytes": one, "path": None} for one in contents], "label": labels})
    pa.parquet.write_table(struct, tmp_path / "struct.parquet")
    pa.parquet.write_table(pa.table({"image": contents, "label": labels}), tmp_path / "bytes.parquet")
    found = {}
    for name in ("images", "rows.csv", "rows.tsv", "rows.jsonl", "struct.parquet", "bytes.parquet"):
        data = read(tmp_path / f"cache-{name}", train=str(tmp_path / name))
        assert data.labels == ("across", "down")
        assert not data.rejected
        found[name] = sorted(
            (row["content"], row["target"], Path(row["file"]).read_bytes())
            for rows in data.splits.values()
            for row in rows.to_pylist()
        )
    assert len(found["images"]) == 40
    assert all(one == found["images"] for one in found.values())


def test_folders_of_splits_are_splits_and_class_names_that_are_numbers_stay_classes(tmp_path: Path) -> None:
    for split, count in (("train", 60), ("val", 31), ("test", 32)):
        for number in range(count):
            file = tmp_path / split / str(number % 30) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([count, number]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(file)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "train" / "3" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "3" / "notes.txt").write_text("x")
    data = read(tmp_path / "cache", train=str(tmp_path))
    assert data.audit["rows"] == {"train": 60, "validation": 31, "test": 32}
    assert (data.problem, len(data.labels)) == ("single-label", 30)
    assert [(row.text, row.reason) for row in data.rejected] == [
        ("train/3/notes.txt", "not an image of a known kind in 'file'")
    ]


def test_what_cannot_be_read_is_set_aside_with_its_reason(images: Path, tmp_path: Path) -> None:
    whole = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(whole, "JPEG")
    bad = {
        "cut.jpg": whole.getvalue()[:900], "text.png": b"no image at all", "empty.png": b"",
        "half.png": Path(images.parent / listed(images)[0][0]).read_bytes()[:200],
    }  # fmt: skip
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    rows = [*listed(images), *((name, "down") for name in (*bad, "absent.png", "images", "", "a\x00b"))]
    (tmp_path / "rows.csv").write_text("file,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    data = read(tmp_path / "cache", train=str(tmp_path / "rows.csv"), max_rejected=0.5)
    assert [row.reason.removesuffix(" in 'file'") for row in data.rejected] == [
        "truncated image", "not an image of a known kind", "empty file", "truncated image", "no such file",
        "file that cannot be read (Is a directory)", "no image", "file that cannot be read (embedded null byte)",
    ]  # fmt: skip
    assert [row.line for row in data.rejected] == list(range(42, 50))
    with pytest.raises(DataError, match=r"8 of 48 rows cannot be used"):
        read(tmp_path / "again", train=str(tmp_path / "rows.csv"))


def test_cells_of_any_kind_are_set_aside_with_a_reason(images: Path, tmp_path: Path) -> None:
    Image.new("LAB", (8, 8)).save(tmp_path / "lab.tif")
    cells: list[Any] = [{"bytes": "aGVsbG8="}, {"path": 5}, "lab.tif", "~nobody", 3]
    rows = [{"image": path, "label": label} for path, label in listed(images)]
    rows += [{"image": cell, "label": "down"} for cell in cells]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read(tmp_path / "cache", train=str(tmp_path / "rows.jsonl"), max_rejected=0.5)
    assert [row.reason.removesuffix(" in 'image'") for row in data.rejected] == [
        "neither a path nor an image", "neither a path nor an image",
        "image of the mode LAB, whose colours cannot be converted", "no such file", "neither a path nor an image",
    ]  # fmt: skip


def test_pictures_are_turned_and_have_the_channels_that_are_wanted(tmp_path: Path) -> None:
    wide = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    wide.save(tmp_path / "turned.png", exif=exif)
    assert picture.read(tmp_path / "turned.png").size == (2, 3)
    deep = np.array([[0, 257, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    shown = picture.converted(picture.read(tmp_path / "deep.png"), 3)
    assert np.asarray(shown).tolist() == [[[0] * 3, [1] * 3, [255] * 3]]
    palette = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)).quantize(2)
    assert np.asarray(picture.converted(palette, 3)).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    clear = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert picture.converted(clear, 3).getpixel((0, 0)) == (10, 20, 30)
    assert picture.converted(Image.new("F", (1, 1), 0.5), 1).getpixel((0, 0)) == 128


def test_colours_for_printing_become_those_of_a_screen_and_what_exif_turns_is_told(
    images: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # half a turn, which no size shows
    Image.new("L", (16, 16), 9).save(images / "turned.jpg", exif=exif)
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(images / "print.jpg")
    rows = [{"image": path, "label": label} for path, label in listed(images)]
    rows += [{"image": f"images/{name}", "label": "down"} for name in ("turned.jpg", "print.jpg")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read(tmp_path / "cache", train=str(tmp_path / "rows.jsonl"))
    assert not data.rejected
    for value, wanted in ((0, False), (1, False), (2, True), (8, True), (9, False)):
        exif[0x0112] = value
        Image.new("L", (20, 10)).save(tmp_path / "one.jpg", exif=exif)
        assert picture.turned((tmp_path / "one.jpg").read_bytes()) is wanted
    assert any(one.startswith("1 image is turned as EXIF says; masks and boxes") for one in data.audit["warnings"])
    red, green, blue = picture.converted(picture.read(images / "print.jpg"), 3).getpixel((8, 8))
    assert red > 200
    assert max(green, blue) < 60


def test_of_several_frames_or_pages_the_first_is_read_and_told(images: Path, tmp_path: Path) -> None:
    frames = [Image.new("L", (16, 16), level) for level in (0, 255)]
    frames[0].save(images / "moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(images / "pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save(images / "still.gif")
    rows = [{"image": path, "label": label} for path, label in listed(images)]
    rows += [{"image": f"images/{name}", "label": "down"} for name in ("moves.gif", "pages.tif", "still.gif")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read(tmp_path / "cache", train=str(tmp_path / "rows.jsonl"))
    assert "2 images have several frames or pages, of which the first is read." in data.audit["warnings"]
    assert np.asarray(picture.converted(picture.read(images / "moves.gif"), 1)).max() == 0
    whole = (images / "moves.gif").read_bytes()
    for end in range(len(whole)):  # of what is cut off the first frame may be whole
        with contextlib.suppress(picture.NotAnImage):
            picture.read(whole[:end])
            assert picture.moves(whole[:end]) in (True, False)


def photograph(seed: int) -> Image.Image:
    """Smooth, as photographs are."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC)


def test_another_encoding_or_size_of_an_image_is_found_and_another_image_is_not(tmp_path: Path) -> None:
    files: list[Path] = []
    for seed in range(20):
        for name, image in (
            ("a.png", photograph(seed)),
            ("b.jpg", photograph(seed)),
            ("c.png", photograph(seed).reduce(2)),
        ):
            files.append(tmp_path / f"{seed}{name}")
            image.save(files[-1])
    plain = Image.new("L", (50, 50), 100), Image.new("L", (50, 50), 140)
    looks = [lookalikes.look(picture.read(file)) for file in files] + [lookalikes.look(image) for image in plain]
    contents = [*map(str, range(len(looks) - 2)), "p", "q"]
    table = pa.table({"content": contents, "look": pa.array(looks, pa.binary(lookalikes.BYTES))})
    exact, near = lookalikes.clusters([table], 0.9)
    assert len(set(exact.tolist())) == 62
    assert len(set(near.tolist())) == 22
    assert all(len(set(near[3 * at : 3 * at + 3].tolist())) == 1 for at in range(20))


def test_copies_stay_on_one_side_and_are_counted(images: Path, tmp_path: Path) -> None:
    for file in list(images.rglob("*.png"))[:10]:
        file.with_name(f"copy-{file.name}").write_bytes(file.read_bytes())
    data = read(tmp_path / "cache", train=str(images))
    assert data.audit["duplicates"]["exact"] == 10
    sides = [set(rows.column("content").to_pylist()) for rows in data.splits.values()]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    assert data.audit["images"]["train"]["modes"] == {"RGB": data.splits["train"].num_rows}
    assert data.audit["images"]["train"]["width"] == {"min": 20.0, "median": 20.0, "max": 20.0}


def test_the_fingerprint_is_of_the_images_and_not_of_their_place(images: Path, tmp_path: Path) -> None:
    first = read(tmp_path / "one", train=str(images)).splits
    moved = images.rename(tmp_path / "moved")
    again = read(tmp_path / "two", train=str(moved)).splits
    assert all(fingerprint(first[name]) == fingerprint(again[name]) for name in first)
    Image.new("RGB", (20, 20)).save(next(iter(sorted(moved.rglob("*.png")))))
    other = read(tmp_path / "three", train=str(moved)).splits
    assert any(fingerprint(first[name]) != fingerprint(other[name]) for name in first)


def table_with_splits(path: Path, column: str = "split") -> Path:
    names = ["train"] * 30 + ["Valid "] * 10 + ["test"] * 8 + ["spare", ""]
    lines = [f"word{n} word{n * 7},{'ab'[n % 2]},{name}" for n, name in enumerate(names)]
    path.write_text(f"text,label,{column}\n" + "\n".join(lines) + "\n")
    return path


def test_a_column_names_the_splits_of_any_table(tmp_path: Path) -> None:
    rows = str(table_with_splits(tmp_path / "rows.csv"))
    settings = DataSettings(train=rows, split_column="split")
    found = load(settings, tmp_path / "cache", 0)
    assert found.audit["rows"] == {"train": 30, "validation": 10, "test": 8}
    assert [row.reason for row in found.rejected] == ["no split in 'split'"] * 2
    assert "split" not in found.columns.ignored
    other = load_labelled(rows, settings, found.columns, Settled(found.problem, found.labels), tmp_path / "other")
    assert other.rows.num_rows == 8
    plain = load(DataSettings(train=rows), tmp_path / "plain", 0)
    assert any("data.split_column=split" in guess for guess in plain.columns.guesses)


def test_a_wrong_column_of_splits_is_refused_in_words(tmp_path: Path) -> None:
    rows = str(table_with_splits(tmp_path / "rows.csv"))
    for settings, message in (
        ({"split_column": "spilt"}, "no column 'spilt'; did you mean 'split'"),
        ({"split_column": "label"}, "names no row as train"),
        ({"split_column": "split", "test": rows}, "names test rows, and data.test names a file"),
    ):
        with pytest.raises(DataError, match=message):
            load(DataSettings(train=rows, **settings), tmp_path / "cache", 0)


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    write_images(tmp_path / "vehicles", 40)
    for old, new in (("across", "train"), ("down", "bus")):
        (tmp_path / "vehicles" / old).rename(tmp_path / "vehicles" / new)
    assert read(tmp_path / "cache", train=str(tmp_path / "vehicles")).labels == ("bus", "train")
    (tmp_path / "vehicles" / "train" / "fast").mkdir()
    with pytest.raises(DataError, match=r"a folder train with folders in it, and beside it others: bus") as refused:
        read(tmp_path / "cache", train=str(tmp_path / "vehicles"))
    assert "another name" in str(refused.value.mend)


@pytest.mark.parametrize("splits", [False, True])
def test_a_list_beside_images_says_their_targets(images: Path, tmp_path: Path, *, splits: bool) -> None:
    """As `datasets` lays out folders of images."""
    files = sorted(images.rglob("*.png"))
    for number, file in enumerate(files):
        folder = tmp_path / "listed" / ("test" if splits and number % 4 == 0 else "train" if splits else "")
        (folder / "more").mkdir(parents=True, exist_ok=True)
        (folder / "more" / f"{number}.png").write_bytes(file.read_bytes())
        with open(folder / "metadata.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps({"file_name": f"more/{number}.png", "kind": file.parent.name}) + "\n")
    found = read(tmp_path / "cache", train=str(tmp_path / "listed"), target="kind")
    assert found.labels == ("across", "down")
    assert not found.rejected
    assert sum(found.audit["rows"].values()) == len(files)
    assert not splits or found.audit["rows"]["test"] == len(files) // 4


def test_a_list_without_names_of_files_is_refused(images: Path) -> None:
    (images / "metadata.csv").write_text("name,label\nacross/0.png,a\n")
    with pytest.raises(DataError, match="has no column file_name"):
        read(images.parent / "cache", train=str(images))
