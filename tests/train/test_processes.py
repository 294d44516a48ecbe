"""Two processes train as one does: the same losses to rounding, no row lost or seen twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.image_classification import ImageClassification

SINGLE = [sys.executable, "-m", "tunesmith.cli"]
# torchrun reads --run as its own --run-path unless "--" stands before the program.
DOUBLE = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--", "tunesmith.cli",
]  # fmt: skip


def trained(folder: Path, settings: dict[str, Any]) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """What one process logged and what two did, and their reports."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    curves, reports = [], []
    for name, start in (("one", SINGLE), ("two", DOUBLE)):
        done = subprocess.run(
            [*start, "train", "settings.yaml", "--run", name, "--quiet"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        curves.append([json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()])
        reports.append(json.loads((folder / name / "report.json").read_text()))
    return curves, reports


@pytest.mark.parametrize("method", ["full", {"name": "partial", "last": 1}, {"name": "contrastive", "refit": "on"}])
def test_two_processes_have_the_losses_of_one(settings: dict[str, Any], tmp_path: Path, method: object) -> None:
    settings["method"] = method
    settings["train"] = {**settings["train"], "batch_size": 17, "log_steps": 1}
    # From scratch trains in both processes too: it hung where only the first one did.
    settings["evaluate"] = {"resamples": 100, "baselines": ["scratch"]}
    (one, two), found = trained(tmp_path, settings)
    assert [set(report["baselines"]) for report in found] == [{"majority", "probe", "scratch"}] * 2
    assert [line["step"] for line in one] == [line["step"] for line in two]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-3)
    again = [report.get("refit", {}).get("rows") for report in found]
    assert again == [108 if isinstance(method, dict) and "refit" in method else None] * 2
    losses = [report["metrics"]["test"]["log_loss"]["value"] for report in found]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.parametrize("task", [CausalLm, ImageClassification])
def test_other_tasks_have_them_too(task: Any, tmp_path: Path) -> None:
    """Parts of rows that count, and images that are varied and made ahead."""
    varied = {"augment": {"flip": True, "crop": 0.6}} if task is ImageClassification else {}
    settings = task.tiny(tmp_path) | {"task": {"name": task.name, **varied}, "method": "full"}
    settings["train"] = {"epochs": 2, "batch_size": 9, "learning_rate": 1e-3, "precision": "fp32", "log_steps": 1}
    settings["evaluate"] = {"resamples": 100, "baselines": []}
    (one, two), found = trained(tmp_path, settings)
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    primary = [report["metrics"]["test"][report["primary_metric"]]["value"] for report in found]
    assert primary[1] == pytest.approx(primary[0], rel=1e-3)
