"""adapt: continued pre-training before the task, in a run inside the run, held against the same training without it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
import transformers
from safetensors.torch import load_file

import tunesmith
from tiny import WORDS, write_model
from tunesmith import settings as settings_
from tunesmith import settings_file
from tunesmith.errors import Interrupted, RunError, SettingsError, TunesmithError
from tunesmith.models import sources
from tunesmith.run import Run
from tunesmith.tasks.preference import Preference
from tunesmith.tasks.text_similarity import TextSimilarity
from tunesmith.tasks.tiny_boxes import write_boxes
from tunesmith.tasks.tiny_hidden import write_texts
from tunesmith.tasks.tiny_preferences import write_pairs
from tunesmith.tasks.tiny_prompts import write_gpt2, write_prompts
from tunesmith.train.events import StepDone

TEXTS = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 32}


def read(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.report.read_text())
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model" / "model.safetensors")
    return found


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def adapted(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"adapt": TEXTS}


def stopping(after: int) -> Any:
    """A listener that asks the process to end after so many steps of whatever is trained."""
    steps = 0

    def listen(event: Any) -> None:
        nonlocal steps
        steps += isinstance(event, StepDone)
        if isinstance(event, StepDone) and steps == after:
            os.kill(os.getpid(), signal.SIGTERM)

    return listen


def test_the_task_starts_from_the_adapted_weights_and_is_held_against_the_run_without(
    settings: dict[str, Any], adapted: dict[str, Any], tmp_path: Path
) -> None:
    run = tunesmith.finetune(adapted, run=tmp_path / "run")
    report, inner = read(run), read(run.adaptation)
    assert inner["task"] == "masked-lm"
    assert report["model"]["name"] == settings["model"]
    assert report["adapt"]["texts"] == inner["data"]["train"]
    assert report["adapt"]["after"] == inner["metrics"]["test"]["masked_perplexity"]
    assert (run.folder / report["adapt"]["report"]).is_file()
    transformers.AutoModelForMaskedLM.from_pretrained(run.adaptation.model)
    # The run without is the run that would have been without, to the bit.
    plain = read(tunesmith.finetune(settings, run=tmp_path / "plain"))
    assert report["baselines"]["without_adapt"] == plain["metrics"]["test"]
    entry = next(one for one in report["comparisons"] if one["against"] == "without_adapt")
    gained = report["metrics"]["test"]["accuracy"]["value"] - plain["metrics"]["test"]["accuracy"]["value"]
    assert entry["difference"]["value"] == pytest.approx(gained)
    # And the task alone, from the model that the adaptation left, is the rest of this run.
    again = tunesmith.finetune(settings | {"model": str(run.adaptation.model)}, run=tmp_path / "again")
    assert same(run.folder, again.folder)
    page = run.page.read_text()
    assert "<h2>Adaptation</h2>" in page
    assert "the same training without the adaptation" in page
    assert "Before the task the network went on with its pre-training" in (run.model / "README.md").read_text()


def test_what_is_left_out_is_not_trained(adapted: dict[str, Any], tmp_path: Path) -> None:
    said: list[Any] = []
    adapted["evaluate"] = {"resamples": 100, "baselines": ["majority"]}
    report = read(tunesmith.finetune(adapted, run=tmp_path / "run", listen=said.append))
    assert "without_adapt" not in report["baselines"]
    assert not any("without the adaptation" in one for one in said if isinstance(one, str))


def test_test_and_validation_rows_are_not_among_the_texts(adapted: dict[str, Any], rows: Path, tmp_path: Path) -> None:
    run = tunesmith.finetune(adapted, run=tmp_path / "run")
    texts = set(pyarrow.parquet.read_table(run.texts).column("text").to_pylist())
    with open(rows, newline="") as handle:
        lines = list(csv.reader(handle))
    splits = json.loads(run.splits.read_text())
    held_out = {lines[int(name.partition(":")[2]) - 1][0] for name in splits["validation"] + splits["test"]}
    assert len(held_out) == 24
    assert held_out.isdisjoint(texts)
    assert len(texts) == read(run)["data"]["train"]
    assert not any("among the texts" in one for one in read(run).get("warnings", []))


def test_test_rows_among_texts_of_a_file_are_told(adapted: dict[str, Any], rows: Path, tmp_path: Path) -> None:
    said: list[Any] = []
    adapted["adapt"] = TEXTS | {"data": {"train": str(rows), "input": "text"}}
    run = tunesmith.finetune(adapted, run=tmp_path / "run", listen=said.append)
    (warning,) = [one for one in read(run)["warnings"] if "among the texts of the adaptation" in one]
    assert warning.startswith("12 of 12 test rows (100.0 %) stand")
    assert f"Note: {warning}" in said
    assert warning in run.page.read_text()
    assert not run.texts.exists()


@pytest.mark.parametrize("after", [2, 5, 11, 20])
def test_it_is_stopped_and_resumed_in_any_of_its_trainings(adapted: dict[str, Any], tmp_path: Path, after: int) -> None:
    """3 steps of the adaptation, 12 of the task, 12 of the run without."""
    whole = tunesmith.finetune(adapted, run=tmp_path / "whole")
    with pytest.raises(Interrupted) as stopped:
        tunesmith.finetune(adapted, run=tmp_path / "cut", listen=stopping(after))
    assert stopped.value.mend == f"Go on with: tunesmith train --resume {tmp_path / 'cut'}"
    assert not (tmp_path / "cut" / "report.json").exists()
    run = tunesmith.resume(tmp_path / "cut")
    assert same(whole.folder, run.folder)
    assert same(whole.adaptation.folder, run.adaptation.folder)
    for key in ("metrics", "baselines", "comparisons"):
        assert read(whole)[key] == read(run)[key]


KILLED = """
import json, os, signal, sys
from tunesmith import api
from tunesmith.train.events import StepDone

