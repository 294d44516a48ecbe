"""Methods with adapters, and scratch: they learn at the rates they choose, and refuse what cannot be done."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tunesmith
from tiny import write_model
from tunesmith import methods, prepare
from tunesmith import settings as settings_
from tunesmith.contracts import Facts, Loading, Parameter, Stage
from tunesmith.errors import SettingsError
from tunesmith.methods.scratch import Scratch
from tunesmith.models import heads, probes, prompts, quantised
from tunesmith.models.load import load_classifier
from tunesmith.models.solver import solve
from tunesmith.plans import Plan
from tunesmith.registry import make
from tunesmith.settings import Named, TrainSettings
from tunesmith.train.course import Job
from tunesmith.train.events import EpochDone, HeadSolved
from tunesmith.train.loop import train


def begin(settings: dict[str, Any], method: Any, folder: Path) -> Job:
    wanted = settings_.parse(settings | {"method": method})
    ready = prepare.prepare(wanted, folder / "cache", torch.device("cpu"), lambda _: None)
    job = prepare.job(ready, ready.model, ready.frontier.candidates[0], folder / "kept")
    return dataclasses.replace(job, checkpoint_seconds=1e9)


@pytest.mark.parametrize("method", ["adalora", "vera", "prompt", "prefix", "scratch"])
def test_the_loss_falls_at_the_rate_that_a_method_chooses(
    settings: dict[str, Any], tmp_path: Path, method: str
) -> None:
    settings["train"] = {"epochs": 5, "batch_size": 16, "precision": "fp32", "patience": 5}
    losses = [event.train_loss for event in train(begin(settings, method, tmp_path)) if isinstance(event, EpochDone)]
    assert losses[-1] < 0.97 * losses[0]


def test_half_of_adaloras_extra_ranks_are_gone_when_it_is_done(settings: dict[str, Any], tmp_path: Path) -> None:
    job = begin(settings, {"name": "adalora", "rank": 2, "initial_rank": 6}, tmp_path)
    for _ in train(job):
        pass
    values = [one for name, one in job.model.module.named_parameters() if "lora_E" in name]
    assert {len(one) for one in values} == {6}
    final = torch.cat([child.rank_memory.kept for child in job.model.module.modules() if hasattr(child, "rank_memory")])
    assert int(final.sum()) == 2 * len(values)


def test_training_starts_from_a_head_that_is_solved_for_with_the_prompt(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    """Solved for once more, on what the last layer receives while the prompt is there."""
    job = begin(settings, "prompt", tmp_path)
    layer = heads.last_layer(job.model)
    events = train(job)
    next(event for event in events if isinstance(event, HeadSolved))
    start = layer.weight.detach().clone()
    received: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, args: received.append(args[0]))
    batch = job.task.inputs(job.train, np.arange(len(job.train)), job.model)

    def solved() -> torch.Tensor:
        job.model.module.eval()
        with torch.no_grad():
            job.model.module(**batch)
        features = received.pop().numpy()
        found = solve(features, job.train.targets, features, lambda _: 0.0, 2, strengths=(probes.START_STRENGTH,))
        return torch.from_numpy(found.weight).float()

    assert torch.allclose(solved(), start, atol=1e-3)
    with prompts.bare(job.model):
        assert not torch.allclose(solved(), start, atol=1e-2)
    events.close()  # type: ignore[attr-defined]


@pytest.mark.reopens
def test_a_prompt_opens_from_its_card_and_shortens_the_text(settings: dict[str, Any], tmp_path: Path) -> None:
    """The run opens its folder with PEFT in a fresh process, and fails where that says something else."""
    settings["model"] = str(write_model(tmp_path / "model", "gpt2"))
    place = tunesmith.finetune(settings | {"method": {"name": "prompt", "tokens": 10}}, run=tmp_path / "run")
    report = json.loads(place.report.read_text())
    assert report["model"]["loader"] == "peft"
    assert report["truncation"]["train"]["limit"] == 54
    assert report["plan"]["adapter"]["tokens"] == 10
    assert "library_name: peft" in (place.model / "README.md").read_text()


def test_scratch_uses_nothing_of_the_pre_trained_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["evaluate"] = {"resamples": 100, "baselines": ["scratch"]}
    place = tunesmith.finetune(settings | {"method": "scratch"}, run=tmp_path / "run")
    report = json.loads(place.report.read_text())
    assert set(report["baselines"]) == {"majority"}  # no head was solved for, and the model is its own baseline
    assert not report["model"]["pretrained"]
    assert "fine-tuned" not in (place.model / "README.md").read_text().split("## Use")[0]
    job = begin(settings, "scratch", tmp_path / "again")
    file = transformers.AutoModel.from_pretrained(settings["model"])
    name = "encoder.layer.0.intermediate.dense.weight"
    assert not torch.equal(job.model.module.get_parameter(f"bert.{name}"), file.get_parameter(name))
    assert [phase.head for phase in job.plan.phases] == ["train"]
    again = begin(settings, "scratch", tmp_path / "twice")
    assert torch.equal(job.model.module.get_parameter(f"bert.{name}"), again.model.module.get_parameter(f"bert.{name}"))


def test_random_weights_get_the_rate_of_their_convolutions_and_every_epoch() -> None:
    stages = [Stage("embeddings", (Parameter("stem.weight", 8, False, False),)), Stage("head", ())]
    facts = Facts(4_000, 4_000, 4, 1_280, False, False, "linear", 1_280, lambda _: {}, TrainSettings(batch_size=64))
    plan = Scratch(Scratch.Settings()).plan(stages, facts)
    assert isinstance(plan, Plan)
    assert plan.phases[0].rows[0].learning_rate == pytest.approx(1e-3)
    assert plan.patience == plan.epochs
    wide = Scratch(Scratch.Settings()).plan(stages, dataclasses.replace(facts, linear_blocks=True))
    assert wide.phases[0].rows[0].learning_rate == pytest.approx(
        5e-4 * 384 / 1_280
    )  # a transformer's blocks are as wide


def test_qlora_without_its_machine_is_refused_before_data_are_read(settings: dict[str, Any]) -> None:
    settings["data"] = {"train": "no/such/file.csv"}
    with pytest.raises(SettingsError, match=r"needs .*(a CUDA device|bitsandbytes).*Use method=lora"):
        tunesmith.plan(settings | {"method": "qlora"})


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has what 4 bits need."""
    found = importlib.util.find_spec
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        quantised.importlib.util, "find_spec", lambda name: object() if name == "bitsandbytes" else found(name)
    )


