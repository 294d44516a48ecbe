"""masked-lm as a task of its own: what is learned, what is measured, what is kept, and how it is used afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import transformers

import tunesmith
from tiny import ARCHITECTURES, DECODERS, WORDS, write_model
from tunesmith import prepare
from tunesmith import settings as settings_
from tunesmith.errors import DataError, ModelError
from tunesmith.models.forward import logits
from tunesmith.predict import predict_inputs
from tunesmith.prepare import Prepared
from tunesmith.run import Run
from tunesmith.tasks.tiny_hidden import write_masked_bert, write_texts
from tunesmith.train.events import StepDone

PACE = {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked")
    write_masked_bert(folder / "bert")
    write_texts(folder / "texts.csv", 300)
    return folder


def given(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "task": "masked-lm", "model": str(folder / "bert"), "data": str(folder / "texts.csv"), "method": "full",
        "train": PACE, "evaluate": {"resamples": 100},
    } | more  # fmt: skip


def ready(values: dict[str, Any], cache: Path) -> Prepared:
    return prepare.prepare(settings_.parse(values), cache, torch.device("cpu"), lambda _: None)


@pytest.fixture(scope="module")
def finished(folder: Path) -> Run:
    return tunesmith.finetune(given(folder), run=folder / "run")


def test_the_loss_is_the_one_that_transformers_computes(folder: Path, tmp_path: Path) -> None:
    found = ready(given(folder), tmp_path)
    examples, network = found.validation, found.model.module
    ids, mask, _ = examples.padded(np.arange(len(examples)), 0)  # type: ignore[attr-defined]
    wanted = examples._wanted_at(np.arange(len(examples)))  # type: ignore[attr-defined]
    labels = torch.from_numpy(np.where(wanted < 0, -100, wanted))
    with torch.no_grad():
        loss = network.eval()(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), labels=labels
        ).loss
    own = found.task.score(examples, logits(found.task, found.model, examples, "fp32"))
    assert own["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert own["masked_perplexity"] == pytest.approx(float(loss.exp()), rel=1e-5)


def test_a_run_learns_and_says_by_how_much(finished: Run) -> None:
    report = json.loads(finished.report.read_text())
    test = report["metrics"]["test"]
    before, after = (one["masked_perplexity"]["value"] for one in (report["baselines"]["before"], test))
    assert after < before
    assert test["masked_accuracy"]["value"] > report["baselines"]["before"]["masked_accuracy"]["value"]
    assert report["baselines"]["frequencies"]["masked_perplexity"]["value"] < before
    assert {entry["against"] for entry in report["comparisons"]} == {"before", "frequencies"}
    assert report["hidden"]["tokens"] > 0
    page = finished.page.read_text()
    assert "What it says" in page
    assert "the model as it came" in page
    for one in report["samples"]:
        assert one["prompt"].count("[MASK]") == len(one["truth"].split(", "))
        assert set(one["said"]) == {"before", "after"}
    assert all(any(told for _, told in one["tokens"]) for one in report["learned"])
    assert any("other in each" in reason or "others in each" in reason for reason in report["plan"]["reasons"])
    assert 'pipeline("fill-mask"' in (finished.model / "README.md").read_text()


def test_runs_of_other_seeds_are_asked_for_the_same_words_and_so_is_evaluate(folder: Path, tmp_path: Path) -> None:
    data = {"train": str(folder / "texts.csv"), "test": str(write_texts(tmp_path / "more.csv", 40, seed=7))}
    short = {"epochs": 1, "precision": "fp32"}
    runs = [
        tunesmith.finetune(given(folder, data=data, seed=seed, train=short), run=tmp_path / str(seed))
        for seed in (1, 2)
    ]
    tokens = [pyarrow.parquet.read_table(run.predictions).column("tokens") for run in runs]
    assert tokens[0] == tokens[1]
    again = tunesmith.load(runs[0].folder).evaluate(data["test"])["metrics"]["test"]
    for name, found in json.loads(runs[0].report.read_text())["metrics"]["test"].items():
        assert again[name]["value"] == pytest.approx(found["value"], rel=1e-4)


def test_predictions_hold_the_figures_of_each_row(finished: Run) -> None:
    table = pyarrow.parquet.read_table(finished.predictions)
    test = json.loads(finished.report.read_text())["metrics"]["test"]
    loss, right, tokens = (np.array(table.column(name)) for name in ("loss", "right", "tokens"))
    assert np.exp(loss.sum() / tokens.sum()) == pytest.approx(test["masked_perplexity"]["value"])
    assert right.sum() / tokens.sum() == pytest.approx(test["masked_accuracy"]["value"])


def test_masks_of_a_text_are_filled_as_the_public_pipeline_fills_them(finished: Run) -> None:
    texts = [f"{WORDS[3]} [MASK] {WORDS[5]}", f"{WORDS[1]} {WORDS[8]} [MASK]"]
    fill = transformers.pipeline("fill-mask", model=str(finished.model))
    found = tunesmith.load(finished.folder).predict(texts)
    for text, one in zip(texts, found, strict=True):
        assert one["prediction"] == text.replace("[MASK]", fill(text, top_k=1)[0]["token_str"].strip())


def test_a_text_without_a_word_has_no_prediction_among_others_and_is_refused_alone(finished: Run) -> None:
    predictor = tunesmith.load(finished.folder)
    one, other = predictor.predict(["unheard of", f"{WORDS[3]} [MASK]"])
    assert one["prediction"] is None
    assert other["prediction"].startswith(WORDS[3])
    with pytest.raises(DataError, match="No text has a token"):
        predictor.predict(["unheard of"])


def test_other_texts_are_measured_too(finished: Run, folder: Path, tmp_path: Path) -> None:
    found = tunesmith.load(finished.folder).evaluate(str(write_texts(tmp_path / "more.csv", 40, seed=7)))
    assert found["rows"] == 40
    assert found["metrics"]["test"]["masked_perplexity"]["value"] > 1
    assert len(predict_inputs(finished.folder, [str(tmp_path / "more.csv")], [])) == 40


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in DECODERS])
def test_a_head_that_files_lack_is_new_tied_to_the_embeddings_and_learns(
    architecture: str, folder: Path, tmp_path: Path
) -> None:
    wanted = given(folder, model=str(write_model(tmp_path / "model", architecture)))
    found = ready(wanted, tmp_path / "cache")
    network: Any = found.model.module
    assert found.model.head == "new"
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
    plan = found.frontier.candidates[0]
    assert any("new; its matrix is that of the embeddings" in reason for reason in plan.reasons)
    rates = {row.stage: row.learning_rate for row in plan.phases[-1].rows}
    assert rates["head"] > rates["embeddings"]  # type: ignore[operator]
    again = ready(wanted, tmp_path / "again").model.module.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())
    run = tunesmith.finetune(wanted, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert "before" not in report["baselines"]  # a head of chance says nothing
    assert report["curve"][-1]["train_loss"] < report["curve"][0]["train_loss"]


@pytest.mark.parametrize("bare", [False, True])
def test_adapters_apart_open_with_their_base(folder: Path, tmp_path: Path, *, bare: bool) -> None:
    model = write_model(tmp_path / "model") if bare else folder / "bert"
    wanted = given(folder, model=str(model), method={"name": "lora", "merge": False})
    run = tunesmith.finetune(wanted, run=tmp_path / "run")
    assert tunesmith.load(run.folder).predict([f"{WORDS[3]} [MASK]"])[0]["prediction"].startswith(WORDS[3])


def test_a_stopped_run_goes_on_with_the_words_that_it_would_have_hidden(
    finished: Run, folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file  # noqa: PLC0415

    def stop(event: Any) -> None:
        if isinstance(event, StepDone) and event.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tunesmith.finetune(given(folder), run=tmp_path / "run", listen=stop)
    tunesmith.resume(tmp_path / "run")
    one, other = (load_file(path / "model" / "model.safetensors") for path in (finished.folder, tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_references_of_the_same_name_hide_each_token_by_itself(folder: Path, tmp_path: Path) -> None:
    reference = {"name": "texts", "data": str(write_texts(tmp_path / "more.csv", 100, seed=5)), "rows": 50}
    evaluate = {"resamples": 100, "retention": [reference]}
    run = tunesmith.finetune(given(folder, evaluate=evaluate, method="lora"), run=tmp_path / "run")
    (entry,) = json.loads(run.report.read_text())["retention"]
    assert entry["metric"] == "pseudo_perplexity"
    assert entry["after"]["value"] < entry["before"]["value"]


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="knows no AutoModelForMaskedLM"):
        ready(given(folder, model=str(write_model(tmp_path / "gpt2", "gpt2"))), tmp_path / "cache")
    texts = tmp_path / "unknown.csv"
    texts.write_text("text\n" + "\n".join(f"no{number} such{number}" for number in range(40)) + "\n")
    with pytest.raises(DataError, match="No text has a token"):
        ready(given(folder, data=str(texts)), tmp_path / "other")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "bert")
    write_masked_bert(tmp_path / "maskless")
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "maskless")
    with pytest.raises(ModelError, match="no mask token"):
        ready(given(folder, model=str(tmp_path / "maskless")), tmp_path / "third")