settings, places = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for folder, spot in places.items():
    if os.fork():
        assert os.wait()[1] == signal.SIGKILL
        continue
    steps = 0

    def listen(event):
        global steps
        steps += isinstance(event, StepDone)
        if event == spot or (isinstance(event, StepDone) and steps == spot):
            os.kill(os.getpid(), signal.SIGKILL)

    api.finetune(settings, run=folder, listen=listen)
"""
"""Runs that are killed where they stand, in one process that has imported what they need."""


def test_it_is_killed_in_the_middle_and_resumed(adapted: dict[str, Any], tmp_path: Path) -> None:
    """After the second of 3 steps, after training but before its report, and before the task, of 6 steps, has begun."""
    adapted["train"] |= {"checkpoint_seconds": 1e-6, "epochs": 1}
    adapted["evaluate"] = {"resamples": 100, "baselines": ["majority"]}
    spots = {"step": 2, "measuring": "Measuring on the test split.", "between": "Now the task."}
    places = {str(tmp_path / name): spot for name, spot in spots.items()}
    killing = [sys.executable, "-c", KILLED, json.dumps(adapted), json.dumps(places)]
    done = subprocess.run(
        killing, capture_output=True, text=True, check=False, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    whole = tunesmith.finetune(adapted, run=tmp_path / "whole")
    for name, left in zip(spots, (2, 0, 0), strict=True):
        assert (tmp_path / name / "adapt" / "report.json").exists() == (name == "between")
        heard: list[Any] = []
        run = tunesmith.resume(tmp_path / name, listen=heard.append)
        steps = sum(isinstance(event, StepDone) for event in heard)
        assert steps <= left + 6  # what was done before is not done again
        assert same(whole.folder, run.folder)
        assert same(whole.adaptation.folder, run.adaptation.folder)
        assert read(run)["metrics"] == read(whole)["metrics"]


def test_data_that_changed_during_the_adaptation_are_refused(
    adapted: dict[str, Any], rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        tunesmith.finetune(adapted, run=tmp_path / "run", listen=stopping(2))
    with open(rows, "a") as handle:
        handle.write("word1 word2,good\n")
    with pytest.raises(RunError, match="changed since the adaptation"):
        tunesmith.resume(tmp_path / "run")


def test_a_mistake_before_the_first_step_leaves_no_folder(adapted: dict[str, Any], tmp_path: Path) -> None:
    adapted["adapt"] = TEXTS | {"data": str(tmp_path / "missing.txt")}
    with pytest.raises(TunesmithError, match=r"The texts of adapt cannot be used: .*missing\.txt"):
        tunesmith.finetune(adapted, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_the_language_model_leaves_away_is_there_for_the_task(adapted: dict[str, Any], tmp_path: Path) -> None:
    """A pooler that was pre-trained is neither lost nor drawn anew."""
    run = tunesmith.finetune(adapted | {"evaluate": {"resamples": 100, "baselines": []}}, run=tmp_path / "run")
    before, after = load_file(Path(adapted["model"]) / "model.safetensors"), weights(run.adaptation.folder)
    assert torch.equal(after["bert.pooler.dense.weight"], before["pooler.dense.weight"])
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(after[f"bert.{name}"], before[name])
    found = transformers.AutoModel.from_pretrained(run.adaptation.model)
    assert torch.equal(found.pooler.dense.weight, before["pooler.dense.weight"])


def write_pooling(folder: Path, mode: str) -> None:
    """Make the folder of a transformer one of sentence-transformers."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
    listed = [
        {"idx": place, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (kind, path) in enumerate(kinds)
    ]
    (folder / sources.MODULES).write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}))


