"""Texts that are compared, in every form that data have: from loss to prediction, and what other loaders make of it."""

from __future__ import annotations

import csv
import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import tunesmith
from steps import prepared, stepper
from tiny import WORDS, write_model
from tunesmith import predict
from tunesmith.data import batches
from tunesmith.errors import DataError, ModelError, SettingsError
from tunesmith.plans import Guards
from tunesmith.tasks import comparing
from tunesmith.tasks.text_similarity import PROBLEMS, TextSimilarity

TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}
HEADERS = {
    "scored-pairs": ["sentence1", "sentence2", "score"],
    "binary-pairs": ["question1", "question2", "is_duplicate"],
    "positive-pairs": ["anchor", "positive"],
    "triplets": ["anchor", "positive", "negative"],
    "labels": ["text", "label"],
}


def write(path: Path, problem: str, rows: int = 120) -> Path:
    """Rows of any form: texts that are alike share words."""
    draw = random.Random(0)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(HEADERS[problem])
        for number in range(rows):
            first = draw.sample(WORDS, 6)
            second, other = first[:4] + draw.sample(WORDS, 2), draw.sample(WORDS, draw.randint(4, 20))
            near, far, text = (" ".join(words) for words in (second, other, first))
            topic = number % 4
            about = " ".join(draw.sample(WORDS[20 * topic : 20 * topic + 20], 4) + draw.sample(WORDS[100:], 2))
            writer.writerow(
                {
                    "scored-pairs": [text, near if number % 2 else far, 3 * (number % 2) + draw.random()],
                    "binary-pairs": [text, near if number % 2 else far, number % 2],
                    "positive-pairs": [text, near],
                    "triplets": [text, near, far],
                    "labels": [about, f"topic {topic}"],
                }[problem]
            )
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def settings(folder: Path, model: Path, problem: str, **more: Any) -> dict[str, Any]:
    data = {"train": str(write(folder / "rows.csv", problem))}
    return {"task": "text-similarity", "model": str(model), "data": data, "method": "full", "train": TRAIN} | more


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_form_runs_and_sentence_transformers_gives_its_vectors(
    tmp_path: Path, model: Path, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - takes seconds

    from tunesmith import console  # noqa: PLC0415

    given = settings(tmp_path, model, problem)
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["problem"] == problem
    assert report["primary_metric"] == PROBLEMS[problem].default_metric
    assert set(report["baselines"]) == {"majority", "probe"}
    assert report["model"]["loader"] == "sentence-transformers"
    page = run.page.read_text()
    assert "the pre-trained network as it came" in page
    assert "the head is solved for" not in page
    assert "SentenceTransformer(" in (run.model / "README.md").read_text()
    predictor = tunesmith.load(run.folder)
    with open(given["data"]["train"], encoding="utf-8") as handle:
        rows = list(csv.reader(handle))[1:9]
    count = {"triplets": 3, "labels": 1}.get(problem, 2)
    found = predictor.predict([tuple(row[:count]) if count > 1 else row[0] for row in rows])
    encoder = SentenceTransformer(str(run.model), device="cpu")
    one, other = (encoder.encode([row[min(at, count - 1)] for row in rows]) for at in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    if problem == "labels":
        np.testing.assert_allclose([row["embedding"] for row in found], one, atol=1e-4)
    else:
        name = "similarity" if problem == "binary-pairs" else "prediction"
        np.testing.assert_allclose([row[name] for row in found], (one * other).sum(axis=1), atol=1e-4)
    console.show_predictions(found)
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    assert report["primary_metric"] in predictor.evaluate(given["data"]["train"])["metrics"]["test"]
    kept = pyarrow.parquet.read_table(run.predictions)
    task = predictor.task
    same = task.compared(kept, kept, report.get("labels", []), predictor.settings.evaluate, 0, None)
    assert (same.low, same.value, same.high) == (0, 0, 0)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_mistakes_show_the_texts_and_say_what_is_wrong(tmp_path: Path, model: Path, problem: str) -> None:
    run = tunesmith.finetune(settings(tmp_path, model, problem, method="probe"), run=tmp_path / "run")
    for shown in json.loads(run.report.read_text()).get("mistakes", []):
        assert all(isinstance(text, str) and text for pair in shown["texts"] for text in pair)
        assert "cosine of" in shown["said"]
        assert shown["said"] in run.page.read_text()


def test_of_two_pairs_the_one_with_the_higher_score_is_to_be_more_alike() -> None:
    cosines, scores = torch.tensor([0.9, 0.1, 0.4]), torch.tensor([1.0, 3.0, 1.0])
    wanted = 3 * math.log(1 + math.exp(5 * (0.9 - 0.1)) + math.exp(5 * (0.4 - 0.1)))
    assert comparing.cosent(cosines, scores, 5.0).item() == pytest.approx(wanted, rel=1e-5)
    nothing = comparing.cosent(cosines, torch.ones(3), 5.0)
    assert nothing.item() == 0


def test_ones_own_is_to_be_the_likely_one_among_what_counts() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = (functional.normalize(torch.randn((3, 4), generator=draw), dim=1) for _ in range(2))
    allowed = torch.ones((3, 3), dtype=torch.bool)
    scores = (5 * one @ other.T).tolist()
    wanted = sum(math.log(sum(map(math.exp, row))) - row[at] for at, row in enumerate(scores))
    assert comparing.ranking(one, other, allowed, 5.0).item() == pytest.approx(wanted, rel=1e-5)
    alone = comparing.ranking(one, other, torch.eye(3, dtype=torch.bool), 5.0)
    assert alone.item() == 0


def test_what_says_the_same_is_no_wrong_answer(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "rows.csv"
    write(path, "positive-pairs")
    text = path.read_text()
    twice = "word1 word2,word3\nword1 word2,word4\nword9,word3\n"
    path.write_text(text + twice)
    given = {"task": "text-similarity", "model": str(model), "data": {"train": str(path)}, "method": "full"}
    ready = prepared({**given, "train": TRAIN}, tmp_path)
    likeness, task = ready.task.likeness, ready.task  # type: ignore[attr-defined]
    rows = [["word1 word2", "word3"], ["word1 word2", "word4"], ["word9", "word3"]]
    table = pyarrow.table({"input": [row[0] for row in rows], "pair": [row[1] for row in rows]})
    examples = task.encode(table, ready.model)
    vectors = functional.normalize(torch.randn((3, 2, 4), generator=torch.Generator().manual_seed(0)), dim=2)
    # The first two ask the same, so that both "word3" and "word4" answer them, wherever these stand.
    scores = 20 * (vectors[:, 0] @ vectors[:, 1].T)
    wanted = float(scores[2, [1, 2]].logsumexp(dim=0) - scores[2, 2])
    assert float(likeness.loss(vectors, examples, np.arange(3))) == pytest.approx(wanted, rel=1e-4)


def test_neither_what_another_row_answers_nor_the_text_itself_is_a_wrong_answer(tmp_path: Path, model: Path) -> None:
    ready = prepared(settings(tmp_path, model, "positive-pairs"), tmp_path)
    task = ready.task
    # The last row, which stands in another step, says that "word3" answers "word1" too; the third asks with an answer.
    rows = [["word1", "word2"], ["word9", "word3"], ["word2", "word1"], ["word1", "word3"]]
    table = pyarrow.table({"input": [row[0] for row in rows], "pair": [row[1] for row in rows]})
    examples = task.encode(table, ready.model)
    vectors = functional.normalize(torch.randn((3, 2, 4), generator=torch.Generator().manual_seed(0)), dim=2)
    scores = 20 * (vectors[:, 0] @ vectors[:, 1].T)
    counted = {1: [0, 1, 2], 2: [1, 2]}
    wanted = sum(float(scores[row, left].logsumexp(dim=0) - scores[row, row]) for row, left in counted.items())
    assert float(task.likeness.loss(vectors, examples, np.arange(3))) == pytest.approx(wanted, rel=1e-4)  # type: ignore[attr-defined]


def test_a_text_does_not_find_itself(tmp_path: Path, model: Path) -> None:
    """Where pairs stand there both ways, each text is among what is looked through, and no other can be as alike."""
    ready = prepared(settings(tmp_path, model, "positive-pairs"), tmp_path)
    examples = ready.task.encode(
        pyarrow.table({"input": ["word1", "word2", "word3"], "pair": ["word2", "word1", "word4"]}), ready.model
    )
    vectors = np.eye(4, dtype=np.float32)[np.array([[0, 1], [1, 0], [2, 3]])] + np.float32(0.1)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[:2, 1] += 0.01  # ones own comes right behind oneself
    found = ready.task.likeness.values(examples, vectors)  # type: ignore[attr-defined]
    assert found["mrr"] > 0.7


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 9), st.integers(0, 2))
def test_no_step_parts_a_row(rows: int, together: int, batch: int, epoch: int) -> None:
    lengths = np.random.default_rng(rows).integers(1, 30, size=rows * together)
    found = batches.steps(lengths, batch, 0, epoch, None, together)
    assert sorted(np.concatenate(found)) == list(range(len(lengths)))
    for step in found:
        assert (step.reshape(-1, together) % together == np.arange(together)).all()
        assert len(step) <= batch * together
    assert len(found) <= batches.steps_per_epoch(rows, batch)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_step_in_parts_has_the_gradient_of_the_whole(tmp_path: Path, model: Path, problem: str) -> None:
    found, losses = [], []
    for tokens in (10_000, 40):
        ready = prepared(settings(tmp_path, model, problem), tmp_path)
        one = stepper(ready, Guards(), tokens)
        rows = np.arange(12 * ready.task.together(ready.train))
        losses.append(float(one._gradient(rows, 3)[0]))
        found.append({name: p.grad.clone() for name, p in one.model.module.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0] > 0
    for name, gradient in found[0].items():
        size = float(gradient.abs().max()) if gradient.numel() else 0.0
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6 + 1e-3 * size, rtol=0)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "mpnet", "modernbert", "gpt2", "llama"])
def test_networks_of_every_kind_give_vectors_that_open_elsewhere(tmp_path: Path, architecture: str) -> None:
    given = settings(tmp_path, write_model(tmp_path / "model", architecture), "positive-pairs")
    run = tunesmith.finetune(given, run=tmp_path / "run")  # the model is opened in a fresh process, and compared
    assert any("The vector of a text is" in reason for reason in json.loads(run.report.read_text())["plan"]["reasons"])


