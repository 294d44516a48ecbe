"""Answers from loss to prediction: windows, no answer, and what other loaders make of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import tunesmith
from tiny import DECODERS, write_model
from tunesmith import budget, prepare, settings
from tunesmith.data.targets.answers import KIND
from tunesmith.errors import DataError, ModelError, SettingsError
from tunesmith.evaluate import retention
from tunesmith.models.forward import logits
from tunesmith.models.passage_tokens import passages
from tunesmith.settings import UserModel
from tunesmith.tasks import span_outcomes
from tunesmith.tasks.marked_text import around
from tunesmith.tasks.question_answering import QuestionAnswering
from tunesmith.tasks.span_outcomes import BEST, END, LOSS, NONE, START
from tunesmith.tasks.tiny import WORDS
from tunesmith.tasks.tiny_answers import write_answers
from tunesmith.train.events import Trained

TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}
LONG = TRAIN | {"epochs": 25, "batch_size": 8, "learning_rate": 3e-3, "patience": 25}


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    return QuestionAnswering.tiny(tmp_path / "tiny")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return transformers.AutoTokenizer.from_pretrained(write_model(tmp_path_factory.mktemp("model") / "bert"))


def rows_of(question: str, passage: str, *spans: tuple[int, int]) -> pa.Table:
    target = {
        "starts": [start for start, _ in spans],
        "ends": [end for _, end in spans],
        "texts": [passage[start:end] for start, end in spans],
        "classes": [], "moved": 0, "searched": 0,
    }  # fmt: skip
    return pa.table({"input": [question], "pair": [passage], "target": pa.array([target], KIND)})


def test_the_answer_is_found_in_each_window_that_shows_all_of_it(tokenizer: Any) -> None:
    words = [WORDS[number] for number in range(100)]
    passage = " ".join(words)
    start = passage.index(words[40] + " ")
    end = passage.index(words[42] + " ") + len(words[42])
    found = passages(tokenizer, rows_of(WORDS[150], passage, (start, end)), 32)
    assert len(found) > 3
    assert (found.lengths <= 32).all()
    shown = 0
    for piece in range(len(found)):
        ids = found.ids[found.offsets[piece] : found.offsets[piece + 1]]
        assert tokenizer.decode([ids[1]]) == WORDS[150]
        spans = found.spans[found.offsets[piece] : found.offsets[piece + 1]]
        first, last = found.answer[piece]
        if (first, last) == (0, 0):
            assert not {start, end} <= {*spans[:, 0].tolist(), *spans[:, 1].tolist()}
            continue
        shown += 1
        assert passage[spans[first, 0] : spans[last, 1]] == " ".join(words[40:43])
    assert shown
    assert found.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("passage", "start"),
    [("Anna ", 0), (" Anna", 0), ("he Anna \n", 3), ("\ufeffAnna", 0), ("he Anna\u200b", 3)],
)
def test_an_answer_with_signs_that_no_token_has_is_taught_at_both_ends_of_a_passage(passage: str, start: int) -> None:
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "he": 1, "anna": 2}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[UNK]", unk_token="[UNK]")
    found = passages(made, rows_of("he", passage, (start, len(passage))), 32)
    first, last = found.answer[0]
    assert passage[found.spans[first, 0] : found.spans[last, 1]] == "Anna"


def test_blanks_that_tokens_count_in_are_not_of_the_answer() -> None:
    letters = {sign: place for place, sign in enumerate([*"<>?", *map(chr, range(33, 127)), "Ġ"])}
    core = Tokenizer(models.BPE(letters | {"Ġb": 200}, [("Ġ", "b")], unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.TemplateProcessing(
        single="< $A >", pair="< $A > $B >", special_tokens=[("<", 0), (">", 1)]
    )
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="?", unk_token="?")
    found = passages(made, rows_of("q", "a b c", (2, 3)), 32)
    first, last = found.answer[0]
    assert "a b c"[found.spans[first, 0] : found.spans[last, 1]] == "b"


def test_adapters_beside_the_original_open_with_peft(asked: dict[str, Any], tmp_path: Path) -> None:
    method = {"name": "lora", "merge": False}
    run = tunesmith.finetune({**asked, "method": method, "train": TRAIN | {"epochs": 1}}, run=tmp_path / "run")
    assert json.loads((run.model / "adapter_config.json").read_text())["task_type"] == "QUESTION_ANS"
    [row] = tunesmith.load(run.folder).predict([(f"{WORDS[2]} ?", " ".join(WORDS[60:70]))])
    assert isinstance(row["prediction"], str)
    assert "AutoPeftModelForQuestionAnswering" in (run.model / "README.md").read_text()


def card_says(folder: Path, question: str, passage: str, told: pytest.CaptureFixture[str]) -> str:
    """What the lines in the card of the model in `folder` print."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    told.readouterr()
    exec(code.replace("your question", question).replace("the passage", passage), {})
    return told.readouterr().out.strip()


