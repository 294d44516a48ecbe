"""The line from a file to a report, with tiny models: what a run leaves, and that every part of it opens again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml

import tunesmith
from tiny import ARCHITECTURES, WORDS, write_model
from tunesmith import api, conclude
from tunesmith.errors import DataError, ModelError, RunError, SettingsError, TrainingError, TunesmithError
from tunesmith.run import Run
from tunesmith.train import checkpoint


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """A finished run of `full`."""
    from tiny import write_rows  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("line")
    return tunesmith.finetune(
        {
            "model": str(tiny_model),
            "data": {"train": str(write_rows(folder / "rows.csv", 240))},
            "method": "full",
            "train": {"epochs": 6, "batch_size": 16, "learning_rate": 2e-3, "precision": "fp32"},
            "evaluate": {"resamples": 200, "baselines": ["majority", "probe", "scratch"]},
        },
        run=folder / "run",
    )


def test_a_training_that_spoils_its_start_ends_with_it(tiny_model: Path, tmp_path: Path) -> None:
    from tiny import write_rows  # noqa: PLC0415

    given = {
        "model": str(tiny_model),
        "data": {"train": str(write_rows(tmp_path / "rows.csv", 240))},
        "method": "full",
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 0.5, "precision": "fp32"},
    }
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["training"]["best_epoch"] == 0
    assert report["metrics"]["validation"]["accuracy"]["value"] > max(entry["metric"] for entry in report["curve"])
    assert "weights from before the first step were kept" in run.page.read_text()
    assert "No epoch was better on validation than the start" in (run.model / "README.md").read_text()


def test_a_run_leaves_what_the_design_says(finished: Run) -> None:
    for path in (
        finished.settings, finished.plan, finished.audit, finished.rejected, finished.splits, finished.log,
        finished.model / "model.safetensors", finished.model / "README.md", finished.predictions, finished.report,
        finished.page,
    ):  # fmt: skip
        assert path.is_file(), path
    report = json.loads(finished.report.read_text())
    for key in (
        "tunesmith_version", "task", "model", "method", "status", "seed", "data", "plan", "primary_metric", "metrics",
        "baselines", "training", "curve", "calibration", "warnings", "environment",
    ):  # fmt: skip
        assert key in report, key
    assert report["status"] == "finished"
    assert set(report["baselines"]) == {"majority", "probe", "scratch"}
    assert set(report["metrics"]) == {"test", "validation"}
    for value in report["metrics"]["test"].values():
        assert value["low"] <= value["value"] <= value["high"]
    assert report["training"]["parameters_trainable"] == report["training"]["parameters_total"]
    assert not finished.checkpoints.exists()
    splits = json.loads(finished.splits.read_text())
    assert len(splits["test"]) == report["data"]["test"]


def test_the_model_learns_what_can_be_learned(finished: Run) -> None:
    report = json.loads(finished.report.read_text())
    assert report["metrics"]["test"]["accuracy"]["value"] > report["baselines"]["majority"]["accuracy"]["value"] + 0.2


def test_the_predictions_file_holds_the_figures(finished: Run) -> None:
    table = pyarrow.parquet.read_table(finished.predictions)
    truth, prediction = table.column("truth").to_pylist(), table.column("prediction").to_pylist()
    report = json.loads(finished.report.read_text())
    right = np.mean([one == other for one, other in zip(truth, prediction, strict=True)])
    assert right == pytest.approx(report["metrics"]["test"]["accuracy"]["value"])


def test_the_saved_model_opens_with_pipeline_and_says_what_predict_says(finished: Run) -> None:
    import transformers  # noqa: PLC0415

    texts = ["word1 word2 word3", "word21 word22 word30 word60"]
    classify = transformers.pipeline("text-classification", model=str(finished.model))
    public = [row["label"] for row in classify(texts)]
    assert public == [row["prediction"] for row in tunesmith.load(finished.folder).predict(texts)]


def test_the_page_is_one_file_that_loads_nothing(finished: Run) -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[tuple[str, dict[str, str | None]]] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append((tag, dict(attrs)))

    reader = Reader()
    text = finished.page.read_text()
    reader.feed(text)
    assert not [tag for tag, _ in reader.tags if tag in ("link", "script", "img", "iframe")]
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert "test rows" in text


def test_writing_the_report_again_gives_the_same_page(finished: Run) -> None:
    before = finished.page.read_text()
    finished.page.unlink()
    from tunesmith.report.page import write_page  # noqa: PLC0415

    assert write_page(finished.folder).read_text() == before


def test_the_same_settings_give_the_same_weights_bit_for_bit(settings: dict[str, object], tmp_path: Path) -> None:
    from safetensors.torch import load_file  # noqa: PLC0415

    one, other = (api.finetune(settings, run=tmp_path / name) for name in ("one", "other"))
    first, second = (load_file(place.model / "model.safetensors") for place in (one, other))
    assert all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)


@pytest.mark.parametrize(
    ("method", "architecture"),
    [("full", name) for name in ARCHITECTURES if name != "bert"]
    + [("probe", name) for name in ("roberta", "mpnet", "modernbert", "gpt2")],
)
def test_every_architecture_goes_down_the_line_and_opens_again(
    settings: dict[str, object], tmp_path: Path, architecture: str, method: str
) -> None:
    """The run itself opens the model with its public loader and fails where the outputs differ."""
    settings |= {"model": str(write_model(tmp_path / architecture, architecture)), "method": method}
    settings["train"] = {**settings["train"], "epochs": 1}  # type: ignore[dict-item]
    place = api.finetune(settings, run=tmp_path / "run")
    report = json.loads(place.report.read_text())
    if method == "full":
        assert report["model"]["loader"] == "pipeline"


def test_a_probe_on_another_pooling_opens_with_the_code_of_its_card(
    settings: dict[str, object], tmp_path: Path
) -> None:
    place = api.finetune(settings | {"method": "probe"}, run=tmp_path / "run")
    report = json.loads(place.report.read_text())
    card = (place.model / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("your text", "word1 word2 word3")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = tunesmith.load(place.folder).predict(["word1 word2 word3"])[0]["prediction"]
    assert expected in done.stdout
    assert yaml.safe_load(card.split("---")[1])["library_name"] == (
        "transformers" if report["model"]["loader"] == "pipeline" else "sentence-transformers"
    )


def rows_of(path: Path, header: str, lines: list[str]) -> str:
    path.write_text(header + "\n" + "\n".join(lines) + "\n")
    return str(path)


def test_pairs_scores_and_several_labels_go_down_the_line(settings: dict[str, object], tmp_path: Path) -> None:
    pairs = rows_of(
        tmp_path / "pairs.csv",
        "sentence1,sentence2,score",
        [f"word{n % 40} word{n % 7},word{n % 31} word5,{(n * 37 % 50) / 10}" for n in range(100)],
    )
    place = api.finetune(settings | {"data": pairs}, run=tmp_path / "pairs")
    report = json.loads(place.report.read_text())
    assert report["primary_metric"] == "spearman"
    assert {"mae", "rmse"} <= set(report["metrics"]["test"])
    assert isinstance(tunesmith.load(place.folder).predict([("word1", "word2")])[0]["prediction"], float)
    labels = rows_of(
        tmp_path / "labels.csv",
        "text,toxic,rude",
        [f"word{n % 40} word{n % 7} word{n * 13 % 90},{n % 2},{int(n % 3 == 0)}" for n in range(100)],
    )
    data = {"train": labels, "target": ["toxic", "rude"]}
    place = api.finetune(settings | {"data": data}, run=tmp_path / "labels")
    report = json.loads(place.report.read_text())
    assert report["problem"] == "multi-label"
    assert {"micro_f1", "exact_match"} <= set(report["metrics"]["test"])


def test_long_texts_are_cut_and_counted_or_read_in_windows(settings: dict[str, object], tmp_path: Path) -> None:
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=150)) + f",{'ab'[n % 2]}" for n in range(60)]
    data = rows_of(tmp_path / "long.csv", "text,label", lines)
    said: list[object] = []
    place = api.finetune(settings | {"data": data}, run=tmp_path / "cut", listen=said.append)
    cut = json.loads(place.report.read_text())["truncation"]["train"]
    assert cut["rows_cut"] == json.loads(place.report.read_text())["data"]["train"]
    assert cut["longest"] == 152
    assert any("are longer than 64 tokens" in str(sentence) for sentence in said)
    task = {"name": "text-classification", "long_text": "windows"}
    settings["data"] = {"train": data, "near_duplicate": 1.0}
    lines[0] = "word1 word2,a"
    rows_of(tmp_path / "long.csv", "text,label", lines)
    place = api.finetune(settings | {"task": task}, run=tmp_path / "windows")
    windows = json.loads(place.report.read_text())["truncation"]["train"]
    assert windows["rows_cut"] == 0
    assert windows["rows_in_windows"] > 40


def test_predict_evaluate_and_compare_work_on_finished_runs(
    finished: Run, settings: dict[str, object], tmp_path: Path
) -> None:
    from tiny import write_rows  # noqa: PLC0415

    other = write_rows(tmp_path / "other.csv", 60, seed=5)
    found = tunesmith.load(finished.folder).evaluate(str(other))
    assert found["rows"] == 60
    assert found["metrics"]["test"]["accuracy"]["value"] > 0.6
    settings["data"] = yaml.safe_load(finished.settings.read_text())["data"]
    probe = api.finetune(settings | {"method": "probe"}, run=tmp_path / "probe")
    compared = tunesmith.compare([finished.folder, probe.folder])
    assert [set(entry) >= {"value", "low", "high"} for entry in compared["runs"]] == [True, True]
    assert "difference" in compared["runs"][1]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"model": "./nowhere"}, ModelError, "There is no model folder"),
        ({"model": "builtin:minillm"}, ModelError, "did you mean 'minilm'"),
        ({"method": "fulll"}, SettingsError, "did you mean 'full'"),
        ({"method": {"name": "full", "layerdecay": 0.9}}, SettingsError, "did you mean 'layer_decay'"),
        ({"task": {"name": "text-classification", "metric": "rmse"}}, SettingsError, "no metric of a single-label"),
        ({"task": {"name": "text-classification", "max_length": 9999}}, SettingsError, "takes 64 tokens"),
        ({"data": "nowhere.csv"}, DataError, "There is no data file"),
    ],
)
def test_a_mistake_is_one_sentence(
    settings: dict[str, object], tmp_path: Path, change: dict[str, object], kind: type[TunesmithError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        api.finetune(settings | change, run=tmp_path / "run")


def test_a_folder_that_is_not_empty_is_not_written_over(settings: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        api.finetune(settings, run=tmp_path / "run")


def test_a_run_that_fails_before_its_plan_leaves_its_name_free(settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        api.finetune(settings | {"model": str(tmp_path / "nowhere")}, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert api.finetune(settings | {"method": "probe"}, run=tmp_path / "run").report.exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody may write")
def test_a_folder_that_cannot_be_written_is_one_sentence(settings: dict[str, object]) -> None:
    with pytest.raises(RunError, match=r"/proc/run cannot be written: .*choose another folder with --run"):
        api.finetune(settings, run="/proc/run")


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_weights_from_before(
    settings: dict[str, object], tmp_path: Path
) -> None:
    wild = settings | {"train": {"epochs": 2, "batch_size": 16, "learning_rate": 1e30, "precision": "fp32"}}
    with pytest.raises(TrainingError, match=r"at step \d+, so training cannot go on.*lower train.learning_rate"):
        api.finetune(wild, run=tmp_path / "run")
    found = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert all(np.isfinite(weights.numpy()).all() for weights in found.weights.values())


def test_weights_that_were_measured_with_rounded_activations_may_differ_by_the_rounding() -> None:
    """On a few rows that moves the loss by more than the order of sums does."""
    logits = np.array([[4.0, -4.0]], dtype=np.float32)
    validation = SimpleNamespace(examples=None, logits=logits)
    task = SimpleNamespace(score=lambda *_: {"loss": 0.55})
    plan = SimpleNamespace(precision="bf16")
    for cache, best, refused in (({"hits": 9}, 0.5, False), ({"hits": 9}, 0.9, True), (None, 0.5, True)):
        trained = SimpleNamespace(best_loss=best, best_epoch=1, cache=cache, plan=plan)
        with pytest.raises(ModelError) if refused else nullcontext():
            conclude._check_restored(task, trained, validation)  # type: ignore[arg-type]


def test_best_weights_that_do_not_come_back_whole_fail_the_run(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 11 of the known failures: the head, or the pooling, is left as the last step had it."""
    from tunesmith.train import loop  # noqa: PLC0415

    real = loop.load_into

    def half(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
        real(module, tensors | {"classifier.weight": torch.randn(2, 32, generator=torch.Generator().manual_seed(0))})

    monkeypatch.setattr(loop, "load_into", half)
    with pytest.raises(ModelError, match="did not come back whole"):
        api.finetune(settings, run=tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize("breakage", ["no weights", "pickle", "other shapes", "no config", "garbage"])
def test_a_broken_model_folder_is_refused(settings: dict[str, object], tmp_path: Path, breakage: str) -> None:
    folder = write_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    if breakage == "no weights":
        weights.unlink()
        message = "has no weights"
    elif breakage == "pickle":
        weights.rename(folder / "pytorch_model.bin")
        message = "as a pickle only"
    elif breakage == "other shapes":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
        message = "have other shapes"
    elif breakage == "no config":
        (folder / "config.json").unlink()
        message = r"has no config\.json"
    else:
        weights.write_bytes(b"nonsense" * 100)
        message = "cannot be loaded"
    with pytest.raises(ModelError, match=message):
        api.finetune(settings | {"model": str(folder)}, run=tmp_path / "run")


@pytest.mark.reopens
def test_code_that_a_model_brings_runs_only_where_it_is_allowed(settings: dict[str, object], tmp_path: Path) -> None:
    """Loading, the probe's backbone, the fresh process that reopens, and predict: all of them, or none."""
    folder = write_model(tmp_path / "model")
    (folder / "own.py").write_text(
        "from transformers import BertConfig, BertForSequenceClassification, BertModel\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
        "class OwnClassifier(BertForSequenceClassification):\n    config_class = OwnConfig\n"
    )
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "OwnConfig", "AutoModel": "OwnModel", "AutoModelForSequenceClassification": "OwnClassifier"}
    own = {"model_type": "own", "auto_map": {name: f"own.{kind}" for name, kind in names.items()}}
    (folder / "config.json").write_text(json.dumps(config | own))
    settings |= {"model": str(folder), "train": {**settings["train"], "epochs": 1}}  # type: ignore[dict-item]
    with pytest.raises(ModelError, match="trust_remote_code"):
        api.finetune(settings, run=tmp_path / "refused")
    for method in ("full", "probe"):
        place = api.finetune(settings | {"trust_remote_code": True, "method": method}, run=tmp_path / method)
        assert tunesmith.load(place.folder).predict(["word1"])[0]["prediction"] in ("good", "bad")


def test_plan_says_what_train_does_and_trains_nothing(settings: dict[str, object]) -> None:
    found = tunesmith.plan(settings)
    assert [phase["head"] for phase in found["phases"]] == ["solve", "train"]
    assert [row["stage"] for row in found["phases"][1]["rows"]] == ["embeddings", "block 0", "block 1", "final", "head"]
    assert found["reasons"]


def test_layer_decay_lowers_the_rate_of_each_lower_stage(settings: dict[str, object]) -> None:
    found = tunesmith.plan(settings | {"method": {"name": "full", "layer_decay": 0.5}})
    rates = [row["learning_rate"] for row in found["phases"][1]["rows"]]
    assert rates == pytest.approx([1e-3 * 0.5**depth for depth in (4, 3, 2, 1, 0)])


def test_a_long_text_is_a_text_and_a_bare_text_is_no_list(finished: Run) -> None:
    from tunesmith.predict import predict_inputs  # noqa: PLC0415

    assert len(predict_inputs(finished.folder, [" ".join(WORDS[:60])], [])) == 1
    with pytest.raises(DataError, match="where a list of texts is needed"):
        tunesmith.load(finished.folder).predict("parcel")


def test_a_second_training_is_shown_after_the_first(settings: dict[str, object], tmp_path: Path) -> None:
    """The baseline from scratch sends its steps to the same listener as the run itself."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    from tunesmith.console import _Listener  # noqa: PLC0415

    listener = _Listener(Progress(console=Console(quiet=True)))
    wanted = settings | {"evaluate": {"resamples": 100, "baselines": ["scratch"]}}
    assert (
        "scratch"
        in json.loads(api.finetune(wanted, run=tmp_path / "run", listen=listener).report.read_text())["baselines"]
    )