def test_a_folder_of_sentence_transformers_pools_as_it_says(tmp_path: Path, model: Path) -> None:
    run = tunesmith.finetune(
        settings(tmp_path, model, "positive-pairs") | {"task": {"name": "text-similarity", "pooling": "first"}},
        run=tmp_path / "run",
    )
    again = settings(tmp_path, run.model, "positive-pairs")
    assert prepared(again, tmp_path).model.module.how == "first"
    assert (
        prepared(again | {"task": {"name": "text-similarity", "pooling": "last"}}, tmp_path).model.module.how == "last"
    )
    prompts = {"prompts": {"query": "word9: "}, "default_prompt_name": "query"}
    (run.model / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (said,) = [one for one in prepared(again, tmp_path).task.told() if "default_prompt_name" in one]
    assert "put 'word9: ' before each text" in said
    config = run.model / "1_Pooling" / "config.json"
    config.write_text(json.dumps({"pooling_mode": "lasttoken"}))  # as newer versions write it
    assert prepared(again, tmp_path).model.module.how == "last"
    config.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ModelError, match="pools by pooling_mode_max_tokens"):
        prepared(again, tmp_path)
    listed = run.model / "modules.json"
    listed.write_text(listed.read_text().replace("Normalize", "Dense"))
    with pytest.raises(ModelError, match="dense layer, which would be lost"):
        prepared(again, tmp_path)


