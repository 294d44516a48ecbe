"""A killed run ends with the weights of one that was never killed; a damaged checkpoint is never used."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tunesmith import api, prepare, run, settings
from tunesmith.errors import Interrupted, RunError
from tunesmith.train import checkpoint
from tunesmith.train.course import Job
from tunesmith.train.events import HeadSolved, Saved, StepDone, Trained
from tunesmith.train.follow import follow
from tunesmith.train.loop import START, train
from tunesmith.train.rehearsal import Rehearsal


def begin(values: dict[str, object], folder: Path) -> Job:
    ready = prepare.prepare(settings.parse(values), folder / "cache", torch.device("cpu"), lambda _: None)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / "checkpoints")
    return dataclasses.replace(job, checkpoint_seconds=0.0)


def finish(job: Job) -> dict[str, torch.Tensor]:
    for event in train(job):
        if isinstance(event, Trained):
            return {name: tensor.clone() for name, tensor in event.model.module.state_dict().items()}
    raise AssertionError("no end")


@pytest.mark.parametrize("stop_after", [1, 4, 6, 7, 11])
def test_a_run_that_is_closed_and_resumed_ends_with_the_same_weights(
    settings: dict[str, object], tmp_path: Path, stop_after: int
) -> None:
    settings["train"] = {**settings["train"], "dropout": "model"}  # type: ignore[dict-item]
    whole = finish(begin(settings, tmp_path / "whole"))
    events = train(begin(settings, tmp_path / "cut"))
    for event in events:
        if isinstance(event, StepDone) and event.step == stop_after:
            break
    events.close()  # type: ignore[attr-defined]
    resumed = finish(begin(settings, tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


GUARDS = {
    "l2_sp, ema and sam": {"ema": 0.9, "l2_sp": 0.5, "sam": 0.05},
    "ewc and distil": {"ewc": 0.5, "distil": 1.0},
    "replay, mixup and wise_ft": {"replay": 0.3, "mixup": 0.4, "wise_ft": True},
    "swa and r_drop": {"swa": 0.5, "r_drop": 1.0, "dropout": 0.1},
}


@pytest.mark.parametrize("guard", GUARDS)
def test_guards_are_resumed_too(settings: dict[str, object], tmp_path: Path, guard: str) -> None:
    """What is drawn, what is averaged, and what is known of the network from before training."""
    settings["train"] = {**settings["train"], **GUARDS[guard]}  # type: ignore[dict-item]
    settings["evaluate"] = {"retention": [{"name": "x", "data": "never read here"}]}

    def referred(folder: Path) -> Job:
        """With the validation rows as reference."""
        job = begin(settings, folder)
        model = dataclasses.replace(job.model, module=copy.deepcopy(job.model.module))
        return dataclasses.replace(job, references=(Rehearsal("x", job.task, model, job.validation),))

    job = referred(tmp_path / "whole")
    whole = finish(job)
    for stop_after in (4, 9):
        events = train(referred(tmp_path / "cut"))
        for event in events:
            if isinstance(event, StepDone) and event.step == stop_after:
                break
        events.close()  # type: ignore[attr-defined]
    again = referred(tmp_path / "cut")
    resumed = finish(again)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    one, other = (checkpoint.newest(found.checkpoints) for found in (job, again))
    assert one is not None
    assert other is not None
    assert all(torch.equal(tensor, other.averaged[name]) for name, tensor in one.averaged.items())
    # The first epoch's weights may be those that are kept, so the last ones are compared too.
    assert all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())
    if job.plan.guards.needs_start:
        start, kept = (load_file(found.checkpoints / START) for found in (job, again))
        assert all(torch.equal(tensor, kept[name]) for name, tensor in start.items())


@pytest.mark.parametrize("method", ["adalora", "prompt", "prefix", "vera"])
def test_adapters_are_resumed_with_all_that_they_remember(
    settings: dict[str, object], tmp_path: Path, method: str
) -> None:
    """Two kills: for adalora, one while ranks still go, and one after they are settled."""
    settings["method"] = method
    whole = finish(begin(settings, tmp_path / "whole"))
    for stop_after in (4, 10):
        events = train(begin(settings, tmp_path / "cut"))
        for event in events:
            if isinstance(event, StepDone) and event.step == stop_after:
                break
        events.close()  # type: ignore[attr-defined]
    resumed = finish(begin(settings, tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_every_epoch_ends_with_a_checkpoint(settings: dict[str, object], tmp_path: Path) -> None:
    """However seldom they are asked for otherwise; the last one holds no optimiser, and no weights twice."""
    job = dataclasses.replace(begin(settings, tmp_path), checkpoint_seconds=1e9)
    saved = [event for event in train(job) if isinstance(event, Saved)]
    assert len(saved) == job.plan.phases[-1].epochs
    found = checkpoint.newest(job.checkpoints)
    assert found is not None
    assert found.progress.epoch == job.plan.phases[-1].epochs
    assert not found.optimiser
    assert (saved[-1].folder / "best.safetensors").exists() == (found.progress.best_epoch != len(found.progress.curve))
    again = [type(event) for event in train(begin(settings, tmp_path))]
    assert StepDone not in again


def phased(job: Job) -> Job:
    """The job with three training phases: the head alone, then the upper block, then everything."""
    solve, full = job.plan.phases
    thaw = ("head",), ("head", "final", "block 1"), tuple(row.stage for row in full.rows)
    phases = [
        dataclasses.replace(
            full,
            name=f"phase {number}",
            epochs=1 + number % 2,
            rows=tuple(row if row.stage in kept else dataclasses.replace(row, learning_rate=None) for row in full.rows),
        )
        for number, kept in enumerate(thaw)
    ]
    return dataclasses.replace(job, plan=dataclasses.replace(job.plan, phases=(solve, *phases)))


@pytest.mark.parametrize("stop_after", [3, 6, 7, 15, 18, 19, 22])
def test_a_plan_of_several_phases_is_resumed_in_each(
    settings: dict[str, object], tmp_path: Path, stop_after: int
) -> None:
    job = phased(begin(settings, tmp_path / "whole"))
    events = list(train(job))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 25))
    assert {event.steps for event in steps} == {24}
    whole = events[-1]
    assert isinstance(whole, Trained)
    assert [entry["epoch"] for entry in whole.curve] == [1, 2, 3, 4]
    best = max(whole.curve, key=lambda entry: (entry["metric"], -entry["validation_loss"]))
    assert whole.best_epoch == best["epoch"]
    cut = train(phased(begin(settings, tmp_path / "cut")))
    for event in cut:
        if isinstance(event, StepDone) and event.step == stop_after:
            break
    cut.close()  # type: ignore[attr-defined]
    resumed = finish(phased(begin(settings, tmp_path / "cut")))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.model.module.state_dict().items())


def test_a_half_written_or_damaged_checkpoint_is_passed_over(settings: dict[str, object], tmp_path: Path) -> None:
    events = train(begin(settings, tmp_path))
    for event in events:
        if isinstance(event, StepDone) and event.step == 5:
            break
    events.close()  # type: ignore[attr-defined]
    kept = sorted((tmp_path / "checkpoints").glob("step-*"))
    assert len(kept) == 2
    weights = kept[-1] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7] + b"garbage")
    found = checkpoint.newest(tmp_path / "checkpoints")
    assert found is not None
    assert f"step-{found.progress.step:08d}" == kept[0].name
    (kept[0] / "manifest.json").unlink()
    assert checkpoint.newest(tmp_path / "checkpoints") is None


def test_a_full_disk_stops_with_one_sentence_and_keeps_the_checkpoint_before(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = checkpoint.save_file, []

    def full(tensors: Any, path: Path) -> None:
        written.append(path)
        if len(written) > 7:
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match="No space left on device"):
        finish(begin(settings, tmp_path))
    assert checkpoint.newest(tmp_path / "checkpoints") is not None
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_signal_saves_and_says_how_to_go_on(settings: dict[str, object], tmp_path: Path) -> None:
    job = begin(settings, tmp_path)

    def listen(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="--resume"):
        follow(train(job), tmp_path / "log.jsonl", 1, tmp_path, listen)
    found = checkpoint.newest(tmp_path / "checkpoints")
    assert found is not None
    assert found.progress.step == 3


def test_a_signal_before_the_first_step_claims_nothing(settings: dict[str, object], tmp_path: Path) -> None:
    def listen(event: Any) -> None:
        if isinstance(event, HeadSolved):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="no step was taken yet"):
        follow(train(begin(settings, tmp_path)), tmp_path / "log.jsonl", 1, tmp_path, listen)


@pytest.fixture
def command(settings: dict[str, object], tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    settings["train"] = {**settings["train"], "epochs": 6, "checkpoint_seconds": 0}  # type: ignore[dict-item]
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tunesmith.cli", "train", *arguments],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return start


def test_sigkill_at_random_moments_changes_nothing(
    command: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Checkpoints are written after every step here, so some of the kills fall into the writing of one."""
    whole = command("settings.yaml", "--run", "whole")
    assert whole.wait() == 0
    draw = random.Random(0)
    killed = 0
    process = command("settings.yaml", "--run", "killed")
    for _ in range(4):
        for _ in _while_running(process, until=(tmp_path / "killed" / "checkpoints").is_dir):
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.25))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        if (tmp_path / "killed" / "report.json").exists():
            break
        process = command("--resume", "killed")
    assert process.wait() == 0
    assert killed
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "killed")]
    assert reports[0]["curve"] == reports[1]["curve"]
    assert reports[0]["metrics"] == reports[1]["metrics"]


def _while_running(process: subprocess.Popen[bytes], until: Callable[[], bool]) -> Iterator[None]:
    end = time.monotonic() + 60
    while process.poll() is None and not until() and time.monotonic() < end:
        yield


def test_a_second_process_on_the_same_run_is_refused(settings: dict[str, object], tmp_path: Path) -> None:
    place = run.create(tmp_path / "run")
    with run.locked(place), pytest.raises(RunError, match="Another process"), run.locked(place):
        pass


def test_data_that_changed_since_the_run_began_are_refused(
    settings: dict[str, object], rows: Path, tmp_path: Path
) -> None:
    def stop(event: Any) -> None:
        if isinstance(event, StepDone):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        api.finetune(settings, run=tmp_path / "run", listen=stop)
    with open(rows, "a") as handle:
        handle.write("word1 word2,good\n")
    with pytest.raises(RunError, match="data have changed"):
        api.resume(tmp_path / "run")
