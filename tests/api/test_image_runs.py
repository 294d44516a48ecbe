"""Runs on images, from a folder to a report: what is left opens with transformers, and commands know files and folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tunesmith
from tiny import write_image_model, write_images
from tunesmith import predict
from tunesmith.errors import DataError
from tunesmith.run import Run

TRAIN = {"epochs": 4, "batch_size": 16, "learning_rate": 2e-3, "precision": "fp32"}


def given(folder: Path, architecture: str, **more: Any) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "model": str(write_image_model(folder / "model", architecture)),
        "data": str(write_images(folder / "images", 120)),
        "train": TRAIN,
        "evaluate": {"resamples": 100},
    } | more


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A finished run of `full` on a ResNet, and its images."""
    folder = tmp_path_factory.mktemp("images")
    return tunesmith.finetune(given(folder, "resnet"), run=folder / "run"), folder / "images"


def test_a_run_on_images_learns_and_leaves_what_it_should(finished: tuple[Run, Path]) -> None:
    place, _ = finished
    report = json.loads(place.report.read_text())
    assert report["metrics"]["test"]["accuracy"]["value"] > report["baselines"]["majority"]["accuracy"]["value"] + 0.2
    assert report["model"]["loader"] == "pipeline"
    assert "truncation" not in report
    page = place.page.read_text()
    assert "tokens" not in page
    assert "in colour, of 20 × 20 pixels" in page
    assert not place.cache.exists()


def test_mistakes_are_shown_as_small_pictures_inside_the_page(tmp_path: Path) -> None:
    import base64  # noqa: PLC0415
    from io import BytesIO  # noqa: PLC0415

    from PIL import Image  # noqa: PLC0415

    data = write_images(tmp_path / "images", 60)
    for number, file in enumerate(sorted(data.rglob("*.png"))):  # labels that nobody can learn
        label = data / ("across", "down")[number * 7 % 3 % 2]
        Image.open(file).resize((200, 300)).save(label / f"large{number}.png")
        file.unlink()
    settings = given(tmp_path / "given", "vit", data=str(data), method="probe")
    place = tunesmith.finetune(settings, run=tmp_path / "run")
    mistakes = json.loads(place.report.read_text())["mistakes"]
    assert mistakes[0].keys() >= {"id", "image", "file", "truth", "prediction"}
    kind, _, content = mistakes[0]["image"].partition(",")
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


def test_other_images_are_measured_and_checked(finished: tuple[Run, Path], tmp_path: Path) -> None:
    place, _ = finished
    other = write_images(tmp_path / "other", 30, seed=1)
    found = tunesmith.load(place.folder).evaluate(str(other))
    assert found["rows"] == 30
    assert found["metrics"]["test"]["accuracy"]["value"] > 0.6
    command = [sys.executable, "-m", "tunesmith.cli"]
    done = subprocess.run([*command, "evaluate", place.folder, other], capture_output=True, text=True, check=True)
    assert "accuracy" in done.stdout
    done = subprocess.run(
        [*command, "check", other, "--task", "image-classification"], capture_output=True, text=True, check=True
    )
    assert "in colour, of 20 × 20 pixels" in done.stdout
    planned = tunesmith.plan(given(tmp_path, "vit", method={"name": "partial", "last": 1}))
    assert planned["predicted"]["seconds"] > 0


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


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Batch-norm's statistics are part of what is saved and restored."""
    from safetensors.torch import load_file  # noqa: PLC0415

    settings = given(tmp_path, "resnet", train=TRAIN | {"epochs": 2, "checkpoint_seconds": 0})

    class Stopped(Exception):
        pass

    def stop(event: Any) -> None:
        if type(event).__name__ == "StepDone" and event.step == 8:
            raise Stopped

    whole = tunesmith.finetune(settings, run=tmp_path / "whole")
    with pytest.raises(Stopped):
        tunesmith.finetune(settings, run=tmp_path / "again", listen=stop)
    again = tunesmith.resume(tmp_path / "again")
    one, other = (load_file(place.model / "model.safetensors") for place in (whole, again))
    assert any("running_mean" in name for name in one)
    assert all(np.array_equal(one[name].numpy(), other[name].numpy()) for name in one)


@pytest.mark.parametrize("kind", ["several labels", "score"])
def test_several_labels_and_scores_are_learned_from_images(tmp_path: Path, kind: str) -> None:
    files = sorted(write_images(tmp_path / "images", 60).rglob("*.png"))
    header, cells = {
        "several labels": ("striped,odd", lambda n, file: f"{int(file.parent.name == 'down')},{n % 2}"),
        "score": ("score", lambda n, file: f"{3.0 + (file.parent.name == 'down') + 0.01 * n}"),
    }[kind]
    lines = [f"{file},{cells(n, file)}" for n, file in enumerate(files)]
    (tmp_path / "rows.csv").write_text(f"file,{header}\n" + "\n".join(lines) + "\n")
    data = {"train": str(tmp_path / "rows.csv"), "target": header.split(",") if "," in header else header}
    place = tunesmith.finetune(given(tmp_path / "given", "vit", data=data, method="probe"), run=tmp_path / "run")
    found = tunesmith.load(place.folder).predict([str(files[0])])[0]["prediction"]
    assert isinstance(found, list if kind == "several labels" else float)