@pytest.mark.parametrize(("all_answerable", "merge"), [(False, True), (True, True), (False, False)])
def test_the_card_answers_as_the_run_does(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], all_answerable: bool, merge: bool
) -> None:
    lines = write_answers(tmp_path / "rows.jsonl", 160).read_text().splitlines()
    kept = [line for line in lines if not all_answerable or json.loads(line)["answers"]["text"]]
    (tmp_path / "kept.jsonl").write_text("\n".join(kept))
    method = {"name": "lora", "merge": merge}
    given = {**asked, "data": str(tmp_path / "kept.jsonl"), "method": method, "train": TRAIN}
    run = tunesmith.finetune(given, run=tmp_path / "run")
    predictor = tunesmith.load(run.folder)
    answered = 0
    for row in map(json.loads, kept[:20]):
        [one] = predictor.predict([(row["question"], row["context"])])
        assert card_says(run.model, row["question"], row["context"], capsys) == (one["prediction"] or "no answer")
        answered += bool(one["prediction"])
    assert answered
    passage = " ".join(WORDS[60:160])  # longer than the network's limit: its first window is read
    said = card_says(run.model, f"{WORDS[2]} ?", passage, capsys)
    assert said
    assert said in passage or said == "no answer"


def test_a_question_that_is_too_long_is_cut_and_counted(tokenizer: Any) -> None:
    question = " ".join(WORDS[number] for number in range(60))
    found = passages(tokenizer, rows_of(question, " ".join(WORDS[100:110])), 32)
    assert found.lost.tolist() == [44]
    assert (found.lengths <= 32).all()