def test_a_network_of_two_halves_is_refused_in_words(tmp_path: Path, model: Path) -> None:
    halves = shutil.copytree(model, tmp_path / "halves")
    transformers.T5Config(d_model=8, num_layers=1, num_heads=1, d_ff=8, vocab_size=99).save_pretrained(halves)
    with pytest.raises(ModelError, match="is a network of two halves"):
        prepared(settings(tmp_path, halves, "positive-pairs"), tmp_path)


def test_the_pooling_that_nobody_says_is_the_best_before_training(tmp_path: Path, model: Path) -> None:
    found = prepared(settings(tmp_path, model, "scored-pairs"), tmp_path)
    scores = {}
    for how in ("mean", "first", "last"):
        given = settings(tmp_path, model, "scored-pairs", task={"name": "text-similarity", "pooling": how})
        ready = prepared(given, tmp_path)
        logits = tunesmith.conclude.logits(ready.task, ready.model, ready.train, "fp32")
        scores[how] = ready.task.score(ready.train, logits)["spearman"]
    assert found.model.module.how == max(scores, key=scores.__getitem__)


def test_a_killed_run_goes_on_as_it_would_have(tmp_path: Path, model: Path) -> None:
    given = settings(tmp_path, model, "triplets")
    whole = tunesmith.finetune(given, run=tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(event: Any) -> None:
        if type(event).__name__ == "EpochDone":
            raise Killed

    with pytest.raises(Killed):
        tunesmith.finetune(given, run=tmp_path / "killed", listen=kill)
    resumed = tunesmith.resume(tmp_path / "killed")
    one, other = (json.loads(run.report.read_text())["metrics"] for run in (whole, resumed))
    assert one == other


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"metric": "accuracy"}, "task.metric is 'accuracy', which is none of scored-pairs"),
        ({"loss": "ranking"}, "task.loss is 'ranking', which is none of scored-pairs"),
        ({"loss": "cosine", "scale": 5}, "task.scale is set"),
    ],
)
def test_settings_that_do_not_go_with_the_data_are_refused(
    tmp_path: Path, model: Path, own: dict[str, Any], message: str
) -> None:
    given = settings(tmp_path, model, "scored-pairs", task={"name": "text-similarity", **own})
    with pytest.raises(SettingsError, match=message):
        tunesmith.finetune(given, run=tmp_path / "run")