@pytest.mark.usefixtures("able")
def test_qlora_asks_for_four_bits_in_the_blocks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dettmers et al. 2023, section 3: NF4, double quantisation, bf16 products; nothing is merged."""
    method = make("method", methods.TABLE, Named(name="qlora", rank=4))  # type: ignore[call-arg]
    assert method.loading == Loading(four_bit=True)
    assert not method.adapter(("block 0",)).merge
    with pytest.raises(SettingsError, match="merge"):
        make("method", methods.TABLE, Named(name="qlora", merge=True))  # type: ignore[call-arg]
    asked: dict[str, Any] = {}

    def from_pretrained(folder: str, **given: Any) -> Any:
        asked.update(given)
        raise OSError("asked")

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", from_pretrained)
    folder = write_model(tmp_path / "model")
    with pytest.raises(tunesmith.errors.ModelError, match="asked"):
        load_classifier(str(folder), ("a", "b"), "single-label", seed=0, loading=method.loading)
    config = asked["quantization_config"]
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert config.bnb_4bit_compute_dtype is torch.bfloat16
    assert config.llm_int8_skip_modules == ["bert.pooler.dense", "classifier"]
    assert asked["device_map"] == {"": 0}


@pytest.mark.usefixtures("able")
def test_how_weights_were_quantised_is_kept_beside_the_adapters(tmp_path: Path) -> None:
    network = torch.nn.Module()
    network.config = transformers.BertConfig(quantization_config=quantised.four_bits(["classifier"]))
    quantised.write(network, tmp_path)
    again = quantised.read(tmp_path)
    assert again["quantization_config"].to_dict() == quantised.four_bits(["classifier"]).to_dict()
    assert quantised.read(tmp_path / "elsewhere") == {}
