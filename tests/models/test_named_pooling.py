"""The pooling that a folder of sentence-transformers names is taken, and need not be proved by a few rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tiny import write_model, write_rows
from tunesmith.models.named_pooling import named

TYPES = ("Transformer", "Pooling", "Normalize")


def write_modules(folder: Path, config: dict[str, Any], transformer: str = "") -> Path:
    """The files of sentence-transformers in `folder`, whose pooling has the configuration `config`."""
    paths = (transformer, "1_Pooling", "2_Normalize")
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(zip(TYPES, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_the_probe_takes_it_whatever_validation_says(tmp_path: Path, config: dict[str, Any], pooling: str) -> None:
    model = write_modules(write_model(tmp_path / "model"), config)
    given = {
        "task": "text-classification", "model": str(model), "data": str(write_rows(tmp_path / "rows.csv")),
        "method": "probe", "evaluate": {"resamples": 100},
    }  # fmt: skip
    report = json.loads(tunesmith.finetune(given, run=tmp_path / "run").report.read_text())
    assert report["model"]["pooling"] == pooling


@pytest.mark.parametrize(
    "config", [{"pooling_mode": "max"}, {"pooling_mode_cls_token": 1, "pooling_mode_mean_tokens": 1}]
)
def test_one_that_is_not_known_here_is_left_to_validation(tmp_path: Path, config: dict[str, Any]) -> None:
    found = named(str(write_modules(write_model(tmp_path / "model"), config)))
    assert found is not None
    assert found.pooling is None
    assert found.told


@pytest.mark.parametrize("text", ['{"modules": []}', "[1, 2]", '[{"name": "left-pad"}]', "[]"])
def test_a_file_of_that_name_by_another_program_says_nothing(tmp_path: Path, text: str) -> None:
    model = write_model(tmp_path / "model")
    (model / "modules.json").write_text(text)
    assert named(str(model)) is None


def test_the_folder_above_speaks_for_its_own_transformer_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    own, other = (write_model(root / name) for name in ("0_Transformer", "other"))
    write_modules(root, {"pooling_mode": "mean"}, "0_Transformer")
    found = named(str(own))
    assert found is not None
    assert found.pooling == "mean"
    assert named(str(other)) is None
