"""Language models as references: perplexity, and pseudo-perplexity of masked ones, with the checkpoint's own head."""

from __future__ import annotations

import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tunesmith
from references import ready_of, referred
from tiny import WORDS, write_model
from tunesmith.errors import TunesmithError
from tunesmith.evaluate import retention
from tunesmith.models.forward import device_of

STEPS = 100
FEW = 60
"""Words that the language model has seen."""


def walk(seed: int, count: int) -> str:
    """Words of which each is one of the two that may follow the one before."""
    draw = random.Random(seed)
    places = itertools.accumulate(draw.choice((1, 5, 17, 23)) for _ in range(count))
    return " ".join(WORDS[(seed + place) % FEW] for place in places)


def write_texts(folder: Path) -> Path:
    """A split a file, of words that follow each other by a rule; they are so few that passages are much alike."""
    for number, split in enumerate(("train", "validation", "test")):
        lines = [walk(100 * number + line, 60) for line in range(30)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_language_model(folder: Path, architecture: str) -> Path:
    """A tiny language model that knows how words follow each other a little, so that there is something to forget."""
    write_model(folder, architecture)
    kind = transformers.AutoModelForCausalLM if architecture == "gpt2" else transformers.AutoModelForMaskedLM
    torch.manual_seed(1)
    module = kind.from_config(transformers.AutoConfig.from_pretrained(folder))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    optimiser = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for some in torch.arange(STEPS * 16).view(STEPS, 16).tolist():
        sentences = [walk(seed, 60) for seed in some]
        ids = tokenizer(sentences, return_tensors="pt")["input_ids"]
        labels, given = ids, ids
        if architecture != "gpt2":
            hidden = torch.rand(ids.shape) < 0.2
            labels, given = ids.masked_fill(~hidden, -100), ids.masked_fill(hidden, tokenizer.mask_token_id)
        module(input_ids=given, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    module.save_pretrained(folder)
    return folder


TASKS = {"gpt2": "causal-lm", "bert": "masked-lm"}


@pytest.fixture(scope="module", params=list(TASKS))
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_language_model(tmp_path_factory.mktemp(architecture), architecture)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("text"))


def by_hand(folder: Path, passages: list[str], architecture: str) -> float:
    """Perplexity of passages that fit into one window, token by token; every token of a masked model is hidden."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    causal = architecture == "gpt2"
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    module = kind.from_pretrained(folder, attn_implementation="eager").eval()
    losses = []
    with torch.no_grad():
        for passage in passages:
            ids = tokenizer(passage, return_tensors="pt")["input_ids"]
            length = ids.shape[1]
            if causal:
                shares = module(ids).logits.log_softmax(-1)[0]
                losses += [-float(shares[place - 1, ids[0, place]]) for place in range(1, length)]
                continue
            for place in range(1, length - 1):
                hidden = ids.clone()
                hidden[0, place] = tokenizer.mask_token_id
                losses.append(-float(module(hidden).logits.log_softmax(-1)[0, place, ids[0, place]]))
    return math.exp(sum(losses) / len(losses))


def test_it_is_the_perplexity_that_the_own_classes_give(
    architecture: str, folder: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    passages = [" ".join(WORDS[number : number + 3 + number % 9]) for number in range(60)]
    rows.write_text("\n".join(json.dumps({"text": passage}) for passage in passages))
    said: list[str] = []
    ready = ready_of(settings | {"model": str(folder)}, tmp_path)
    data = {"train": str(rows), "test": str(rows)}
    task = {"name": TASKS[architecture]} | ({"places": 100} if architecture == "bert" else {})
    found = retention.measure(referred(ready, rows, tmp_path, said, data=data, task=task), ready.model)
    assert found.primary.before.value == pytest.approx(by_hand(folder, passages, architecture), rel=1e-4)
    assert found.primary.before.low < found.primary.before.value < found.primary.before.high
    assert found.kept == 1.0
    assert found.head == "own"
    assert found.neighbours is None
    assert list(found.cka.values()) == pytest.approx([1.0] * len(found.cka), abs=1e-6)
    assert any("own head" in one for one in said)


def test_a_damaged_backbone_has_a_higher_one_and_the_head_stays_as_it_was(
    architecture: str, folder: Path, text: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    ready = ready_of(settings | {"model": str(folder)}, tmp_path)
    reference = referred(ready, text, tmp_path, task=TASKS[architecture])
    head = reference.data.model.module.get_output_embeddings().weight.detach().clone()  # type: ignore[operator, union-attr]
    with torch.no_grad():
        embeddings: Any = ready.model.module.get_input_embeddings()  # type: ignore[operator]
        embeddings.weight.add_(torch.randn_like(embeddings.weight) * 4)
    found = retention.measure(reference, ready.model)
    before, after = found.primary.before.value, found.primary.after.value
    assert before < min(100, after)  # guessing among all tokens would give 208
    assert found.primary.difference.low > 0
    assert found.kept == pytest.approx(before / after)
    assert retention.kept(reference, ready.model) < 1
    again: Any = reference.data.model.module.get_output_embeddings()  # type: ignore[operator]
    assert torch.equal(again.weight, head)
    assert again.weight is not reference.data.model.module.get_input_embeddings().weight  # type: ignore[operator, union-attr]
    assert device_of(reference.data.model.module) == device_of(ready.model.module)


def test_a_run_is_guarded_by_it_and_says_what_was_kept(
    architecture: str, folder: Path, text: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    references = [{"name": "corpus", "data": str(text), "task": TASKS[architecture], "rows": 50}]
    wanted = settings | {
        "model": str(folder),
        "method": "full",
        "train": {"epochs": 1, "ewc": 0.1, "replay": 0.3, "wise_ft": True, "retain": 0.9},
        "evaluate": {"retention": references, "resamples": 200},
    }
    run = tunesmith.finetune(wanted, run=tmp_path / "run", listen=lambda _: None)
    (entry,) = json.loads(run.report.read_text())["retention"]
    assert entry["metric"] == ("perplexity" if architecture == "gpt2" else "pseudo_perplexity")
    assert entry["kept"] == pytest.approx(entry["before"]["value"] / entry["after"]["value"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "perplexity on corpus" in page


def test_what_cannot_be_is_refused_with_the_mend(
    folder: Path, architecture: str, text: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    ready = ready_of(settings | {"model": str(folder)}, tmp_path)
    task = TASKS[architecture]
    with pytest.raises(TunesmithError, match="keeps its own") as refused:
        referred(ready, text, tmp_path, task=task, head="probe")
    assert refused.value.mend == "Leave head away."
    if architecture == "bert":
        with pytest.raises(TunesmithError, match="reads texts alone"):
            referred(ready, text, tmp_path, task=task, data={"train": str(text), "target": "text"})
    with pytest.raises(TunesmithError, match="takes 64 tokens"):
        referred(ready, text, tmp_path, task={"name": task, "max_length": 100})
    if architecture == "gpt2":
        with pytest.raises(TunesmithError, match="knows no AutoModelForMaskedLM"):
            referred(ready, text, tmp_path, task="masked-lm")


def test_a_checkpoint_without_such_a_head_is_refused(settings: dict[str, Any], text: Path, tmp_path: Path) -> None:
    with pytest.raises(TunesmithError, match="hold no head of a BertForMaskedLM"):
        referred(ready_of(settings, tmp_path), text, tmp_path, task="masked-lm")