def test_the_pooling_that_files_name_is_kept(tmp_path: Path) -> None:
    """And so the run without is the same but for the adaptation."""
    given = TextSimilarity.tiny(tmp_path)
    write_pooling(Path(given["model"]), "pooling_mode_cls_token")
    wanted = given | {"task": "text-similarity", "method": "full", "train": {"epochs": 1, "precision": "fp32"}}
    run = tunesmith.finetune(wanted | {"adapt": TEXTS, "evaluate": {"resamples": 100}}, run=tmp_path / "run")
    (said,) = [reason for reason in read(run)["plan"]["reasons"] if "vector" in reason]
    assert "the model's files say so" in said
    transformers.AutoModelForMaskedLM.from_pretrained(run.adaptation.model)


@pytest.mark.parametrize("method", [{"name": "lora", "merge": False}, "probe", "auto"])
def test_any_method_can_follow(adapted: dict[str, Any], tmp_path: Path, method: Any) -> None:
    adapted["adapt"] = TEXTS | {"method": "lora"}
    run = tunesmith.finetune(adapted | {"method": method}, run=tmp_path / "run")
    assert "without_adapt" in read(run)["baselines"]
    assert tunesmith.load(run.folder).predict([f"{WORDS[3]} {WORDS[5]}"])[0]["prediction"] in ("good", "bad")


