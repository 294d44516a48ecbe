"""Using finished runs, and what the command line says: predictions for bad rows, comparisons, long texts."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import yaml

import tunesmith
from tiny import write_rows
from tunesmith import predict
from tunesmith.errors import CutWarning, DataError, GuessWarning, RunError
from tunesmith.metrics.classification import single_label
from tunesmith.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Run, Run]:
    """`full` and `probe` on the same rows, judged by macro-F1, with rows in groups of four."""
    folder = tmp_path_factory.mktemp("using")
    lines = write_rows(folder / "plain.csv", 240).read_text().splitlines()
    grouped = [f"{lines[0]},author", *(f"{line},{number // 4}" for number, line in enumerate(lines[1:]))]
    (folder / "rows.csv").write_text("\n".join(grouped) + "\n")
    given: dict[str, Any] = {
        "model": str(tiny_model),
        "task": {"name": "text-classification", "metric": "macro_f1"},
        "data": {"train": str(folder / "rows.csv"), "input": "text", "target": "label", "group": "author"},
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"},
        "evaluate": {"resamples": 200, "confidence": 0.8},
    }
    one, other = (tunesmith.finetune(given | {"method": name}, run=folder / name) for name in ("full", "probe"))
    return one, other


def test_compared_is_the_primary_metric_by_group(runs: tuple[Run, Run]) -> None:
    found = tunesmith.compare([place.folder for place in runs])
    assert (found["metric"], found["confidence"]) == ("macro_f1", 0.8)
    tables = {entry["run"]: pyarrow.parquet.read_table(Run(Path(entry["run"])).predictions) for entry in found["runs"]}
    values = []
    for entry in found["runs"]:
        truth, said = ([["bad", "good"].index(cell) for cell in tables[entry["run"]].column(name).to_pylist()]
                       for name in ("truth", "prediction"))  # fmt: skip
        values.append(single_label(np.array(truth), np.eye(2)[said])["macro_f1"])
        assert "group" in tables[entry["run"]].column_names
    gap = found["runs"][1]["difference"]
    assert gap["value"] == pytest.approx(values[1] - values[0])
    assert gap["low"] <= gap["value"] <= gap["high"]


def test_runs_on_other_rows_have_no_paired_difference(
    runs: tuple[Run, Run], settings: dict[str, Any], tmp_path: Path
) -> None:
    """Ids are line numbers, so they say nothing: `test:3` is another row in another file."""
    given = yaml.safe_load(runs[0].settings.read_text())
    lines = Path(given["data"]["train"]).read_text().splitlines()
    (tmp_path / "rows.csv").write_text("\n".join(line.replace("word1", "word9") for line in lines) + "\n")
    given["data"]["train"] = str(tmp_path / "rows.csv")
    other = tunesmith.finetune(given | {"method": "probe"}, run=tmp_path / "run")
    found = tunesmith.compare([runs[0].folder, other.folder])
    assert "difference" not in found["runs"][1]
    accuracy = tunesmith.finetune(settings | {"method": "probe"}, run=tmp_path / "accuracy")
    with pytest.raises(RunError, match="different metrics"):
        tunesmith.compare([runs[0].folder, accuracy.folder])


def test_rows_without_a_prediction_keep_their_place_and_say_why(runs: tuple[Run, Run], tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text('text\nword1 word2\n" "\nword21 word22\nword1,word2\n')
    found = predict.predict_inputs(runs[0].folder, [str(tmp_path / "new.csv")], [])
    assert [row["prediction"] is None for row in found] == [False, True, False, True]
    assert "empty text" in found[1]["reason"]
    assert "wrong column count" in found[3]["reason"]
    lines = predict.predict_inputs(runs[0].folder, ["-"], ["word1\n", "\n", "word21\n"])
    assert [row["id"] for row in lines] == ["0", "1", "2"]
    assert [row["prediction"] is None for row in lines] == [False, True, False]
    with pytest.raises(DataError, match="every line is empty"):
        predict.predict_inputs(runs[0].folder, ["-"], ["\n", " \n"])


def test_the_command_counts_what_has_no_prediction_and_what_was_cut(runs: tuple[Run, Run], tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(f'text\n{"word1 " * 100}\n" "\n')
    command = [sys.executable, "-m", "tunesmith.cli", "predict", str(runs[0].folder), str(tmp_path / "new.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1 of 2 inputs cannot be used" in done.stderr
    assert "1 of 1 inputs are longer than 64 tokens and were cut" in done.stderr
    assert "row:3\t(none: empty text in 'text')" in done.stdout
    with pytest.warns(CutWarning, match="longer than 64 tokens"):
        tunesmith.load(runs[0].folder).predict(["word1 " * 100])


def test_the_lines_of_a_file_of_text_are_the_inputs(
    runs: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["word1 word2", " ", "word21 caf\u00e9"]
    Path("new.txt").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    folder = runs[0].folder.resolve()
    with pytest.warns(GuessWarning, match=r"new\.txt is read line by line"):
        found = predict.predict_inputs(folder, ["new.txt"], [])
    assert [row["prediction"] is None for row in found] == [False, True, False]
    assert found == predict.predict_inputs(folder, ["-"], lines)
    Path("broken.txt").write_bytes(b"word1\n\xff\n")
    with pytest.warns(GuessWarning):
        assert predict.predict_inputs(folder, ["broken.txt"], [])[1]["reason"] == "broken encoding"
    Path("empty.txt").write_text("")
    Path("blank.txt").write_text(" \n\n")
    for given, told in (
        (["new.txt", "broken.txt"], r"new\.txt is a file, but 2 inputs were given"),
        (["empty.txt"], r"empty\.txt is empty"),
        (["blank.txt"], "every line is empty"),
        (["nowhere.txt"], r"There is no file nowhere\.txt"),
    ):
        with pytest.raises(DataError, match=told), warnings.catch_warnings(action="ignore"):
            predict.predict_inputs(folder, given, [])
    Path("notes.md").write_text("word1")
    with pytest.raises(DataError, match=r"of a kind that is not read \(\.md\)"):
        predict.predict_inputs(folder, ["notes.md"], [])
    assert len(predict.predict_inputs(folder, ["read the file word1.txt"], [])) == 1
    command = [sys.executable, "-m", "tunesmith.cli", "predict", str(folder), "new.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Note: new.txt is read line by line: each line is one text." in done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_evaluate_says_how_many_rows_were_set_aside_and_why(runs: tuple[Run, Run], tmp_path: Path) -> None:
    cells = [f"word{n} word{n + 20},{'good' if n % 2 else 'bad'},{n}" for n in range(20)]
    cells += ["word1,awful,a", "word2,awful,b", " ,good,c"]
    (tmp_path / "other.csv").write_text("\n".join(["text,label,author", *cells]) + "\n")
    command = [sys.executable, "-m", "tunesmith.cli", "evaluate", str(runs[0].folder), str(tmp_path / "other.csv")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "3 rows could not be used and were set aside; the commonest reason is: " in said
    assert "'awful'" in said
    assert said.rstrip().endswith("(2).")


def test_evaluations_of_files_of_one_name_lie_side_by_side(runs: tuple[Run, Run], tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        lines = write_rows(tmp_path / name / "rows.csv", 20).read_text().splitlines()
        (tmp_path / name / "rows.csv").write_text(
            "\n".join(f"{line},{n if n else 'author'}" for n, line in enumerate(lines))
        )
        found = tunesmith.load(runs[0].folder).evaluate(str(tmp_path / name / "rows.csv"))
        assert found["truncation"]["rows_cut"] == 0
    assert len(list((runs[0].folder / "evaluations").glob("*rows.json"))) == 2


@pytest.mark.parametrize(("source", "name"), [("a/b.csv", "a-b"), ("/x/rows.tar.gz", "x-rows.tar"), ("/", "data")])
def test_figures_are_filed_under_the_path_of_their_data(source: str, name: str) -> None:
    assert predict._file_name(source) == name


def test_figures_on_the_folder_that_one_is_in_are_filed_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert predict._file_name(".").endswith(tmp_path.name)


@pytest.mark.parametrize("method", ["full", "probe"])
@pytest.mark.parametrize("kind", ["pairs", "several labels", "score"])
def test_the_code_of_the_card_runs(settings: dict[str, Any], tmp_path: Path, method: str, kind: str) -> None:
    header, rows, data = {
        "pairs": ("sentence1,sentence2,label", lambda n: f"word{n % 40},word{n % 7} word5,{'ab'[n % 2]}", {}),
        "several labels": (
            "text,toxic,rude", lambda n: f"word{n % 40} word{n * 13 % 90},{n % 2},{int(n % 3 == 0)}",
            {"target": ["toxic", "rude"]},
        ),
        "score": ("text,score", lambda n: f"word{n % 40} word{n * 13 % 90},{1000 + n * 37 % 50}", {}),
    }[kind]  # fmt: skip
    (tmp_path / "rows.csv").write_text("\n".join([header, *(rows(n) for n in range(80))]) + "\n")
    given = settings | {"data": {"train": str(tmp_path / "rows.csv"), **data}, "method": method}
    given["train"] = {**settings["train"], "epochs": 1, "learning_rate": 1e-5}
    place = tunesmith.finetune(given, run=tmp_path / "run")
    code = (place.model / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
    if kind == "several labels" and method == "full":
        assert "toxic" in done.stdout
        assert "rude" in done.stdout
    if kind == "score":  # in the unit of the targets, whatever the scale that training took
        assert json.loads(place.report.read_text())["metrics"]["test"]["mae"]["value"] < 40
        assert any(number in done.stdout for number in ("98", "99", "100", "101", "102", "103", "104", "105"))


def test_scores_are_learned_in_any_unit(settings: dict[str, Any], tmp_path: Path) -> None:
    """The same targets times a thousand, or a thousandth, give the same predictions in that unit, in bf16 too."""
    found = []
    for unit in (1.0, 1e4, 1e-3):
        lines = [f"word{n % 20} word{n % 40} word{n * 13 % 90},{unit * (3 + n % 20):g}" for n in range(120)]
        (tmp_path / "rows.csv").write_text("text,score\n" + "\n".join(lines) + "\n")
        task = {"name": "text-classification", "problem": "regression"}
        given = settings | {"task": task, "data": str(tmp_path / "rows.csv")}
        place = tunesmith.finetune(given, run=tmp_path / f"run{unit}")
        report = json.loads(place.report.read_text())
        found.append((report["curve"][-1]["validation_loss"], report["metrics"]["test"]["mae"]["value"] / unit))
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert found[2] == pytest.approx(found[0], rel=0.02)


def test_outputs_are_exact_in_bf16(settings: dict[str, Any], tmp_path: Path) -> None:
    """Under autocast the last layer rounded 1,003 to 1,000."""
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    from tunesmith.models.heads import ExactLinear  # noqa: PLC0415

    layer = nn.Linear(4, 1)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, 1003.0)
    layer.__class__ = ExactLinear
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(1, 4)).item() == 1003.0


def test_a_split_on_which_the_metric_is_not_defined_is_refused_before_training(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    for name, score in (("train", "{}.5"), ("validation", "{}.5"), ("test", "2.5")):
        lines = [f"word{n} word{n + 20},{score.format(n % 5)}" for n in range(30)]
        (tmp_path / f"{name}.csv").write_text("text,score\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"The test split has 30 rows with one and the same score, so spearman"):
        tunesmith.finetune(settings | {"data": str(tmp_path)}, run=tmp_path / "run")
