"""A loss that compares the rows of a step sees all of them, however the step is cut; and its steps hold rows to compare."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import tunesmith
from steps import ROWS, prepared, stepper
from tiny import write_image_model
from tunesmith.data import batches
from tunesmith.errors import SettingsError
from tunesmith.plans import Guards
from tunesmith.tasks import comparing
from tunesmith.tasks.image_similarity import ImageSimilarity

TRAIN = {"epochs": 1, "batch_size": 24, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture
def things(tmp_path: Path) -> dict[str, Any]:
    return {"task": {"name": "image-similarity", "loss": "contrastive"}, **ImageSimilarity.tiny(tmp_path / "tiny")}


def vectors(rows: int, width: int = 4) -> torch.Tensor:
    return functional.normalize(torch.randn((rows, width), generator=torch.Generator().manual_seed(3)), dim=1)


def test_triplets_are_the_hardest_of_the_step() -> None:
    given, target = vectors(7), torch.tensor([0, 0, 1, 1, 1, 2, 0])
    wanted = 0.0
    for row in range(7):
        apart = [float((given[row] - other).square().sum()) for other in given]
        own = [apart[at] for at in range(7) if at != row and target[at] == target[row]]
        others = [apart[at] for at in range(7) if target[at] != target[row]]
        if own:
            wanted += max(0.0, 0.2 + max(own) - min(others))
    assert comparing.triplet(given, target, 0.2).item() == pytest.approx(wanted, rel=1e-4)


def test_the_contrastive_loss_is_that_of_the_paper() -> None:
    given, target = vectors(6), torch.tensor([0, 0, 1, 1, 0, 2])
    wanted = 0.0
    for row in range(6):
        likely = [math.exp(5 * float(given[row] @ other)) for other in given]
        whole = sum(likely) - likely[row]
        own = [at for at in range(6) if at != row and target[at] == target[row]]
        wanted += sum(-math.log(likely[at] / whole) / len(own) for at in own)
    assert comparing.contrastive(given, target, 5.0).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("target", [[0, 0, 0], [0, 1, 2], [4]])
@pytest.mark.parametrize("loss", [comparing.triplet, comparing.contrastive])
def test_rows_with_nothing_to_compare_add_nothing(loss: Any, target: list[int]) -> None:
    given = vectors(len(target)).requires_grad_()
    found = loss(given, torch.tensor(target), 1.0)
    found.backward()
    assert found.item() == 0
    assert given.grad is not None
    assert not given.grad.any()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(2, 5), st.integers(0, 3))
def test_an_epoch_takes_every_row_once_and_keeps_rows_of_a_label_together(
    labels: list[int], each: int, epoch: int
) -> None:
    own = np.array(labels)
    order = batches.several_each(own, each, 0, epoch)
    assert sorted(order) == list(range(len(own)))
    neighbours = sum(a == b for a, b in zip(own[order], own[order][1:], strict=False))
    assert neighbours >= sum(count - math.ceil(count / each) for count in np.bincount(own))
    steps = batches.steps(np.ones(len(own), dtype=np.int64), 8, 0, epoch, order)
    assert sorted(np.concatenate(steps)) == list(range(len(own)))
    assert len(steps) <= batches.steps_per_epoch(len(own), 8)


@pytest.mark.parametrize("loss", ["triplet", "contrastive"])
@pytest.mark.parametrize("architecture", ["vit", "resnet"])
def test_a_step_in_parts_has_the_gradient_of_the_whole(
    things: dict[str, Any], tmp_path: Path, loss: str, architecture: str
) -> None:
    things["task"]["loss"] = loss
    things["model"] = str(write_image_model(tmp_path / "model", architecture))
    found, losses = [], []
    for images in (100, 4):
        ready = prepared({**things, "method": "full", "train": TRAIN}, tmp_path)
        one = stepper(ready, Guards(), images * int(ready.train.lengths[0]))
        one.model.module.eval()  # an image is the same in any part
        losses.append(float(one._gradient(ROWS, 3)[0]))
        found.append({name: p.grad.clone() for name, p in one.model.module.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0] > 0
    for name, gradient in found[0].items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6 + 1e-3 * size, rtol=0)


def test_running_statistics_take_what_they_see_once(
    things: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things["model"] = str(write_image_model(tmp_path / "model", "resnet"))
    ready = prepared({**things, "method": "full", "train": TRAIN}, tmp_path)
    one = stepper(ready, Guards(), 4 * int(ready.train.lengths[0]))
    one.model.module.train()
    seen: list[int] = []
    outputs = one.passes.outputs
    monkeypatch.setattr(one.passes, "outputs", lambda part: seen.append(len(part)) or outputs(part))
    one._gradient(ROWS, 3)
    counts = {int(buffer) for name, buffer in one.model.module.named_buffers() if name.endswith("num_batches_tracked")}
    assert max(counts) == len(seen) > 1


def test_both_passes_drop_the_same(things: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared({**things, "method": "full", "train": TRAIN}, tmp_path)
    one = stepper(ready, Guards(), 4 * int(ready.train.lengths[0]), dropout=0.4)
    one.model.module.train()
    seen: list[torch.Tensor] = []
    forward = one.passes._pass

    def watched(*given: Any) -> Any:
        found = forward(*given)
        seen.append(found[0].detach())
        return found

    monkeypatch.setattr(one.passes, "_pass", watched)
    one._gradient(ROWS, 3)
    half = len(seen) // 2
    assert half > 1
    assert all(torch.equal(first, second) for first, second in zip(seen[:half], seen[half:], strict=True))
    one._gradient(ROWS, 4)
    assert not torch.equal(seen[0], seen[2 * half])


@pytest.mark.parametrize("loss", ["triplet", "contrastive"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_leaves_prototypes_that_are_the_means_of_what_it_sees(
    things: dict[str, Any], tmp_path: Path, loss: str, method: Any
) -> None:
    things["task"]["loss"] = loss
    run = tunesmith.finetune({**things, "method": method, "train": TRAIN | {"epochs": 2}}, run=tmp_path / "run")
    predictor = tunesmith.load(run.folder)
    taught = predictor.task.taught  # type: ignore[attr-defined]
    files = [str(file) for name in taught[:4] for file in sorted((Path(things["data"]) / name).iterdir())]
    found = predictor.predict(files)
    seen = np.array([row["embedding"] for row in found]).reshape(4, -1, len(found[0]["embedding"])).sum(axis=1)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    for row in found:
        own = float(np.dot(row["embedding"], seen[taught.index(Path(row["id"]).parent.name)]))
        assert row["similarity"] >= own - 2e-2
    report = json.loads(run.report.read_text())
    assert f"({loss})" in " ".join(report["plan"]["reasons"])


def test_what_leaves_nothing_to_compare_is_refused(things: dict[str, Any], tmp_path: Path) -> None:
    for guard in ("mixup", "cutmix", "r_drop"):
        with pytest.raises(SettingsError, match="compares the rows of a step"):
            tunesmith.finetune(
                {**things, "method": "full", "train": TRAIN | {guard: 0.5, "dropout": 0.1}}, run=tmp_path / guard
            )
    reference = {"evaluate": {"retention": [{"name": "own", "data": things["data"], "task": things["task"]}]}}
    with pytest.raises(SettingsError, match=r"train\.ewc"):
        tunesmith.finetune({**things, "method": "full", "train": TRAIN | {"ewc": 1.0}, **reference}, run=tmp_path / "e")
    for loss, name in (("contrastive", "margin"), ("triplet", "scale")):
        with pytest.raises(SettingsError, match=f"task.{name} is set"):
            ImageSimilarity(ImageSimilarity.Settings(**{"loss": loss, name: 0.5}))


def test_two_processes_compare_the_rows_of_both(things: dict[str, Any], tmp_path: Path) -> None:
    given = {**things, "method": "full", "train": TRAIN | {"log_steps": 1, "batch_size": 23}}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(given))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--", "tunesmith.cli"]
    losses = []
    for name, start in (("one", ["-m", "tunesmith.cli"]), ("two", launch)):
        done = subprocess.run(
            [sys.executable, *start, "train", "settings.yaml", "--run", name, "--quiet"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
