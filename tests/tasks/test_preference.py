"""Preferences from pairs to prediction: the losses are trl's, the reference is the network without its adapters."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import transformers

import tunesmith
from tunesmith import console, prepare, settings
from tunesmith.contracts import Batched
from tunesmith.data.dialogue import plain
from tunesmith.data.pairs import CHOSEN, REJECTED
from tunesmith.errors import CutWarning, DataError, SettingsError
from tunesmith.metrics.preference import PRIMARY
from tunesmith.models.forward import logits
from tunesmith.models.freezing import apply_phase
from tunesmith.predict import predict_inputs
from tunesmith.prepare import Prepared
from tunesmith.tasks.preference import GROWN, MARGIN, Preference
from tunesmith.tasks.preference_losses import Name, Wanted, losses
from tunesmith.tasks.tiny import WORDS
from tunesmith.tasks.tiny_preferences import write_pairs
from tunesmith.tasks.tiny_prompts import write_gpt2, write_prompts
from tunesmith.train import cache, optimiser
from tunesmith.train.events import CacheFilled, StepDone, Trained
from tunesmith.train.loop import train
from tunesmith.train.range_test import range_test
from tunesmith.train.step import Stepper

TRAIN = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}
LONG = TRAIN | {"epochs": 6, "learning_rate": 3e-3}


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    return {"task": "preference", "method": "full", "train": TRAIN, **Preference.tiny(tmp_path / "tiny")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("preference")
    wanted = {"task": "preference", "method": "full", "train": LONG, "evaluate": {"resamples": 100}}
    return tunesmith.finetune(wanted | Preference.tiny(folder / "tiny"), run=folder / "run")


def ready_of(given: dict[str, Any], folder: Path) -> Prepared:
    return prepare.prepare(settings.parse(given), folder / "cache", torch.device("cpu"), lambda _: None)


def table(*rows: tuple[str, str, str]) -> pa.Table:
    names = ("input", "chosen", "rejected")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return pa.table({"id": [str(row) for row in range(len(rows))], **columns})


# What trl 1.16.0 gives: `DPOTrainer._compute_loss` of these sums, spread evenly over so many tokens, with its loss types
# sigmoid, ipo and hinge; with label_smoothing what `dpo_loss` of trl 0.12.2 gives, as later versions have it no more. Both
# were run outside of this environment.
NOW = [[-12.0, -20.5], [-30.25, -18.0], [-7.5, -9.0]]
BEFORE = [[-14.0, -19.0], [-29.0, -18.5], [-7.5, -9.0]]
TOKENS = [[3.0, 5.0], [6.0, 4.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("loss", "beta", "smoothing", "expected"),
    [
        ("dpo", 0.1, 0.0, 0.6703332555472564),
        ("dpo", 0.5, 0.0, 0.6922719706676964),
        ("dpo", 0.1, 0.1, 0.6761665888805898),
        ("ipo", 0.1, 0.0, 23.237407407407407),
        ("ipo", 0.5, 0.0, 0.926296296296297),
        ("hinge", 0.1, 0.0, 0.9416666666666668),
    ],
)
def test_losses_are_those_of_trl(loss: Name, beta: float, smoothing: float, expected: float) -> None:
    now, before, tokens = (torch.tensor(one, dtype=torch.float64) for one in (NOW, BEFORE, TOKENS))
    found = losses(now, before, tokens, Wanted(loss, beta, smoothing, 0.0))
    assert found.shape == (3,)
    assert float(found.mean()) == pytest.approx(expected, rel=1e-12)
    beside = losses(now, before, tokens, Wanted(loss, beta, smoothing, 0.5))
    assert (beside - found).tolist() == pytest.approx([0.5 * 12 / 3, 0.5 * 30.25 / 6, 0.5 * 7.5 / 2])


# trl's DPOTrainer.evaluate on the network of `write_gpt2` as the reference, the same with noise on it as the policy, and the
# rows of `write_pairs`, a blank before each answer: benchmarks/preference_trl.py prints them.
@pytest.mark.parametrize(
    ("loss", "expected"), [("dpo", 0.6801166534423828), ("ipo", 24.491193771362305), ("hinge", 0.9726921319961548)]
)
def test_a_whole_evaluation_gives_what_trl_gives(tmp_path: Path, loss: Name, expected: float) -> None:
    folder = write_gpt2(tmp_path / "model")
    rows = [json.loads(line) for line in write_pairs(tmp_path / "rows.jsonl", 8).read_text().splitlines()]
    task = Preference(Preference.Settings(loss=loss))
    before = task.load_model(str(folder), [], seed=0)
    read = table(*((row["prompt"], row["chosen"], row["rejected"]) for row in rows))
    examples = task.anchored(task.encode(read, before), before, "fp32")
    policy = task.load_model(str(folder), [], seed=0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in policy.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    found = task.score(examples, logits(task, policy, examples, "fp32"))
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["reward_chosen"] == pytest.approx(-0.03234565258026123, abs=1e-6)
    assert found["reward_rejected"] == pytest.approx(-0.059653498232364655, abs=1e-6)
    assert found["reward_margin"] == pytest.approx(0.0273078428581357, abs=1e-6)
    assert found[PRIMARY] == 0.75


def test_what_is_kept_from_before_is_the_network_with_its_adapters_off(given: dict[str, Any], tmp_path: Path) -> None:
    given |= {"method": {"name": "lora", "merge": False}, "train": TRAIN | {"learning_rate": 1e-2}}
    ready = ready_of(given, tmp_path)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], tmp_path / "steps")
    trained = next(event for event in train(job) if isinstance(event, Trained))
    pairs, task, kept = ready.validation, ready.task, ready.validation.reference
    moved = logits(task, trained.model, pairs, "fp32")
    assert np.abs(moved).max() > 0.1
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415

    layers = [layer for layer in trained.model.module.modules() if isinstance(layer, BaseTunerLayer)]
    assert layers
    for layer in layers:
        layer.enable_adapters(enabled=False)  # what PEFT's disable_adapter does to each
    off = logits(task, trained.model, pairs, "fp32")
    np.testing.assert_allclose(off, 0, atol=1e-4)
    assert (kept < 0).all()
    batch = task.inputs(pairs, np.array([0]), trained.model)
    with torch.no_grad():
        told = trained.model.module(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits
    ids = batch["input_ids"]
    for side in (CHOSEN, REJECTED):
        asked = pairs.side(side)
        wanted = asked.wanted[: asked.offsets[1]] >= 0
        places = np.flatnonzero(wanted)
        found = told[side].log_softmax(-1)[places, ids[side, places + 1]].sum()
        assert float(found) == pytest.approx(kept[0, side], abs=1e-4)


def test_the_reference_is_computed_once_and_not_again(given: dict[str, Any], tmp_path: Path) -> None:
    """In a step each pair passes once, with two sequences."""
    ready = ready_of(given, tmp_path)
    seen: list[int] = []
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], tmp_path / "steps")
    events = train(job)
    hook = ready.model.module.register_forward_pre_hook(
        lambda module, _, kwargs: seen.append(len(kwargs["input_ids"])) if module.training else None, with_kwargs=True
    )
    next(event for event in events if isinstance(event, StepDone))
    hook.remove()
    events.close()
    assert sum(seen) == 2 * 16


def test_a_pair_without_anything_to_learn_is_left_out_and_counted(tmp_path: Path) -> None:
    task = Preference(Preference.Settings(max_length=6, too_long="cut-answer"))
    model = task.load_model(str(write_gpt2(tmp_path / "model")), [], seed=0)
    long, short = " ".join(WORDS[:9]), " ".join(WORDS[:2])
    rows = table(
        (short, WORDS[50], WORDS[51]),
        (long, WORDS[50], WORDS[51]),  # nothing is left of the answers
        (short, " ".join(WORDS[50:60]), " ".join([*WORDS[50:58], *WORDS[70:72]])),  # the same once they are cut
        (short, WORDS[52], f"{WORDS[51]} {WORDS[52]}"),
    )
    found = task.encode(rows, model)
    assert len(found) == 2
    assert found.owner.tolist() == [0, 3]
    assert found.rows == 4
    assert found.count(np.arange(2)) == 2
    cut = task.truncation(found, model)
    assert cut["rows_left_out"] == 2
    assert cut["rows_cut"] == 2
    assert cut["sides"] == {"chosen": 2, "rejected": 2}
    outcome = logits(task, model, found, "fp32")
    assert np.isnan(outcome[[1, 2]]).all()
    assert np.isfinite(outcome[[0, 3]]).all()
    said = task.predictions(rows, np.pad(outcome, ((0, 0), (0, 1)), constant_values=-2.0), [], None)
    assert said.column("margin").null_count == 2


def test_a_run_whose_every_pair_is_cut_away_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    given["task"] = {"name": "preference", "max_length": 2, "too_long": "cut-answer"}
    with pytest.raises(DataError, match=r"Of none of the .* pairs both answers begin within 2 tokens"):
        ready_of(given, tmp_path)


@pytest.mark.parametrize(("policy", "cut"), [("cut-prompt", True), ("cut-answer", True), ("leave-out", False)])
def test_what_is_cut_is_counted_by_side(tmp_path: Path, policy: str, cut: bool) -> None:
    task = Preference(Preference.Settings(max_length=12, too_long=policy))
    model = task.load_model(str(write_gpt2(tmp_path / "model")), [], seed=0)
    short, long = " ".join(WORDS[50:52]), " ".join(WORDS[60:80])
    found = task.encode(table((short, short, WORDS[1]), (short, long, WORDS[1]), (short, WORDS[1], long)), model)
    told = task.truncation(found, model)
    assert told["sides"] == {"chosen": 1, "rejected": 1}
    assert told["rows_cut"] == 2
    assert told["rows_left_out"] == (0 if cut else 2)
    assert found.both.lengths.max() <= 12


def test_both_answers_follow_the_same_of_a_prompt_that_is_cut(tmp_path: Path) -> None:
    task = Preference(Preference.Settings(max_length=16))
    model = task.load_model(str(write_gpt2(tmp_path / "model")), [], seed=0)
    prompt, short, long = " ".join(WORDS[:14]), WORDS[50], " ".join(WORDS[60:69])
    found = task.encode(table((prompt, short, long), (prompt, long, short), (WORDS[0], short, long)), model)
    for pair in range(3):
        first, second = (found.both.ids[slice(*found.both.offsets[at : at + 2])] for at in (2 * pair, 2 * pair + 1))
        begins = int(found.both.begins[2 * pair])
        assert begins == found.both.begins[2 * pair + 1]
        assert np.array_equal(first[:begins], second[:begins])
    assert found.both.lengths.max() == 16
    assert found.both.lost.tolist() == [8, 8, 8, 8, 0, 0]


def test_the_token_that_ends_an_answer_is_learned_in_both(tmp_path: Path) -> None:
    task = Preference(Preference.Settings())
    model = task.load_model(str(write_gpt2(tmp_path / "model")), [], seed=0)
    rows = table((f"{WORDS[0]} {WORDS[1]}", WORDS[50], f"{WORDS[60]} {WORDS[61]}"))
    examples = task.encode(rows, model)
    shown = task.learned(rows, examples, model)
    assert [one["id"] for one in shown] == ["0, chosen", "0, rejected"]
    learned = [[text for text, told in one["tokens"] if told] for one in shown]
    assert learned == [[WORDS[50], "[SEP]"], [WORDS[60], WORDS[61], "[SEP]"]]
    assert examples.tokens.tolist() == [[2, 3]]


def test_of_chats_nothing_before_the_answer_is_learned(tmp_path: Path) -> None:
    task = Preference(Preference.Settings(problem="chat", chat_template="chatml"))
    model = task.load_model(str(write_gpt2(tmp_path / "model")), [], seed=0)
    turns = [{"role": role, "content": WORDS[number]} for number, role in enumerate(("user", "assistant", "user"))]
    answers = [[{"role": "assistant", "content": WORDS[at]}] for at in (50, 60)]
    rows = table(tuple(json.dumps(one) for one in (turns, *answers)))  # type: ignore[arg-type]
    shown = task.learned(rows, task.encode(rows, model), model)
    for one, word in zip(shown, (WORDS[50], WORDS[60]), strict=True):
        assert word in [text for text, told in one["tokens"] if told]
        assert WORDS[1] in [text for text, told in one["tokens"] if not told]


@pytest.mark.parametrize(
    "loss", [{"loss": "dpo", "label_smoothing": 0.1}, {"loss": "ipo", "sft": 0.5}, {"loss": "hinge"}]
)
@pytest.mark.parametrize("tokens", [1, 60, 200])
def test_the_same_pairs_cut_any_way_give_the_same_gradients(
    given: dict[str, Any], tmp_path: Path, loss: dict[str, Any], tokens: int
) -> None:
    ready = ready_of(given | {"task": {"name": "preference", **loss}}, tmp_path)
    with torch.no_grad():
        for parameter in ready.model.module.parameters():
            parameter.mul_(1.01)

    def gradients(bound: int) -> tuple[float, dict[str, torch.Tensor]]:
        plan = ready.frontier.candidates[0]
        plan = dataclasses.replace(plan, batch=dataclasses.replace(plan.batch, micro_batch_tokens=bound))
        apply_phase(ready.model.module, ready.model.stages, plan.phases[-1])
        ready.model.module.eval()
        adamw = optimiser.build(ready.model.module, ready.model.stages, plan.phases[-1])
        rows = Batched(ready.train, partial(ready.task.inputs, ready.train, model=ready.model))
        one, chosen = Stepper(ready.task, ready.model, rows, adamw, plan, seed=0, steps=10), np.arange(13)
        total = float(one._backward(chosen, chosen, 0))
        told = one.passes.beside.clone()
        found = {name: p.grad.clone() for name, p in ready.model.module.named_parameters() if p.grad is not None}
        one.optimiser.zero_grad()
        beside.append(told)
        return total, found

    beside: list[torch.Tensor] = []
    whole, expected = gradients(100_000)
    total, found = gradients(tokens)
    torch.testing.assert_close(*beside)
    assert total == pytest.approx(whole, rel=1e-5)
    for name, gradient in expected.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, atol=1e-6 + 1e-4 * size, rtol=0)


def test_what_is_told_beside_the_loss_is_of_the_same_weights(given: dict[str, Any], tmp_path: Path) -> None:
    found = []
    for sam in (0.0, 0.5):
        ready = ready_of(given | {"train": TRAIN | {"sam": sam, "dropout": 0.0}}, tmp_path / str(sam))
        plan = ready.frontier.candidates[0]
        with torch.no_grad():
            for parameter in ready.model.module.parameters():
                parameter.mul_(1.01)
        apply_phase(ready.model.module, ready.model.stages, plan.phases[-1])
        adamw = optimiser.build(ready.model.module, ready.model.stages, plan.phases[-1])
        rows = Batched(ready.train, partial(ready.task.inputs, ready.train, model=ready.model))
        stepper = Stepper(ready.task, ready.model, rows, adamw, plan, seed=0, steps=10)
        found.append(stepper.step(np.arange(13), 0).beside)
    assert found[0] == pytest.approx(found[1])
    assert found[0]["reward_margin"] != 0


def test_losses_are_the_same_with_and_without_the_cache(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_pays", lambda *_: True)
    given |= {"method": {"name": "partial", "last": 1}}
    seen = {}
    for kept in ("off", "auto"):
        ready = ready_of(given | {"train": TRAIN | {"cache": kept}}, tmp_path / kept)
        job = prepare.job(ready, ready.model, ready.frontier.candidates[0], tmp_path / kept / "steps")
        events = list(train(job))
        assert any(isinstance(event, CacheFilled) for event in events) == (kept == "auto")
        seen[kept] = [event.loss for event in events if isinstance(event, StepDone)]
    assert seen["auto"] == pytest.approx(seen["off"], rel=1e-4)


def test_a_run_that_is_closed_and_resumed_ends_with_the_same_weights(given: dict[str, Any], tmp_path: Path) -> None:
    def job(folder: Path) -> Any:
        ready = ready_of(given, folder)
        made = prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / "checkpoints")
        return dataclasses.replace(made, checkpoint_seconds=0.0)

    def end(one: Any) -> dict[str, torch.Tensor]:
        return next(event for event in train(one) if isinstance(event, Trained)).model.module.state_dict()

    whole = end(job(tmp_path / "whole"))
    events = train(job(tmp_path / "cut"))
    next(event for event in events if isinstance(event, StepDone) and event.step == 4)
    events.close()
    resumed = end(job(tmp_path / "cut"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_chosen_answers_become_likelier_than_rejected_ones(run: Any) -> None:
    report = json.loads((run.folder / "report.json").read_text())
    found = {name: one["value"] for name, one in report["metrics"]["test"].items()}
    assert report["primary_metric"] == PRIMARY
    assert found[PRIMARY] > 0.9
    assert found["likelihood_accuracy"] > 0.9
    assert found["reward_margin"] == pytest.approx(found["reward_chosen"] - found["reward_rejected"])
    assert found["drift_rejected"] < found["drift_chosen"]
    before = {name: one["value"] for name, one in report["baselines"]["before"].items()}
    assert before[PRIMARY] == 0.5
    assert before["reward_margin"] == 0
    assert before["likelihood_accuracy"] < found["likelihood_accuracy"]
    assert set(report["baselines"]["longer"]) == {PRIMARY}
    assert {"reward_margin", "reward_chosen", "reward_rejected"} <= set(report["curve"][0])
    assert report["data"]["columns"]["inputs"] == ["prompt"]
    assert report["data"]["columns"]["target"] == "chosen, rejected"
    assert [set(one["said"]) for one in report["samples"]] == [{"before", "after"}] * len(report["samples"])
    assert report["truncation"]["train"]["sides"] == {"chosen": 0, "rejected": 0}


def test_the_log_tells_of_accuracy_and_rewards(run: Any) -> None:
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        assert 0 <= line[PRIMARY] <= 1
        assert line["reward_margin"] == pytest.approx(line["reward_chosen"] - line["reward_rejected"], abs=1e-5)
    assert lines[-1]["reward_margin"] > lines[0]["reward_margin"]


def test_the_report_shows_what_is_learned_and_says_what_its_samples_are(run: Any) -> None:
    """Row 2 of the known failures: what ends an answer is learned in both of a pair."""
    report = json.loads(run.report.read_text())
    assert all(row["tokens"][-1][1] for row in report["learned"])
    assert {row["id"].rpartition(", ")[2] for row in report["learned"]} == {"chosen", "rejected"}
    page = run.page.read_text()
    assert "What is learned of a row" in page
    assert "beside the chosen answer" in page
    assert "as it stands" not in page


def test_predictions_hold_rewards_and_a_prompt_is_answered(run: Any) -> None:
    rows = pyarrow.parquet.read_table(run.predictions)
    assert (np.array(rows["margin"]) > 0).mean() > 0.9
    np.testing.assert_allclose(
        np.array(rows["margin"]), np.array(rows["reward_chosen"]) - np.array(rows["reward_rejected"]), atol=1e-9
    )
    predictor = tunesmith.load(run.folder)
    (said,) = predictor.predict([" ".join(WORDS[:5])])
    assert isinstance(said["prediction"], str)
    assert "margin" not in said
    writer = transformers.pipeline("text-generation", model=str(run.folder / "model"), device="cpu")
    whole = writer(" ".join(WORDS[:5]), do_sample=False, return_full_text=False)[0]["generated_text"]
    assert whole.split() == said["prediction"].split()


def test_other_pairs_are_measured_against_the_network_from_before_training(run: Any, tmp_path: Path) -> None:
    found = tunesmith.load(run.folder).evaluate(str(write_pairs(tmp_path / "more.jsonl", 30, seed=1)))
    assert found["rows"] == 30
    assert found["metrics"]["test"][PRIMARY]["value"] > 0.9
    assert found["metrics"]["test"]["reward_margin"]["value"] > 0


def test_the_rate_is_tested_against_a_loss_that_prefers_neither(given: dict[str, Any], tmp_path: Path) -> None:
    ready = ready_of(given | {"train": {"precision": "fp32", "batch_size": 8, "epochs": 60}}, tmp_path)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], tmp_path / "steps")
    ignorant = ready.task.score(ready.train, ready.task.commonest(ready.train, ready.train, ready.model))
    assert ignorant["loss"] == pytest.approx(np.log(2))
    assert set(ignorant) == {"loss", PRIMARY}
    found = range_test(job)
    assert found is not None
    assert len(found.losses) > 10


def test_whole_chats_in_a_file_are_answered_from_before_their_answers(tmp_path: Path) -> None:
    source = tmp_path / "chats.jsonl"
    rows = [json.loads(line) for line in write_pairs(tmp_path / "rows.jsonl").read_text().splitlines()]
    with open(source, "w", encoding="utf-8") as file:
        for row in rows:
            asked = {"role": "user", "content": row["prompt"]}
            answers = {side: [asked, {"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
            file.write(json.dumps(answers) + "\n")
    given = {"model": str(write_gpt2(tmp_path / "model")), "data": str(source), "method": "full", "train": TRAIN}
    task = {"name": "preference", "chat_template": "chatml", "max_new_tokens": 3}
    place = tunesmith.finetune(given | {"task": task}, run=tmp_path / "run")
    said = predict_inputs(place.folder, [str(source)], [])
    assert len(said) == len(rows)
    predictor = tunesmith.load(place.folder)
    assert predictor.predict([rows[0]["prompt"]])[0]["prediction"] == said[0]["prediction"]
    assert predictor.evaluate(str(source))["rows"] == len(rows)


STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' or m['content'] == 'word199' %}{{ raise_exception('not this') }}"
    "{% endif %}[CLS] {{ m['role'] }} {{ m['content'] }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}[CLS] assistant {% endif %}"
)


def write_chats(source: Path, refused: set[int], rejected: set[int]) -> Path:
    """60 pairs; the template refuses the prompt of those in `refused`, and one answer alone of those in `rejected`."""
    with open(source, "w", encoding="utf-8") as file:
        for n in range(60):
            prompt = [{"role": "user", "content": f"{WORDS[n % 20]} {WORDS[n % 7]}"}]
            if n in refused:
                prompt.insert(0, {"role": "system", "content": WORDS[9]})
            answers = {"chosen": WORDS[20 + n % 20], "rejected": "word199" if n in rejected else WORDS[40 + n % 20]}
            turns = {side: [{"role": "assistant", "content": text}] for side, text in answers.items()}
            file.write(json.dumps({"prompt": prompt, **turns}) + "\n")
    return source


def test_pairs_that_the_template_refuses_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"name": "preference", "chat_template": STRICT, "max_new_tokens": 3}
    given = {"task": task, "model": str(write_gpt2(tmp_path / "model")), "method": "full", "train": TRAIN}
    some = write_chats(tmp_path / "some.jsonl", {3, 30}, {45})
    heard: list[str] = []
    run = tunesmith.finetune(
        given | {"data": str(some)}, run=tmp_path / "run", listen=lambda one: heard.append(str(one))
    )
    report = json.loads(run.report.read_text())
    assert sum(one["rows_refused"] for one in report["truncation"].values()) == 3
    assert all(one["rows_left_out"] == 0 for one in report["truncation"].values())
    assert any("left out, as the chat template refuses" in one and "not this" in one for one in heard)
    assert "not this" in run.page.read_text()

    found = tunesmith.load(run.folder).evaluate(str(some))
    assert (found["rows"], found["rows_measured"]) == (60, 57)
    console.show_metrics(found)
    shown = capsys.readouterr().out
    assert "57 of 60 rows" in shown
    assert "3 rows are left out, as the chat template refuses them" in shown
    with pytest.warns(CutWarning, match="2 of 60 inputs get no answer, as the chat template refuses them"):
        said = predict_inputs(run.folder, [str(some)], [])
    assert [place for place, one in enumerate(said) if one["prediction"] is None] == [3, 30]

    every = write_chats(tmp_path / "every.jsonl", set(range(60)), set())
    with pytest.raises(DataError, match="not this"):
        tunesmith.finetune(given | {"data": str(every)}, run=tmp_path / "every")


def test_where_the_template_refuses_some_and_the_others_are_too_long_both_are_said(tmp_path: Path) -> None:
    task = Preference(Preference.Settings(problem="chat", chat_template=STRICT, max_length=4, too_long="leave-out"))
    model = task.load_model(str(write_gpt2(tmp_path / "model")), (), seed=0)
    system, user, *answers = (
        {"role": role, "content": text}
        for role, text in (("system", "word1"), ("user", "word2"), ("assistant", "word3"), ("assistant", "word4"))
    )
    chosen, rejected = (json.dumps([one]) for one in answers)
    rows = table((json.dumps([user]), chosen, rejected), (json.dumps([system, user]), chosen, rejected))
    with pytest.raises(DataError, match=r"begin within 4 tokens.* The template refuses 1 of them: .*not this"):
        task.encode(rows, model)


def test_two_runs_are_compared_pair_by_pair(run: Any, tmp_path: Path) -> None:
    found = tunesmith.compare([run.folder, run.folder])
    assert found["runs"][1]["difference"] == {"value": 0, "low": 0, "high": 0}


def test_the_worst_pairs_are_shown_with_their_rewards(tmp_path: Path) -> None:
    task = Preference(Preference.Settings())
    model = task.load_model(str(write_gpt2(tmp_path / "model")), [], seed=0)
    rows = table(*((WORDS[row], WORDS[50 + row], WORDS[70 + row]) for row in range(4)))
    outcome = np.zeros((4, 2))
    outcome[:, MARGIN], outcome[:, GROWN] = [2, -1, -3, 0], [1, 1, -1, 0]
    found = task.mistakes(rows, task.encode(rows, model), outcome, [], None, 3)
    assert [one["id"] for one in found] == ["2", "1"]
    assert found[0]["rewards"] == pytest.approx([-0.1, 0.2])
    assert found[0]["margin"] == pytest.approx(-0.3)
    assert (found[0]["input"], found[0]["chosen"], found[0]["rejected"]) == (WORDS[2], WORDS[52], WORDS[72])


def test_the_longer_answer_is_known_however_it_is_cut(tmp_path: Path) -> None:
    task = Preference(Preference.Settings(max_length=10))
    model = task.load_model(str(write_gpt2(tmp_path / "model")), [], seed=0)
    rows = table(
        (WORDS[0], " ".join(WORDS[50:80]), " ".join(WORDS[80:100])), (WORDS[0], WORDS[50], " ".join(WORDS[60:90]))
    )
    examples = task.encode(rows, model)
    found = task.commonest(examples, examples, model)
    assert found[:, MARGIN].tolist() == [10, -29]


def test_what_a_language_model_could_before_is_measured_beside(given: dict[str, Any], tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    prompts = [json.loads(line) for line in write_prompts(tmp_path / "p.jsonl", 60).read_text().splitlines()]
    texts.write_text("".join(json.dumps({"text": " ".join(row.values())}) + "\n" for row in prompts))
    reference = {"name": "texts", "data": str(texts), "task": "causal-lm"}
    given |= {"evaluate": {"resamples": 100, "retention": [reference]}}
    place = tunesmith.finetune(given, run=tmp_path / "run")
    (kept,) = json.loads((place.folder / "report.json").read_text())["retention"]
    assert kept["metric"] == "perplexity"
    assert kept["before"]["value"] != kept["after"]["value"]


def test_pairs_are_no_reference_and_it_is_said_why(given: dict[str, Any], tmp_path: Path) -> None:
    given |= {"evaluate": {"retention": [{"name": "pairs", "data": given["data"]}]}}
    with pytest.raises(SettingsError, match="'pairs' is about preference, which says how a network differs"):
        tunesmith.finetune(given, run=tmp_path / "run")


@pytest.mark.parametrize(
    ("task", "train_", "said"),
    [
        ({"loss": "hinge", "label_smoothing": 0.1}, {}, "label_smoothing is a part of the loss dpo"),
        ({"label_smoothing": 0.5}, {}, "label_smoothing"),
        ({"beta": 0}, {}, "beta"),
        ({"loss": "kto"}, {}, "loss"),
        ({"written": 3}, {}, "written"),
        ({}, {"distil": 1.0}, "train.distil"),
        ({}, {"r_drop": 1.0}, "r_drop"),
        ({}, {"mixup": 0.2}, "mixup"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(
    given: dict[str, Any], tmp_path: Path, task: dict[str, Any], train_: dict[str, Any], said: str
) -> None:
    given |= {"task": {"name": "preference", **task}, "train": TRAIN | train_}
    with pytest.raises(SettingsError, match=said):
        tunesmith.finetune(given, run=tmp_path / "run")


def test_a_model_without_a_chat_template_is_asked_for_one(tmp_path: Path) -> None:
    turns = [
        {"prompt": [{"role": "user", "content": WORDS[n]}], "chosen": WORDS[50], "rejected": WORDS[60]}
        for n in range(30)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in turns))
    given = {"task": "preference", "model": str(write_gpt2(tmp_path / "model")), "data": str(source)}
    with pytest.raises(tunesmith.errors.TunesmithError, match="no chat template"):
        tunesmith.finetune(given, run=tmp_path / "run")


def test_the_task_asks_for_a_lower_rate_than_others(given: dict[str, Any], tmp_path: Path) -> None:
    given["train"] = {"precision": "fp32", "epochs": 1}
    plan = ready_of(given, tmp_path).frontier.candidates[0]
    assert any(f"{Preference.pace:g} times the usual rate" in reason for reason in plan.reasons)
    assert plan.phases[-1].rows[0].learning_rate == pytest.approx(Preference.pace * 5e-4)


def test_prompts_alone_are_read_as_what_is_to_be_gone_on_with(tmp_path: Path) -> None:
    task = Preference(Preference.Settings())
    model = task.load_model(str(write_gpt2(tmp_path / "model")), [], seed=0)
    given, tried = task.tried(table((WORDS[0], WORDS[50], WORDS[60])), model)
    assert given == [[WORDS[0]]]
    assert np.array_equal(tried.ids, plain([model.processor(WORDS[0])["input_ids"]]).ids)
