"""Runs on images, from a folder to a report: what is left opens with transformers, and commands know files and folders."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import tunesmith
from tiny import write_image_model, write_images
from tunesmith import predict, prepare
from tunesmith.data import picture
from tunesmith.data.cells import Place
from tunesmith.data.cells.image import IMAGES
from tunesmith.errors import DataError
from tunesmith.run import Run
from tunesmith.settings import DataSettings, parse
from tunesmith.tasks.problems import MultiLabel
from tunesmith.train.course import Job
from tunesmith.train.events import HeadSolved, StepDone, Trained
from tunesmith.train.loop import train

TRAIN = {"epochs": 4, "batch_size": 16, "learning_rate": 2e-3, "precision": "fp32"}


def given(folder: Path, architecture: str, **more: Any) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "model": str(write_image_model(folder / "model", architecture)),
        "data": {"train": str(write_images(folder / "images", 120)), "split": [0.6, 0.2, 0.2]},
        "method": "full",
        "train": TRAIN,
        "evaluate": {"resamples": 100},
    } | more


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A finished run of `full` on a ResNet, and its images; the large ones among them are labelled wrongly."""
    folder = tmp_path_factory.mktemp("images")
    settings, images = given(folder, "resnet"), folder / "images"
    for number, file in enumerate(sorted((images / "across").glob("*.png"))[:20]):
        Image.open(file).resize((200, 300)).save(images / "down" / f"large{number}.png")
        file.unlink()
    return tunesmith.finetune(settings, run=folder / "run"), images


def test_a_run_on_images_learns_and_leaves_what_it_should(finished: tuple[Run, Path]) -> None:
    place, _ = finished
    report = json.loads(place.report.read_text())
    assert report["metrics"]["test"]["accuracy"]["value"] > report["baselines"]["majority"]["accuracy"]["value"]
    assert report["model"]["loader"] == "pipeline"
    assert "truncation" not in report
    page = place.page.read_text()
    assert "tokens" not in page
    assert "in colour, from 20 × 20 to 200 × 300 pixels" in page
    assert not place.cache.exists()


