"""Words from loss to prediction: paths that spell entities, long texts in windows, and what other loaders make of a run."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import transformers

import tunesmith
from tiny import DECODERS, write_model
from tunesmith import prepare, settings
from tunesmith.errors import DataError, GuessWarning, ModelError, SettingsError
from tunesmith.models.forward import logits
from tunesmith.predict import predict_inputs
from tunesmith.settings import UserModel
from tunesmith.tasks.marked_text import marked
from tunesmith.tasks.tiny import WORDS
from tunesmith.tasks.token_classification import TokenClassification
from tunesmith.tasks.word_problems import Entities, WordTags

TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}
LONG = TRAIN | {"epochs": 30, "batch_size": 8, "learning_rate": 3e-3, "patience": 30}


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Any]:
    return {"task": "token-classification", **TokenClassification.tiny(tmp_path / "tiny")}


def ready_for(given: dict[str, Any], folder: Path) -> Any:
    return prepare.prepare(settings.parse(given), folder / "cache", torch.device("cpu"), lambda _: None)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_path_is_the_best_of_all_that_spell_entities(seed: int) -> None:
    lengths = [4, 1, 3]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    values = np.random.default_rng(seed).normal(size=(8, 5)).astype(np.float32)
    found = Entities().decoded(values, ends)

    def allowed(path: tuple[int, ...]) -> bool:
        return all(tag in (0, 1, 3) or before in (tag, tag - 1) for before, tag in zip((0, *path), path, strict=False))

    for row, length in enumerate(lengths):
        own = values[ends[row] : ends[row + 1]]
        paths = [path for path in itertools.product(range(5), repeat=length) if allowed(path)]
        best = max(paths, key=lambda path: sum(own[word, tag] for word, tag in enumerate(path)))
        assert tuple(found[ends[row] : ends[row + 1]]) == best


def test_long_texts_have_the_best_path_to_the_last_digit() -> None:
    values = np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32)
    values[:, 0] += 9
    ends = np.array([0, len(values)])
    whole = Entities().decoded(values, ends)
    # Where O is by far the best, paths before and after do not depend on each other.
    cut = np.flatnonzero(values[:, 0] - values[:, 1:].max(axis=1) > 8)[::50]
    parts = Entities().decoded(values, np.concatenate([[0], cut[cut > 0], [len(values)]]))
    assert (whole == parts).all()


def test_words_in_one_token_go_together() -> None:
    follows = np.array([False, True, False, True, True, False])
    taught = Entities().taught(np.array([0, 1, 3, 4, 0, 0]), follows)
    assert taught[[0, 2, 5]].tolist() == [1, 3, 0]
    logits = np.zeros((6, 5), dtype=np.float32)
    logits[0, 1] = logits[2, 3] = logits[5, 0] = 5
    found = Entities().decoded(logits, np.array([0, 6]))
    assert found.tolist() == [1, 2, 3, 4, 4, 0]
    assert WordTags().decoded(logits, np.array([0, 6])).tolist() == [1, 1, 3, 3, 3, 0]


def test_entities_become_tags_and_come_back() -> None:
    target = {"first": [1, 3, 4], "last": [3, 4, 6], "classes": [0, 1, 1]}
    tags = Entities().encoded(target, 7)
    assert tags.tolist() == [0, 1, 2, 3, 3, 4, 0]
    assert Entities().objects(tags) == [(1, 3, 0), (3, 4, 1), (4, 6, 1)]
    assert Entities().tags(["a", "b"]) == ["O", "B-a", "I-a", "B-b", "I-b"]


def test_a_step_counts_words_and_each_of_them_once(texts: dict[str, Any], tmp_path: Path) -> None:
    texts["task"] = {"name": "token-classification", "max_length": 8}  # in windows
    ready = ready_for({**texts, "method": "full", "train": TRAIN}, tmp_path)
    examples, task = ready.train, ready.task
    assert len(examples) > examples.rows
    every = np.arange(len(examples))
    output = torch.randn((len(examples), int(examples.lengths.max()), 5), generator=torch.Generator().manual_seed(0))
    whole = task.loss(output, examples, every)
    assert whole.count == len(examples.tags)
    parts = [task.loss(output[part], examples, part) for part in np.array_split(every, 7)]
    assert sum(float(part.sum) for part in parts) == pytest.approx(float(whole.sum), rel=1e-5)
    assert sum(part.count for part in parts) == whole.count
    found = task.decode(examples, task.outcome(output, examples, every).numpy())
    assert task.score(examples, found)["loss"] == pytest.approx(float(whole.sum) / whole.count, rel=1e-5)


def test_a_run_finds_entities_and_pipeline_finds_them_too(texts: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.finetune({**texts, "method": "full", "train": LONG}, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["primary_metric"] == "entity_f1"
    assert report["metrics"]["test"]["entity_f1"]["value"] > 0.6
    assert set(report["baselines"]) == {"majority", "probe"}
    assert [row["label"] for row in report["per_class"]] == ["person", "place"]
    for row in report["per_class"]:
        assert row["interval"]["low"] <= row["f1"] <= row["interval"]["high"]
    assert report["labels"] == ["person", "place"]
    table = pyarrow.parquet.read_table(run.predictions).to_pylist()
    assert {"id", "truth", "prediction", "entities"} <= set(table[0])
    predictor = tunesmith.load(run.folder)
    text = f"{WORDS[50]} {WORDS[3]} {WORDS[60]} {WORDS[25]}"
    [row] = predictor.predict([text.split()])
    assert [one["text"] for one in row["entities"]] == [WORDS[3], WORDS[25]]
    assert all(text[one["start"] : one["end"]] == one["text"] for one in row["entities"])
    assert row["prediction"] == [f"{one['text']} ({one['label']})" for one in row["entities"]]
    [other] = predictor.predict([text])  # whose letters and digits are words by themselves
    assert other["entities"][0]["start"] == row["entities"][0]["start"]
    tag = transformers.pipeline("token-classification", model=str(run.model), aggregation_strategy="first")
    assert [(one["entity_group"], one["start"], one["end"]) for one in tag(text)] == [
        (one["label"], one["start"], one["end"]) for one in row["entities"]
    ]
    assert "Test entities" in run.page.read_text()
    again = predictor.evaluate(texts["data"])
    assert again["metrics"]["test"]["entity_f1"]["value"] > 0.6
    other = tunesmith.finetune({**texts, "method": "probe"}, run=tmp_path / "other")
    assert json.dumps(tunesmith.compare([run.folder, other.folder]))


def test_long_texts_lose_nothing_by_windows(texts: dict[str, Any], tmp_path: Path) -> None:
    """The probe of a text that is read whole and in windows answers for each word."""
    path = tmp_path / "long.jsonl"
    rows = [
        {"tokens": [WORDS[(7 * row + at) % 200] for at in range(150)], "tags": ["B-a", *["O"] * 148, "B-a"]}
        for row in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    run = tunesmith.finetune({**texts, "data": str(path), "method": "probe"}, run=tmp_path / "run")
    cut = json.loads(run.report.read_text())["truncation"]["test"]
    assert cut["rows_cut"] == 0
    assert cut["rows_in_windows"] > 0
    predictor = tunesmith.load(run.folder)
    [row] = predictor.predict([[WORDS[at % 200] for at in range(300)]])
    assert isinstance(row["entities"], list)


def test_each_word_may_have_a_tag(texts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pos.conll"
    lines = []
    for row in range(60):
        lines += [f"{WORDS[(row + at) % 40]} {'NOUN' if (row + at) % 40 < 20 else 'VERB'}" for at in range(5)] + [""]
    path.write_text("\n".join(lines))
    run = tunesmith.finetune({**texts, "data": str(path), "method": "full", "train": LONG}, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["primary_metric"] == "token_accuracy"
    assert report["metrics"]["test"]["token_accuracy"]["value"] > 0.8
    assert sum(map(sum, report["confusion"]["counts"])) == sum(row["support"] for row in report["per_class"])
    [row] = tunesmith.load(run.folder).predict([[WORDS[1], WORDS[30]]])
    assert row["tags"] == ["NOUN", "VERB"]
    assert row["prediction"] == f"{WORDS[1]}/NOUN {WORDS[30]}/VERB"
    assert [one["text"] for one in row["words"]] == [WORDS[1], WORDS[30]]
    other = tunesmith.finetune({**texts, "data": str(path), "method": "probe"}, run=tmp_path / "other")
    assert json.dumps(tunesmith.compare([run.folder, other.folder]))


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "electra", "deberta-v2", *DECODERS])
def test_networks_of_every_kind_tag_words(texts: dict[str, Any], tmp_path: Path, architecture: str) -> None:
    texts["model"] = str(write_model(tmp_path / "model", architecture))
    ready = ready_for({**texts, "method": "probe"}, tmp_path)
    found = logits(ready.task, ready.model, ready.validation, "fp32")
    assert found.shape == (len(ready.validation.tags), 5)
    assert np.isfinite(found).all()


def test_adapters_beside_the_original_open_with_peft(texts: dict[str, Any], tmp_path: Path) -> None:
    method = {"name": "lora", "merge": False}
    run = tunesmith.finetune({**texts, "method": method, "train": TRAIN | {"epochs": 1}}, run=tmp_path / "run")
    told = json.loads((run.model / "adapter_config.json").read_text())
    assert told["task_type"] == "TOKEN_CLS"
    [row] = tunesmith.load(run.folder).predict([f"{WORDS[50]} {WORDS[3]}"])
    assert isinstance(row["entities"], list)


def test_what_cannot_be_is_refused(texts: dict[str, Any], tmp_path: Path) -> None:
    for wrong, error, told in (
        ({"train": TRAIN | {"mixup": 0.3}}, SettingsError, "mixup"),
        ({"train": TRAIN | {"r_drop": 1.0, "dropout": 0.1}}, SettingsError, "r_drop"),
        ({"method": "prompt"}, ModelError, "virtual tokens"),
        ({"task": {"name": "token-classification", "metric": "accuracy"}}, SettingsError, "no metric of entities"),
        ({"task": {"name": "token-classification", "max_length": 999}}, SettingsError, "max_length"),
    ):
        with pytest.raises(error, match=told):
            tunesmith.finetune({**texts, "method": "full", **wrong}, run=tmp_path / "run")
    with pytest.raises(ModelError, match="reads text"):
        TokenClassification(TokenClassification.Settings()).load_model(UserModel(python="nets:small"), (), seed=0)
    run = tunesmith.finetune({**texts, "method": "probe"}, run=tmp_path / "probe")
    with pytest.raises(DataError, match="empty text"):
        tunesmith.load(run.folder).predict([" "])


def test_marks_say_what_was_missed_and_what_is_wrong() -> None:
    text = "Ann went to New York by train today"
    words = [0, 3, 4, 8, 9, 11, 12, 15, 16, 20, 21, 23, 24, 29, 30, 35]
    parts = marked(text, words, [(0, 1, 0), (3, 5, 1)], [(3, 4, 1), (7, 8, 0)], ["person", "place"])
    assert [(part["text"].strip(), part["kind"]) for part in parts] == [
        ("Ann", "missed"), ("went to", "plain"), ("New", "wrong"), ("York", "missed"), ("by train", "plain"),
        ("today", "added"),
    ]  # fmt: skip
    assert "".join(part["text"] for part in parts) == text


def test_a_run_reads_files_that_call_their_columns_otherwise(texts: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.finetune({**texts, "method": "probe"}, run=tmp_path / "run")  # of tokens and tags
    text = f"{WORDS[50]} {WORDS[3]}"
    spans = [{"start": len(WORDS[50]) + 1, "end": len(text), "label": "place"}]
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": text, "spans": spans}))
    with pytest.warns(GuessWarning, match="no column 'tokens': 'text' is read"):
        [row] = predict_inputs(run.folder, [str(tmp_path / "new.jsonl")], [])
    assert isinstance(row["entities"], list)
    with pytest.warns(GuessWarning, match="'text', 'spans' is read"):
        found = tunesmith.load(run.folder).evaluate(str(tmp_path / "new.jsonl"))
    assert found["rows"] == 1
    (tmp_path / "new.txt").write_text(f"{text}\n\n{WORDS[3]}\n")
    with pytest.warns(GuessWarning, match="read line by line"):
        assert [row["prediction"] is None for row in predict_inputs(run.folder, [str(tmp_path / "new.txt")], [])] == [
            False, True, False,
        ]  # fmt: skip
    (tmp_path / "tagged.txt").write_text(f"{WORDS[50]} O\n{WORDS[3]} B-place\n\n{WORDS[3]} O\n")
    with pytest.warns(GuessWarning, match="read as CoNLL's form"):
        assert len(predict_inputs(run.folder, [str(tmp_path / "tagged.txt")], [])) == 2


def test_a_checkpoint_that_tags_words_is_measured_by_its_own_head(texts: dict[str, Any], tmp_path: Path) -> None:
    run = tunesmith.finetune({**texts, "method": "probe"}, run=tmp_path / "run")
    reference = {"name": "own", "data": texts["data"], "head": "own"}
    again = tunesmith.finetune(
        {**texts, "model": str(run.model), "method": "probe", "evaluate": {"retention": [reference]}},
        run=tmp_path / "again",
    )
    assert json.loads(again.report.read_text())["retention"][0]["head"] == "own"


@pytest.mark.parametrize("whole", [True, False])
def test_the_card_says_what_predict_says(texts: dict[str, Any], tmp_path: Path, whole: bool) -> None:
    if not whole:
        texts["task"] = {"name": "token-classification", "problem": "tags"}
        path = tmp_path / "tags.jsonl"
        draw = np.random.default_rng(0)
        chosen = [draw.choice(40, 5, replace=False).tolist() for _ in range(80)]
        rows = [{"tokens": [WORDS[at] for at in one], "tags": ["AB"[at % 2] for at in one]} for one in chosen]
        path.write_text("\n".join(map(json.dumps, rows)))
        texts["data"] = str(path)
    run = tunesmith.finetune({**texts, "method": "full", "train": LONG}, run=tmp_path / "run")
    code = (run.model / "README.md").read_text().split("```python\n")[1].split("```")[0]
    text = " ".join(WORDS[3:6])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code.replace("your text", text), {})
    [row] = tunesmith.load(run.folder).predict([text.split()])
    if whole:
        assert len(said.getvalue().splitlines()) == len(row["entities"])
    else:
        assert [line.split()[1] for line in said.getvalue().splitlines()] == row["tags"]
