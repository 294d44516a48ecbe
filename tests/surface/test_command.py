"""The command: exit codes, one sentence and no traceback, JSON for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


def run(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunesmith.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        input=stdin,
        check=False,
    )


@pytest.fixture
def place(settings: dict[str, object], tmp_path: Path) -> Path:
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_train_then_every_other_command(place: Path, rows: Path) -> None:
    done = run("train", "settings.yaml", "--run", "one", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "test rows" in done.stdout
    assert "report.html" in done.stdout
    done = run(
        "train",
        "settings.yaml",
        "--method",
        "probe",
        "--set",
        "train.precision=fp32",
        "--run",
        "two",
        "--json",
        cwd=place,
    )
    assert json.loads(done.stdout)["method"] == "probe"
    assert done.stderr == ""
    assert json.loads(run("predict", "one", "word1 word2", "--json", cwd=place).stdout)["prediction"] in ("good", "bad")
    assert len(run("predict", "one", "-", cwd=place, stdin="word1\nword2\n").stdout.splitlines()) == 2
    assert len(run("predict", "one", str(rows), cwd=place).stdout.splitlines()) == 120
    assert "accuracy" in run("evaluate", "one", str(rows), cwd=place).stdout
    assert "full" in run("compare", "one", "two", cwd=place).stdout
    assert "report.html" in run("report", "one", cwd=place).stdout
    done = run("train", "--resume", "one", cwd=place)
    assert done.returncode == 2
    assert "is finished" in done.stderr


def test_plan_and_check_print_tables_and_json(place: Path, rows: Path) -> None:
    done = run("plan", "settings.yaml", cwd=place)
    assert "block 1" in done.stdout
    assert json.loads(run("plan", "settings.yaml", "--json", cwd=place).stdout)["method"] == "full"
    done = run("check", str(rows), cwd=place)
    assert done.returncode == 0
    assert "Repeats" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "nowhere.yaml"), "There is no settings file nowhere.yaml"),
        (("train", "settings.yaml", "--set", "trian.epochs=3"), "did you mean 'train'"),
        (("train",), "the key 'data' is missing"),
        (("predict", "nowhere", "text"), "is not a run folder"),
        (("check", "nowhere.csv"), "There is no data file"),
        (("compare", "one"), "at least two runs"),
    ],
)
def test_a_mistake_ends_with_code_2_and_one_sentence(place: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments, cwd=place)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