def test_mistakes_are_shown_as_small_pictures_inside_the_page(finished: tuple[Run, Path]) -> None:
    place, _ = finished
    mistakes = json.loads(place.report.read_text())["mistakes"]
    assert mistakes[0].keys() >= {"id", "image", "file", "truth", "prediction"}
    large = next(row for row in mistakes if "large" in row["file"])
    kind, _, content = large["image"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(BytesIO(base64.b64decode(content))).size == (64, 96)
    assert place.page.read_text().count('<img src="data:image/jpeg') == len(mistakes)


def test_the_code_of_the_card_says_what_predict_says(finished: tuple[Run, Path]) -> None:
    place, images = finished
    files = [str(file) for file in sorted(images.rglob("*.png"))[55:65]]
    code = (place.model / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace('"your image.jpg"', repr(files))
    code = code.replace("print(", "import json\nprint(json.dumps(", 1).rstrip() + ")"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    public = [row[0]["label"] for row in json.loads(done.stdout.splitlines()[-1])]
    assert public == [row["prediction"] for row in tunesmith.load(place.folder).predict(files)]


def test_files_folders_tables_and_lines_are_predicted_in_their_order(
    finished: tuple[Run, Path], tmp_path: Path
) -> None:
    place, images = finished
    files = sorted(images.rglob("*.png"))
    (tmp_path / "bad.png").write_text("none")
    found = predict.predict_inputs(place.folder, [str(files[0]), str(tmp_path / "bad.png"), str(images / "down")], [])
    assert [row["id"] for row in found] == [
        str(files[0]),
        str(tmp_path / "bad.png"),
        *map(str, sorted((images / "down").iterdir())),
    ]
    assert found[1]["prediction"] is None
    assert "not an image" in found[1]["reason"]
    assert found[0].keys() == {"id", "prediction", "score_across", "score_down"}
    (images.parent / "new.csv").write_text(f"file\n{files[0].relative_to(images.parent)}\nabsent.png\n")
    rows = predict.predict_inputs(place.folder, [str(images.parent / "new.csv")], [])
    assert rows[0]["prediction"] == found[0]["prediction"]
    assert "no such file" in rows[1]["reason"]
    lines = predict.predict_inputs(place.folder, ["-"], [f"{files[0]}\n", "\n"])
    assert [row["prediction"] for row in lines] == [found[0]["prediction"], None]
    for name in ("none", "nothing"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="There is no image in"):
        predict.predict_inputs(place.folder, [str(tmp_path / "none"), str(tmp_path / "nothing")], [])
    with pytest.raises(DataError, match=r"Input 1 is 'absent.png', which cannot be used: no such file"):
        tunesmith.load(place.folder).predict(["absent.png"])


def test_other_images_are_measured_checked_and_planned_for(finished: tuple[Run, Path], tmp_path: Path) -> None:
    place, _ = finished
    settings = given(tmp_path, "vit", method={"name": "partial", "last": 1})
    found = tunesmith.load(place.folder).evaluate(settings["data"]["train"])
    assert found["rows"] == 120
    assert found["metrics"]["test"]["accuracy"]["value"] > 0.5
    assert "truncation" not in found
    assert tunesmith.check(settings)["images"]["train"]["height"]["max"] == 20
    assert tunesmith.plan(settings)["predicted"]["seconds"] > 0


def test_adapters_kept_apart_open_with_peft(tmp_path: Path) -> None:
    settings = given(tmp_path, "vit", method={"name": "lora", "merge": False}, train=TRAIN | {"epochs": 1})
    place = tunesmith.finetune(settings, run=tmp_path / "run")
    assert json.loads(place.report.read_text())["model"]["loader"] == "peft"
    assert not (place.model / "model.safetensors").exists()
    file = str(next(iter(sorted((tmp_path / "images").rglob("*.png")))))
    code = (place.model / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-c", code.replace("your image.jpg", file)], capture_output=True, text=True, check=True
    )
    assert tunesmith.load(place.folder).predict([file])[0]["prediction"] in done.stdout


def job(settings: dict[str, Any], folder: Path, name: str) -> Job:
    ready = prepare.prepare(parse(settings), folder / name / "data", torch.device("cpu"), lambda _: None)
    place = folder / name
    return prepare.job(ready, ready.model, ready.frontier.candidates[0], place / "steps")


def test_a_resumed_training_ends_with_the_same_weights_and_statistics(tmp_path: Path) -> None:
    settings = given(tmp_path, "resnet", train=TRAIN | {"epochs": 2})
    whole = list(train(job(settings, tmp_path, "whole")))[-1]
    events = train(job(settings, tmp_path, "stopped"))
    for event in events:
        if isinstance(event, StepDone) and event.step == 8:
            events.close()  # type: ignore[attr-defined]
    again = list(train(job(settings, tmp_path, "stopped")))[-1]
    assert isinstance(whole, Trained)
    assert isinstance(again, Trained)
    one, other = (event.model.module.state_dict() for event in (whole, again))
    assert any("running_mean" in name for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["several labels", "score"])
def test_several_labels_and_scores_are_learned_from_images(tmp_path: Path, kind: str) -> None:
    files = sorted(write_images(tmp_path / "images", 120).rglob("*.png"))
    header, cells = {
        "several labels": ("striped,odd", lambda n, file: f"{int(file.parent.name == 'down')},{n % 2}"),
        "score": ("score", lambda n, file: f"{3.0 + (file.parent.name == 'down') + 0.001 * n}"),
    }[kind]
    lines = [f"{file},{cells(n, file)}" for n, file in enumerate(files)]
    (tmp_path / "rows.csv").write_text(f"file,{header}\n" + "\n".join(lines) + "\n")
    data = {"train": str(tmp_path / "rows.csv"), "target": header.split(",") if "," in header else header}
    solved = next(iter(train(job(given(tmp_path / "given", "resnet", data=data, method="probe"), tmp_path, "job"))))
    assert isinstance(solved, HeadSolved)
    assert solved.tried["own"] > 0.3


def test_arrays_contents_and_pillows_images_are_predicted_like_their_files(
    finished: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, images = finished
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file = sorted(images.rglob("*.png"))[0]
    image = Image.open(file).convert("RGB")
    given = [str(file), file.read_bytes(), np.asarray(image), image, image.convert("CMYK")]
    found = tunesmith.load(place.folder).predict(given)
    assert [row["id"] for row in found[1:]] == ["1", "2", "3", "4"]
    for row in found[1:4]:
        assert row["score_across"] == pytest.approx(found[0]["score_across"])
    assert not list((tmp_path / "elsewhere").iterdir())
    with pytest.raises(DataError, match=r"Input 1 cannot be used: array of shape \(4, 4, 2\) and type float64"):
        tunesmith.load(place.folder).predict([np.zeros((4, 4, 2))])
    with pytest.raises(DataError, match="One array was given where a list of images is needed"):
        tunesmith.load(place.folder).predict(np.zeros((4, 4, 3), dtype=np.uint8))


def test_pillows_images_are_turned_and_scaled_like_files(tmp_path: Path) -> None:
    turned = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    deep = Image.fromarray(np.linspace(0, 60_000, 600).reshape(20, 30).astype(np.int32))
    deep.save(tmp_path / "deep.tif")
    place = Place(tmp_path, tmp_path / "kept", DataSettings(train="x"))
    for number, name in enumerate(("turned.png", "deep.tif")):
        by_path = IMAGES.read([name], f"a{number}", place)
        opened = IMAGES.read([Image.open(tmp_path / name)], f"b{number}", place)
        as_path = IMAGES.read([tmp_path / name], f"c{number}", place)
        assert by_path[4:6] == opened[4:6] == as_path[4:6]
        first, second = (picture.converted(picture.read(Path(found[1])), 1) for found in (by_path, opened))
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    assert IMAGES.read([Image.new("L", (0, 0))], "d", place).column == 0


def test_many_images_may_have_no_label_at_all(tmp_path: Path) -> None:
    """Blocks of predictions in which nothing is found go together with others."""
    kind = MultiLabel("micro_f1")
    tables = [pa.table(kind.columns(np.full((2, 2), share), ("a", "b"))) for share in (0.1, 0.9)]
    assert pa.concat_tables(tables).column("prediction").to_pylist() == [[], [], ["a", "b"], ["a", "b"]]