@pytest.mark.parametrize("limit", [*range(12, 20), *range(32, 41), 64])
@pytest.mark.parametrize("question", ["\U0001f600", "\u4e2d", "ab ", "e\u0301"])
def test_however_long_and_strange_a_question_is_windows_go_on(question: str, limit: int) -> None:
    letters = {
        sign: place for place, sign in enumerate(["<s>", "</s>", "?", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    core = Tokenizer(models.BPE(letters, [], unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="?", unk_token="?")
    passage = "Anna went home " * 9
    found = passages(made, rows_of(question * 50, passage, (0, 4)), limit)
    assert (found.lengths <= limit).all()
    assert {*range(len(passage))} - {place for start, end in found.spans.tolist() for place in range(start, end)} <= {
        place for place, sign in enumerate(passage) if sign == " "
    }
    assert found.lost[0] > 0


def test_answers_that_are_never_given_whole_are_told_of(asked: dict[str, Any], tmp_path: Path) -> None:
    passage = " ".join(WORDS[60:120])
    long = {"question": f"{WORDS[3]} ?", "context": passage, "answers": {"text": [passage], "answer_start": [0]}}
    some = long | {"answers": {"text": [" ".join(WORDS[60:66])], "answer_start": [0]}}
    rows = [json.loads(line) for line in Path(asked["data"]).read_text().splitlines()]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, [*rows, long, some])))
    asked["data"] = {"train": str(tmp_path / "train.jsonl"), "validation": asked["data"], "test": asked["data"]}
    asked["task"] |= {"max_answer": 5}
    ready = prepare.prepare(
        settings.parse({**asked, "method": "full"}), tmp_path / "c", torch.device("cpu"), lambda _: None
    )
    assert ready.task.told() == (
        "The answers of 1 training questions (0.8 %) have more than 5 tokens, up to 6, and are never given whole "
        "(task.max_answer).",
        "The answers of 1 training questions are in no window of 40 tokens whole: these questions teach that there is none.",
    )
    assert set(ready.task.told()) <= set(ready.frontier.candidates[0].reasons)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_span_is_the_best_of_all_that_are_allowed(tokenizer: Any, seed: int) -> None:
    passage = " ".join(WORDS[number] for number in range(50))
    found = passages(tokenizer, rows_of(WORDS[150], passage, (0, 5)), 32)
    every, length = np.arange(len(found)), int(found.lengths.max())
    values = torch.randn((len(found), length, 2), generator=torch.Generator().manual_seed(seed))
    outcome = span_outcomes.outcomes(values, found, every, 3).numpy()
    spans = found.spans_at(every)
    for piece in every:
        usable = [place for place in range(length) if spans[piece, place, 0] >= 0]
        scores = {
            (first, last): float(values[piece, first, 0] + values[piece, last, 1])
            for first in usable
            for last in usable
            if first <= last < first + 3
        }
        first, last = max(scores, key=scores.__getitem__)
        assert outcome[piece, BEST] == pytest.approx(scores[first, last], rel=1e-4)
        assert outcome[piece, [START, END]].tolist() == [spans[piece, first, 0], spans[piece, last, 1]]
        assert outcome[piece, NONE] == pytest.approx(float(values[piece, 0].sum()), rel=1e-4)
    row = span_outcomes.by_row(found, outcome)
    assert row[0, BEST] == outcome[:, BEST].max()
    assert row[0, NONE] == outcome[:, NONE].min()
    assert row[0, LOSS] == pytest.approx(float(outcome[:, LOSS].mean()), rel=1e-5)


def test_answers_may_be_as_long_as_anybody_likes(tokenizer: Any) -> None:
    found = passages(tokenizer, rows_of(WORDS[150], " ".join(WORDS[:50]), (0, 5)), 64)
    every = np.arange(len(found))
    values = torch.randn((len(found), int(found.lengths.max()), 2), generator=torch.Generator().manual_seed(0))
    whole, more = (span_outcomes.outcomes(values, found, every, longest) for longest in (values.shape[1], 10**12))
    assert torch.equal(whole, more)


@pytest.mark.parametrize(("metric", "answered"), [("f1", 4), ("exact_match", 1)])
def test_the_margin_is_fitted_for_the_primary_metric(tokenizer: Any, metric: Any, answered: int) -> None:
    task = QuestionAnswering(QuestionAnswering.Settings(metric=metric))
    right, partly, none = rows_of("?", "one two", (0, 3)), rows_of("?", "one two three", (0, 13)), rows_of("?", "one")
    found = passages(tokenizer, pa.concat_tables([right, none, partly, partly, none]), 32)
    outcome = np.zeros((5, 5), dtype=np.float32)
    outcome[:, NONE], outcome[:, END] = [-2, -1.5, -1, -0.9, 1], [3, 3, 7, 7, 3]  # the surest first
    fitted = task.fitted(found, outcome)
    assert fitted is not None
    assert sum(map(bool, span_outcomes.answers(outcome, list(found.passages), fitted))) == answered


def test_a_step_counts_each_question_once_however_it_is_cut(asked: dict[str, Any], tmp_path: Path) -> None:
    ready = prepare.prepare(
        settings.parse({**asked, "method": "full", "train": TRAIN}), tmp_path / "c", torch.device("cpu"), lambda _: None
    )
    examples, task = ready.train, ready.task
    assert task.choices(ready.model) == ready.model.limit  # by which the epochs go
    every = np.arange(len(examples))
    values = torch.randn((len(examples), int(examples.lengths.max()), 2), generator=torch.Generator().manual_seed(0))
    whole = task.loss(values, examples, every)
    assert whole.count == pytest.approx(examples.rows)
    parts = [
        task.loss(values[part, : int(examples.lengths[part].max())], examples, part) for part in (every[:7], every[7:])
    ]
    assert sum(float(part.sum) for part in parts) == pytest.approx(float(whole.sum), rel=1e-4)


def test_a_run_answers_and_says_where_there_is_no_answer(asked: dict[str, Any], tmp_path: Path) -> None:
    asked["data"] = str(write_answers(tmp_path / "rows.jsonl", 240))
    run = tunesmith.finetune({**asked, "method": "full", "train": LONG}, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    figures = report["metrics"]["test"]
    assert {"f1", "exact_match", "answerable_f1", "unanswerable_accuracy"} <= set(figures)
    assert figures["f1"]["value"] > 0.5
    assert report["answering"]["threshold"] is not None
    table = pyarrow.parquet.read_table(run.predictions).to_pylist()
    assert {"id", "truth", "prediction", "start", "end", "margin"} <= set(table[0])
    predictor = tunesmith.load(run.folder)
    assert predictor.fitted == report["answering"]["threshold"]
    passage = " ".join([WORDS[70], WORDS[2], WORDS[10], WORDS[80]])
    [row] = predictor.predict([(f"{WORDS[2]} ?", passage)])
    if row["prediction"]:
        assert passage[row["start"] : row["end"]] == row["prediction"]
    else:
        assert row["start"] is None
    again = predictor.evaluate(asked["data"])["metrics"]["test"]
    assert again["f1"]["value"] > 0.5
    other = tunesmith.finetune({**asked, "method": "probe"}, run=tmp_path / "other")
    assert json.dumps(tunesmith.compare([run.folder, other.folder]))
    page = run.page.read_text()
    assert "no answer" in page
    assert "The train split asks 192 questions of 192 passages, 38 without an answer; answers have" in page
    code = (run.model / "README.md").read_text()
    assert "AutoModelForQuestionAnswering" in code


def only_answerable(path: Path, kept: Path) -> Path:
    lines = [line for line in path.read_text().splitlines() if json.loads(line)["answers"]["text"]]
    kept.write_text("\n".join(lines))
    return kept


def test_a_probe_is_measured_by_its_own_margin_also_beside_a_trained_network(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    asked["data"] = str(write_answers(tmp_path / "rows.jsonl", 240))
    asked["train"] = TRAIN | {"learning_rate": 0.03}  # which moves margins far
    reports = []
    for method in ("full", "probe"):
        run = tunesmith.finetune({**asked, "method": method}, run=tmp_path / method)
        reports.append(json.loads(run.report.read_text()))
    beside, alone = reports[0]["baselines"]["probe"], reports[1]["metrics"]["test"]
    assert reports[0]["answering"]["threshold"] != pytest.approx(reports[1]["answering"]["threshold"], abs=0.1)
    assert {name: one["value"] for name, one in beside.items()} == {name: one["value"] for name, one in alone.items()}


def task_inputs(ready: prepare.Prepared) -> dict[str, torch.Tensor]:
    every = np.arange(len(ready.validation))
    return ready.task.inputs(ready.validation, every, ready.model)


def prefer_none(module: Any, batch: dict[str, torch.Tensor]) -> None:
    """Let the network find no answer far likelier than any span."""
    with torch.no_grad():
        hidden = module.bert(**batch).last_hidden_state
        weight = hidden[:, 0].mean(dim=0) - hidden[:, 1:].mean(dim=(0, 1))
        module.qa_outputs.weight.copy_(100 * weight.expand(2, -1))


@pytest.mark.parametrize("answerable", [False, True])
def test_whatever_is_chosen_by_validation_is_judged_by_its_own_margin(
    asked: dict[str, Any], tmp_path: Path, answerable: bool
) -> None:
    if answerable:
        asked["data"] = str(only_answerable(Path(asked["data"]), tmp_path / "all.jsonl"))
    reference = {"name": "itself", "data": {"train": asked["data"]}}
    given = settings.parse({**asked, "method": "probe", "evaluate": {"retention": [reference]}})
    ready = prepare.prepare(given, tmp_path / "cache", torch.device("cpu"), lambda _: None)
    prefer_none(ready.model.module, task_inputs(ready))
    found = logits(ready.task, ready.model, ready.validation, "fp32")
    assert (found[:, NONE] > found[:, BEST]).mean() > 0.9
    (plan,) = ready.frontier.candidates
    trained = Trained(plan, ready.model, 0, 0, None, None, False, 0, (), 0.0, 0, None)
    judged = budget.judge(ready, (), trained)
    assert judged.metric["value"] == pytest.approx(ready.task.score(ready.validation, found)["f1"])
    assert judged.metric["value"] > 0
    (kept,) = retention.prepare(
        given.evaluate.retention, ready.model, given.task, tmp_path / "references", 0, "fp32", evaluate=given.evaluate
    )
    test = kept.data.examples["test"]
    one = kept.data.task.intervals(test, kept.before.logits, given.evaluate, 0, None)
    always = kept.before.logits[:, NONE] == -np.inf
    assert always.all() if answerable else not always.any()
    assert 0 < one["f1"].value <= 1


def test_where_every_question_has_an_answer_one_is_always_given(asked: dict[str, Any], tmp_path: Path) -> None:
    path = only_answerable(Path(asked["data"]), tmp_path / "all.jsonl")
    run = tunesmith.finetune({**asked, "data": str(path), "method": "probe"}, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert "answerable_f1" not in report["metrics"]["test"]
    assert report["answering"]["threshold"] is None
    predictor = tunesmith.load(run.folder)
    assert all(
        row["prediction"] for row in predictor.predict([(f"{word} ?", " ".join(WORDS[60:70])) for word in WORDS[:5]])
    )


@pytest.mark.parametrize("architecture", ["roberta", "distilbert", "electra", "deberta-v2", *DECODERS])
def test_networks_of_every_kind_answer(asked: dict[str, Any], tmp_path: Path, architecture: str) -> None:
    asked["model"] = str(write_model(tmp_path / "model", architecture))
    given = settings.parse({**asked, "method": "probe"})
    config = transformers.AutoConfig.from_pretrained(asked["model"])
    if type(config) not in transformers.MODEL_FOR_QUESTION_ANSWERING_MAPPING:
        with pytest.raises(ModelError, match="knows no"):
            prepare.prepare(given, tmp_path / "cache", torch.device("cpu"), lambda _: None)
        return
    ready = prepare.prepare(given, tmp_path / "cache", torch.device("cpu"), lambda _: None)
    found = logits(ready.task, ready.model, ready.validation, "fp32")
    assert found.shape == (ready.validation.rows, 5)
    assert np.isfinite(found).all()


def test_networks_that_cannot_be_taken_apart_are_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    """T5 has no backbone in one part, and Longformer reads its questions off three separators."""
    small = {"vocab_size": 205, "num_layers": 2, "num_heads": 2}
    long = {
        "vocab_size": 205,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "attention_window": [8],
    }
    for config in (
        transformers.T5Config(**small, d_model=32, d_kv=16, d_ff=64, decoder_start_token_id=0),
        transformers.LongformerConfig(**long, intermediate_size=64, sep_token_id=3),
    ):
        folder = tmp_path / config.model_type
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(asked["model"]).save_pretrained(folder)
        with pytest.raises(ModelError, match="cannot be trained stage by stage"):
            QuestionAnswering(QuestionAnswering.Settings()).load_model(str(folder), (), seed=0)


def test_what_cannot_be_is_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    for wrong, error, told in (
        ({"train": TRAIN | {"mixup": 0.3}}, SettingsError, "mixup"),
        ({"task": {"name": "question-answering", "max_length": 8}}, SettingsError, "max_length"),
        ({"data": {"train": asked["data"], "input": "question"}}, DataError, "a pair of columns"),
    ):
        with pytest.raises(error, match=told):
            tunesmith.finetune({**asked, "method": "full", **wrong}, run=tmp_path / "run")
    with pytest.raises(ModelError, match="reads text"):
        QuestionAnswering(QuestionAnswering.Settings()).load_model(UserModel(python="nets:small"), (), seed=0)


def test_marks_show_both_answers() -> None:
    parts = around("one two three four", (4, 13), (8, 18))
    assert [(part["text"], part["kind"]) for part in parts] == [
        ("one ", "plain"), ("two ", "missed"), ("three", "right"), (" four", "added"),
    ]  # fmt: skip
    assert "".join(part["text"] for part in around("a b", None, None)) == "a b"
