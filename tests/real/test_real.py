"""Real weights and real data, from the folder shared/ beside the checkout; skipped, and said so, where it is absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tunesmith

SHARED = Path(__file__).parents[3] / "shared"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no folder shared/ beside the checkout")


def test_a_probe_of_minilm_on_sst2_has_the_accuracy_that_is_claimed(tmp_path: Path) -> None:
    files = {split: str(SHARED / "data" / "sst2" / f"{split}.csv") for split in ("train", "validation", "test")}
    run = tunesmith.finetune({"data": files, "method": "probe", "evaluate": {"resamples": 200}}, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["metrics"]["test"]["accuracy"]["value"] >= 0.805
    assert report["model"]["loader"] == "sentence-transformers"


def test_sentence_pairs_with_scores_are_read_and_probed(tmp_path: Path) -> None:
    data = {"train": str(SHARED / "data" / "stsb" / "test.csv")}
    run = tunesmith.finetune({"data": data, "method": "probe", "evaluate": {"resamples": 200}}, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["data"]["columns"]["inputs"] == ["sentence1", "sentence2"]
    assert report["primary_metric"] == "spearman"


def test_a_real_decoder_is_fine_tuned_and_opens_again(tmp_path: Path) -> None:
    lines = (SHARED / "data" / "trec" / "train.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:301]) + "\n")
    settings = {
        "model": str(SHARED / "weights" / "gpt2-books"),
        "data": {"train": str(tmp_path / "few.csv"), "target": "label"},
        "method": "full",
        "train": {"epochs": 1},
        "evaluate": {"resamples": 200},
    }
    run = tunesmith.finetune(settings, run=tmp_path / "run")
    assert json.loads(run.report.read_text())["model"]["loader"] == "pipeline"


def test_a_real_language_model_has_the_perplexity_that_it_was_left_with(tmp_path: Path) -> None:
    lines = (SHARED / "data" / "trec" / "train.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:301]) + "\n")
    held_out = str(SHARED / "data" / "books" / "held-out.txt")
    data = {"train": held_out, "validation": held_out, "test": held_out}
    settings = {
        "model": str(SHARED / "weights" / "gpt2-books"),
        "data": {"train": str(tmp_path / "few.csv"), "target": "label"},
        "method": "partial",
        "train": {"epochs": 3},
        "evaluate": {"resamples": 200, "retention": [{"name": "novels", "task": "causal-lm", "data": data}]},
    }
    run = tunesmith.finetune(settings, run=tmp_path / "run")
    (kept,) = json.loads(run.report.read_text())["retention"]
    assert kept["before"]["value"] == pytest.approx(134, rel=0.04)  # its SOURCE.md, other windows
    assert kept["after"]["value"] == pytest.approx(kept["before"]["value"], rel=0.1)
    assert kept["difference"]["low"] < kept["difference"]["value"] < kept["difference"]["high"]


def test_trec_repeats_between_splits_are_found() -> None:
    folder = SHARED / "data" / "trec"
    found = tunesmith.check(
        {"data": {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "target": "label"}}
    )
    assert sum(entry["rows"] for entry in found["overlap"].values()) >= 10


def test_a_probe_of_a_cifar_resnet_tells_defects_of_tiles_apart(tmp_path: Path) -> None:
    """Grey tiles, in splits that a column names, tiles kept together; a majority has macro-F1 0.11."""
    settings = {
        "task": {"name": "image-classification", "metric": "macro_f1"},
        "model": str(SHARED / "weights" / "resnet-cifar10"),
        "data": {
            "train": str(SHARED / "data" / "magnetic-tile" / "splits.csv"), "split_column": "split", "group": "tile",
        },
        "method": "probe",
        "train": {"precision": "fp32"},
        "evaluate": {"resamples": 200},
    }  # fmt: skip
    report = json.loads(tunesmith.finetune(settings, run=tmp_path / "run").report.read_text())
    assert report["metrics"]["test"]["macro_f1"]["value"] > 0.5
    assert {name: report["data"][name] for name in ("train", "validation", "test")} == {
        "train": 474, "validation": 158, "test": 160,
    }  # fmt: skip
    assert report["model"]["loader"] == "pipeline"


@pytest.mark.parametrize(("function", "least"), [("resnet20", 0.79), ("resnet56", 0.80)])
def test_a_network_of_ones_own_keeps_its_own_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, least: float
) -> None:
    """State dicts of a house network: 0.804 on these images for resnet20, as its SOURCE.md says."""
    shutil.copy(Path(__file__).parents[1] / "nets.py", tmp_path / "nets_of_the_house.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    labels = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    settings = {
        "task": {"name": "image-classification", "metric": "macro_f1"},
        "model": {
            "python": f"nets_of_the_house:{function}", "size": 32, "labels": labels,
            "weights": str(SHARED / "weights" / f"cifar-{function}" / "model.safetensors"),
        },
        "data": {"train": str(SHARED / "data" / "magnetic-tile" / "splits.csv"), "split_column": "split"},
        "method": "probe",
        "evaluate": {"resamples": 200, "retention": [{"name": "cifar", "data": str(SHARED / "data" / "cifar10-slice")}]},
    }  # fmt: skip
    run = tunesmith.finetune(settings, run=tmp_path / "run")
    kept = json.loads(run.report.read_text())["retention"][0]
    assert kept["head"] == "own"
    assert kept["before"]["value"] == kept["after"]["value"] >= least