def test_decoders_go_on_with_the_next_token(settings: dict[str, Any], tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.csv", 100)
    wanted = settings | {
        "model": str(write_model(tmp_path / "gpt2", "gpt2")),
        "adapt": TEXTS | {"data": str(texts)},
    }
    report = read(tunesmith.finetune(wanted, run=tmp_path / "run"))
    assert (report["adapt"]["task"], report["adapt"]["metric"]) == ("causal-lm", "perplexity")
    assert report["adapt"]["before"]["value"] > report["adapt"]["after"]["value"]


def test_a_language_model_is_adapted_to_texts_of_a_file_and_measured_from_before_them(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts.csv", 100)
    wanted = {
        "task": {"name": "causal-lm", "written": 4},
        "model": str(write_gpt2(tmp_path / "gpt2")),
        "data": str(write_prompts(tmp_path / "prompts.jsonl")),
        "method": "full",
        "train": {"epochs": 1, "precision": "fp32"},
        "evaluate": {"resamples": 100},
    }
    with pytest.raises(SettingsError, match="no texts that it could take instead"):
        tunesmith.finetune(wanted | {"adapt": True}, run=tmp_path / "run")
    run = tunesmith.finetune(wanted | {"adapt": TEXTS | {"data": str(texts)}}, run=tmp_path / "run")
    plain = tunesmith.finetune(wanted, run=tmp_path / "plain")
    assert read(run)["baselines"]["before"] == read(plain)["baselines"]["before"]


def test_rewards_are_measured_from_before_the_adaptation_and_the_run_without_is_what_it_would_have_been(
    tmp_path: Path,
) -> None:
    wanted = {
        "task": "preference",
        "method": "full",
        "train": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"},
        "evaluate": {"resamples": 100},
        **Preference.tiny(tmp_path / "tiny"),
    }
    wanted["data"] = {"train": wanted["data"], "test": str(write_pairs(tmp_path / "test.jsonl", 20, seed=3))}
    texts = TEXTS | {"data": str(write_texts(tmp_path / "texts.csv", 100)), "learning_rate": 1e-2}
    run = tunesmith.finetune(wanted | {"adapt": texts}, run=tmp_path / "run")
    plain, report = read(tunesmith.finetune(wanted, run=tmp_path / "plain")), read(run)
    assert report["baselines"]["without_adapt"] == plain["metrics"]["test"]
    assert report["baselines"]["before"] == plain["baselines"]["before"]
    assert report["baselines"]["before"]["reward_margin"]["value"] == 0
    again = tunesmith.load(run.folder).evaluate(wanted["data"]["test"])["metrics"]["test"]
    for name, found in report["metrics"]["test"].items():
        assert again[name]["value"] == pytest.approx(found["value"], abs=1e-4)


def test_retention_is_measured_from_before_the_adaptation(
    settings: dict[str, Any], adapted: dict[str, Any], rows: Path, tmp_path: Path
) -> None:
    reference = {"retention": [{"name": "rows", "data": str(rows), "head": "probe"}], "resamples": 100}
    one, other = (
        read(tunesmith.finetune(wanted | {"evaluate": reference}, run=tmp_path / name))["retention"][0]["before"]
        for name, wanted in (("run", adapted), ("plain", settings))
    )
    assert one == other


def test_the_budget_is_for_all_of_it(adapted: dict[str, Any], tmp_path: Path) -> None:
    said: list[Any] = []
    run = tunesmith.finetune(adapted | {"budget": {"time": "100s"}}, run=tmp_path / "run", listen=said.append)
    inner = settings_.parse(settings_file.read_yaml(run.adaptation.settings))
    assert inner.budget.time is not None
    assert 30 < inner.budget.time <= 50


def test_the_plan_shows_both(adapted: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    from tunesmith import console  # noqa: PLC0415

    found = tunesmith.plan(adapted)
    assert found["adapt"]["method"] == "full"
    assert found["adapt"]["phases"][0]["epochs"] == 1
    console.show_plan(found)
    said = capsys.readouterr().out
    assert said.index("First the adaptation") < said.index("Then the task")


def test_what_makes_no_sense_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="method scratch forgets them"):
        settings_.parse(settings | {"adapt": True, "method": "scratch"})
    with pytest.raises(SettingsError, match=r"unknown key 'adapt\.epoch'; did you mean 'epochs'"):
        settings_.parse(settings | {"adapt": {"epoch": 3}})
    with pytest.raises(SettingsError, match="networks that read text"):
        settings_.parse(settings | {"adapt": True, "model": {"python": "x:y"}})
    boxes = {"task": "object-detection", "data": str(write_boxes(tmp_path / "boxes", 30))}
    from tiny import write_image_model  # noqa: PLC0415

    network = {"model": str(write_image_model(tmp_path / "vit"))}
    with pytest.raises(TunesmithError, match="no encoder or decoder of text"):
        tunesmith.finetune(settings | boxes | network | {"adapt": True}, run=tmp_path / "run")


@pytest.mark.parametrize(
    ("assignments", "found"),
    [
        (["adapt=texts.txt", "adapt.epochs=3"], ("texts.txt", 3)),
        (["adapt=true", "adapt.epochs=3"], (None, 3)),
        (["adapt.data.train=a.csv", "adapt.data.input=text"], ("a.csv", "auto")),
    ],
)
def test_it_is_set_on_the_command_line(assignments: list[str], found: tuple[Any, Any]) -> None:
    wanted = settings_.parse(settings_file.override({"data": "x.csv"}, assignments)).adapt
    assert wanted is not None
    assert (None if wanted.data is None else wanted.data.train, wanted.epochs) == found
    assert settings_.parse(settings_file.override({"data": "x.csv"}, ["adapt=false"])).adapt is None
