"""Virtual tokens before what a language model goes on with: it writes what whole passes tell, and what PEFT writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers

import tunesmith
from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import adapters, prompts
from tunesmith.models.told_places import PLACES
from tunesmith.models.writing import follow
from tunesmith.plans import Adapter, AdapterKind
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.masked_lm import MaskedLm
from tunesmith.tasks.tiny import SMALL
from tunesmith.tasks.tiny_preferences import write_pairs
from tunesmith.tasks.tiny_prompts import write_gpt2, write_prompts
from writers import SIZES, write_network

QUICK = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-1, "precision": "fp32"}
TOKENS = 5
NETWORKS = {
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=SMALL["vocab_size"], n_embd=32, n_layer=2, n_head=2, n_positions=64
    ),
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "neox": lambda: transformers.GPTNeoXConfig(**SIZES),
    "mistral": lambda: transformers.MistralConfig(**SIZES, num_key_value_heads=1, head_dim=16, sliding_window=6),
}
REFUSING = {
    "mamba": lambda: transformers.MambaConfig(**SIZES, state_size=8),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=SMALL["vocab_size"],
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
        pad_token_id=0,
        bos_token_id=3,
        eos_token_id=3,
    ),
    "lfm2": lambda: transformers.Lfm2Config(
        **SIZES, num_key_value_heads=2, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False
    ),
}
"""Of no keys by token, with a forward pass beside the backbone's, and with keys in some blocks alone."""


def prompted(folder: Path, kind: AdapterKind) -> Model:
    """With virtual tokens that are far from any word."""
    task = CausalLm(CausalLm.Settings())
    model = task.load_model(str(folder), (), seed=0, loading=Loading(reserved=TOKENS))
    found = adapters.inject(model, Adapter(kind, ("embeddings",), merge=False, tokens=TOKENS), 0)
    prompt = prompts.of(found)
    assert prompt is not None
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        prompt.weight.add_(0.5 * torch.randn(prompt.weight.shape))
    found.module.eval()
    return found


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_written_of_ragged_prompts_is_what_whole_passes_tell(
    tmp_path: Path, network: str, kind: AdapterKind
) -> None:
    model = prompted(write_network(tmp_path / "model", NETWORKS[network]()), kind)
    given = [np.array(ids, dtype=np.int32) for ids in ([9, 10, 11, 12, 13, 14], [20], [30, 31, 32])]
    written = follow(model, given, 6, "fp32")
    for ids, row in zip(given, written, strict=True):
        text = ids.tolist()
        for token in row.tolist():
            batch = {"input_ids": torch.tensor([text]), "attention_mask": torch.ones(1, len(text), dtype=torch.int64)}
            with torch.no_grad():
                logits = model.module(**batch).logits
            with torch.no_grad(), prompts.bare(model):
                assert not torch.equal(model.module(**batch).logits, logits)
            assert logits.shape[1] == len(text)
            said = int(logits[0, -1].argmax())
            assert said == token or (token < 0 and said == model.processor.eos_token_id)
            if token < 0:
                break
            text.append(token)


@pytest.mark.parametrize(
    ("network", "kind"), [("mamba", "prompt"), ("opt", "prompt"), ("opt", "prefix"), ("lfm2", "prefix")]
)
def test_networks_that_would_not_write_with_them_are_refused(tmp_path: Path, network: str, kind: AdapterKind) -> None:
    with pytest.raises(ModelError, match="cannot be trained with virtual tokens"):
        prompted(write_network(tmp_path / "model", REFUSING[network]()), kind)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_places_are_those_of_the_text(tmp_path: Path, kind: AdapterKind) -> None:
    model = prompted(write_gpt2(tmp_path / "model"), kind)
    batch = {
        "input_ids": torch.tensor([[9, 10, 11], [12, 13, 0]]),
        "attention_mask": torch.tensor([[1] * 3, [1, 1, 0]]),
    }
    with torch.no_grad():
        whole = model.module(**batch).logits
        few = model.module(**batch, **{PLACES: torch.tensor([1, 4])}).logits
    torch.testing.assert_close(few, whole.flatten(0, 1)[[1, 4]])


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_peft_opens_and_writes_the_same(tmp_path: Path, kind: AdapterKind) -> None:
    task = {"name": "causal-lm", "max_new_tokens": 8}
    given: dict[str, Any] = {"task": task, "train": QUICK | {"epochs": 4}, "method": {"name": kind, "tokens": TOKENS}}
    model, data = write_gpt2(tmp_path / "model"), write_prompts(tmp_path / "rows.jsonl")
    other = {"name": "other", "data": str(write_prompts(tmp_path / "other.jsonl", 40, 5))}
    given |= {"model": str(model), "data": str(data), "evaluate": {"retention": [other], "resamples": 100}}
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["metrics"]["test"]["perplexity"]["value"] < report["baselines"]["before"]["perplexity"]["value"]
    assert report["retention"][0]["kept"] == 1  # without them it is the network from before
    (said,) = tunesmith.load(run.folder).predict(["word3 word4"])
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(run.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.model)
    batch = tokenizer("word3 word4", return_tensors="pt")
    written = theirs.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert tokenizer.decode(written, skip_special_tokens=True) == said["prediction"]


def test_rows_before_which_virtual_tokens_stand_are_not_packed(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "model": str(write_gpt2(tmp_path / "model")), "data": str(write_prompts(tmp_path / "rows.jsonl")),
        "method": "prefix", "train": QUICK,
    }  # fmt: skip
    with pytest.raises(SettingsError, match="virtual tokens stand before each row"):
        tunesmith.plan(given | {"task": {"name": "causal-lm", "pack": True}})
    plan = tunesmith.plan(given | {"task": "causal-lm"})
    assert "packed into sequences" not in json.dumps(plan)
    with pytest.raises(SettingsError, match="leave that as it is"):
        tunesmith.plan(given | {"task": "causal-lm", "train": QUICK | {"distil": 1.0}})


def test_preferences_are_measured_against_the_network_without_them(tmp_path: Path) -> None:
    given = {
        "task": "preference", "model": str(write_gpt2(tmp_path / "model")), "data": str(write_pairs(tmp_path / "rows.jsonl")),
        "method": {"name": "prompt", "tokens": TOKENS}, "train": QUICK | {"epochs": 3},
    }  # fmt: skip
    run = tunesmith.finetune(given, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["metrics"]["test"]["reward_margin"]["value"] > 0
    assert report["baselines"]["before"]["reward_margin"]["value"] == pytest.approx(0, abs=1e-4)


def test_what_tells_hidden_words_takes_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="virtual tokens"):
        tunesmith.finetune({"task": "masked-lm", "method": "prompt"} | MaskedLm.tiny(tmp_path), run=tmp_path / "run")
