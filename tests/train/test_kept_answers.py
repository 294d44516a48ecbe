"""Language models held near what they told before: distillation and replay against their equations, and whole runs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import tunesmith
from renderers import write_renderer
from steps import ROWS, by_hand, gradients, job_of, prepared, same, stepper
from tiny import write_model
from tunesmith.errors import SettingsError
from tunesmith.models import told_places
from tunesmith.plans import Guards
from tunesmith.prepare import Prepared
from tunesmith.tasks.tiny_hidden import write_masked_bert, write_texts
from tunesmith.tasks.tiny_preferences import write_pairs
from tunesmith.tasks.tiny_prompts import write_gpt2, write_prompts
from tunesmith.tasks.tiny_renderings import write_renderings
from tunesmith.train import kept_answers
from tunesmith.train.events import StepDone
from tunesmith.train.loop import train
from tunesmith.train.rehearsal import drawn, rows_a_step

QUICK = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}


def given_of(folder: Path, task: str, **train: Any) -> dict[str, Any]:
    """Settings of a run on a tiny network with the head that its files bring."""
    models: dict[str, Any] = {"seq2seq": lambda at: write_renderer(at, "t5"), "masked-lm": write_masked_bert}
    data: dict[str, Any] = {"seq2seq": write_renderings, "masked-lm": write_texts, "preference": write_pairs}
    written = data.get(task, write_prompts)(folder / ("rows.csv" if task == "masked-lm" else "rows.jsonl"))
    model = models.get(task, write_gpt2)(folder / "model")
    return {"task": task, "model": str(model), "data": str(written), "method": "full", "train": QUICK | train}


@pytest.fixture(params=["causal-lm", "packed", "seq2seq"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Prepared:
    given = given_of(tmp_path, request.param.replace("packed", "causal-lm"), dropout=0.0)
    if request.param == "packed":
        given["task"] = {"name": "causal-lm", "pack": True}
    return prepared(given, tmp_path)


def logits_of(ready: Prepared, module: Any, examples: Any, rows: np.ndarray) -> torch.Tensor:
    """(places, vocabulary)"""
    return module(**ready.task.inputs(examples, rows, ready.model)).logits.float()


def mean_loss(ready: Prepared, examples: Any, rows: np.ndarray) -> torch.Tensor:
    wanted = torch.from_numpy(examples.wanted_of(rows)[1])
    return functional.cross_entropy(logits_of(ready, ready.model.module, examples, rows), wanted)


def divergence(ready: Prepared, before: Any) -> torch.Tensor:
    """Mean over the places of ROWS, over the whole vocabulary."""
    with torch.no_grad():
        expected = logits_of(ready, before, ready.train, ROWS).log_softmax(1)
    now = logits_of(ready, ready.model.module, ready.train, ROWS).log_softmax(1)
    return (expected.exp() * (expected - now)).sum(1).mean()


def test_distillation_adds_the_divergence_from_what_was_told_before(
    told: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(told_places, "AT_ONCE", 7)  # places come in several parts
    monkeypatch.setattr(kept_answers, "LIKELIEST", 1000)  # all of them: the divergence as it is written
    before = copy.deepcopy(told.model.module).eval()
    found = gradients(stepper(told, Guards(distil=0.7), tokens=200))
    same(found, by_hand(told, lambda: mean_loss(told, told.train, ROWS) + 0.7 * divergence(told, before)))


def test_less_likely_tokens_count_as_one(told: Prepared) -> None:
    kept = kept_answers.computed(told.task, told.model, told.train, "fp32")
    assert kept.tokens.shape[1] == kept_answers.LIKELIEST
    part = np.array([5, 2])
    module = copy.deepcopy(told.model.module).eval()
    with torch.no_grad():
        logits = logits_of(told, module, told.train, part)
        assert float(kept.divergence(logits, part)) == pytest.approx(0, abs=1e-4)
        other = logits + 0.5 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
        p, q = logits.softmax(1), other.softmax(1)
        best = p.topk(kept_answers.LIKELIEST, dim=1).indices
        one, two = p.gather(1, best), q.gather(1, best)
        rest = [1 - one.sum(1), 1 - two.sum(1)]
        expected = (one * (one / two).log()).sum() + (rest[0] * (rest[0] / rest[1]).log()).sum()
        torch.testing.assert_close(kept.divergence(other, part), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("strength", [0.0, 0.4])
def test_replay_adds_the_loss_of_reference_rows(
    told: Prepared, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_answers, "LIKELIEST", 1000)
    before = copy.deepcopy(told.model.module).eval()
    found = gradients(stepper(told, Guards(replay=0.3, distil=strength), tokens=200))
    count = rows_a_step(0.3, told.frontier.candidates[0].batch.rows)
    (rows,) = drawn([len(told.validation)], count, 0, 3)

    def objective() -> torch.Tensor:
        own, replayed = mean_loss(told, told.train, ROWS), mean_loss(told, told.validation, rows)
        return own + count / 16 * replayed + strength * divergence(told, before)

    same(found, by_hand(told, objective))


@pytest.mark.parametrize("method", ["full", "lora", "partial"])
def test_a_language_model_is_guarded_from_settings_to_report(tmp_path: Path, method: str) -> None:
    given = given_of(tmp_path, "causal-lm", distil=0.5, replay=0.2) | {"method": method}
    other = str(write_prompts(tmp_path / "other.jsonl", 40, 7))
    given["evaluate"] = {"retention": [{"name": "other", "data": other}], "resamples": 100}
    told = json.dumps(tunesmith.plan(given))
    assert "its likeliest ones are kept" in told
    assert "learned as the network learned them before" in told
    run = tunesmith.finetune(given, run=tmp_path / "run", listen=lambda _: None)
    (kept,) = json.loads(run.report.read_text())["retention"]
    assert kept["metric"] == "perplexity"


def test_what_was_told_is_kept_better_with_guards(tmp_path: Path) -> None:
    """Of a network that knows something, and is taught something else."""
    known = str(write_prompts(tmp_path / "known.jsonl", 120, 3))
    start = given_of(tmp_path, "causal-lm", epochs=6, learning_rate=5e-3)
    first = tunesmith.finetune(start | {"data": known}, run=tmp_path / "first", listen=lambda _: None)
    pairs = tmp_path / "others.jsonl"
    pairs.write_text(
        "".join(json.dumps({"prompt": f"word{n}", "completion": "word70 word71"}) + "\n" for n in range(60))
    )
    kept = {}
    for name, guard in {"none": {}, "distil": {"distil": 3.0}, "replay": {"replay": 0.3}}.items():
        given = {
            "task": "causal-lm", "model": str(first.model), "data": str(pairs), "method": "full", "seed": 0,
            "train": QUICK | {"epochs": 4, "learning_rate": 5e-3, **guard},
            "evaluate": {"retention": [{"name": "known", "data": known}], "resamples": 100},
        }  # fmt: skip
        run = tunesmith.finetune(given, run=tmp_path / name, listen=lambda _: None)
        kept[name] = json.loads(run.report.read_text())["retention"][0]["kept"]
    assert kept["none"] < kept["distil"]
    assert kept["none"] < kept["replay"]


def test_a_guarded_language_model_is_resumed_to_the_same_weights(tmp_path: Path) -> None:
    given = given_of(tmp_path, "causal-lm", epochs=2, distil=0.5, replay=0.3)
    ready = prepared(given | {"evaluate": {"retention": [{"name": "x", "data": "never read here"}]}}, tmp_path)
    weights = copy.deepcopy(ready.model.module.state_dict())

    def ended(folder: Path, *, cut: bool) -> dict[str, torch.Tensor]:
        ready.model.module.load_state_dict(weights)
        job = job_of(ready, folder)
        events = train(job)
        for event in events:
            if cut and isinstance(event, StepDone) and event.step == 5:
                break
        events.close()  # type: ignore[attr-defined]
        if cut:
            ready.model.module.load_state_dict(weights)
            for _ in train(job_of(ready, folder)):
                pass
        return {name: one.clone() for name, one in ready.model.module.state_dict().items()}

    whole, resumed = ended(tmp_path / "whole", cut=False), ended(tmp_path / "cut", cut=True)
    assert all(torch.equal(one, resumed[name]) for name, one in whole.items())
    assert not all(torch.equal(one, weights[name]) for name, one in whole.items())


def test_a_masked_model_replays_and_has_nothing_to_distil(tmp_path: Path) -> None:
    given = given_of(tmp_path, "masked-lm", replay=0.3)
    other = str(write_texts(tmp_path / "other.csv", 30, 7))
    given["evaluate"] = {"retention": [{"name": "other", "data": other, "task": "masked-lm"}], "resamples": 100}
    tunesmith.finetune(given, run=tmp_path / "run", listen=lambda _: None)
    with pytest.raises(SettingsError, match=r"train\.distil"):
        tunesmith.finetune(given | {"train": QUICK | {"distil": 1.0}}, run=tmp_path / "other", listen=lambda _: None)


def test_preferences_replay_texts_by_their_loss(tmp_path: Path) -> None:
    given = given_of(tmp_path, "preference", replay=0.3)
    other = str(write_prompts(tmp_path / "other.jsonl", 40, 7))
    given["evaluate"] = {"retention": [{"name": "other", "data": other, "task": "causal-lm"}], "resamples": 100}
    run = tunesmith.finetune(given, run=tmp_path / "run", listen=lambda _: None)
    assert json.loads(run.report.read_text())["retention"][0]["kept"] > 0


def test_a_reference_that_another_network_reads_is_not_replayed(tmp_path: Path) -> None:
    given = given_of(tmp_path, "causal-lm", replay=0.3)
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("text,label\n" + "".join(f"word{n} word{n % 7},{'ab'[n % 2]}\n" for n in range(60)))
    reference = {"name": "labelled", "data": {"train": str(labelled)}, "task": "text-classification"}
    given["evaluate"] = {"retention": [reference], "resamples": 100}
    with pytest.raises(SettingsError, match="'labelled' with the network that is trained"):
        tunesmith.finetune(given, run=tmp_path / "run", listen=lambda _: None)


def test_rows_of_a_reference_that_teach_nothing_are_not_replayed(tmp_path: Path) -> None:
    given = given_of(tmp_path, "causal-lm", replay=0.2, batch_size=4)
    texts = [{"text": f"word{n}" if n % 2 else f"word{n} word{n + 1} word{n + 2}"} for n in range(60)]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(one) + "\n" for one in texts))
    given["evaluate"] = {"retention": [{"name": "titles", "data": str(other)}], "resamples": 100}
    run = tunesmith.finetune(given, run=tmp_path / "run", listen=lambda _: None)
    assert json.loads(run.report.read_text())["retention"][0]["kept"] > 0


def test_nothing_is_held_of_what_nobody_has_learned(tmp_path: Path) -> None:
    given = {
        "task": "seq2seq", "model": str(write_model(tmp_path / "bert")), "method": "full",
        "data": str(write_renderings(tmp_path / "rows.jsonl")), "train": QUICK | {"distil": 1.0},
    }  # fmt: skip
    with pytest.raises(SettingsError, match=r"train\.distil"):
        tunesmith.finetune(given, run=tmp_path / "run", listen=lambda _: None)