def test_cosines_can_be_brought_near_the_scores_themselves(tmp_path: Path, model: Path) -> None:
    given = settings(tmp_path, model, "scored-pairs", task={"name": "text-similarity", "loss": "cosine"})
    ready = prepared(given, tmp_path)
    likeness = ready.task.likeness  # type: ignore[attr-defined]
    vectors = functional.normalize(torch.randn((4, 2, 8), generator=torch.Generator().manual_seed(0)), dim=2)
    scores = ready.train.targets[:4]
    unit = (scores - likeness.low) / (likeness.high - likeness.low)
    wanted = float((((vectors[:, 0] * vectors[:, 1]).sum(dim=1) - torch.from_numpy(unit)) ** 2).sum())
    assert float(likeness.loss(vectors, ready.train, np.arange(4))) == pytest.approx(wanted, rel=1e-4)
    assert 0 <= unit.min() <= unit.max() <= 1


def test_the_command_line_reads_as_many_texts_as_a_row_has(tmp_path: Path, model: Path) -> None:
    run = tunesmith.finetune(settings(tmp_path, model, "triplets", method="probe"), run=tmp_path / "run")
    [found] = predict.predict_inputs(run.folder, ["word1", "word1 word2", "word9"], [])
    assert found["prediction"] > found["other"]
    with pytest.raises(DataError, match=r"reads triplets of texts, but 2 were given\. Give three texts"):
        predict.predict_inputs(run.folder, ["word1", "word2"], [])
    with pytest.raises(DataError, match="triplet of texts is needed"):
        tunesmith.load(run.folder).predict(["word1"])


def test_a_user_network_is_refused() -> None:
    with pytest.raises(ModelError, match="reads text"):
        TextSimilarity(TextSimilarity.Settings()).load_model(tunesmith.settings.UserModel(python="a.py:b"), [], seed=0)
