"""Two processes train as one does: the same losses to rounding, no row lost or seen twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml


@pytest.mark.parametrize("method", ["full", {"name": "partial", "last": 1}, {"name": "contrastive", "refit": "on"}])
def test_two_processes_have_the_losses_of_one(settings: dict[str, object], tmp_path: Path, method: object) -> None:
    settings["method"] = method
    settings["train"] = {**settings["train"], "batch_size": 17, "log_steps": 1}  # type: ignore[dict-item]
    # From scratch trains in both processes too: it hung where only the first one did.
    settings["evaluate"] = {"resamples": 100, "baselines": ["scratch"]}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    single = [sys.executable, "-m", "tunesmith.cli"]
    # torchrun reads --run as its own --run-path unless "--" stands before the program.
    double = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "--",
        "tunesmith.cli",
    ]
    curves = []
    for name, start in (("one", single), ("two", double)):
        done = subprocess.run(
            [*start, "train", "settings.yaml", "--run", name, "--quiet"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        curves.append([json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()])
    one, two = curves
    found = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two")]
    assert [set(report["baselines"]) for report in found] == [{"majority", "probe", "scratch"}] * 2
    assert [line["step"] for line in one] == [line["step"] for line in two]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-3)
    again = [report.get("refit", {}).get("rows") for report in found]
    assert again == [108 if isinstance(method, dict) and "refit" in method else None] * 2
    losses = [report["metrics"]["test"]["log_loss"]["value"] for report in found]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
