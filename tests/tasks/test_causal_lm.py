"""Language models: what is learned of a row, token by token; packing; what is written; and that the files do the same."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import tunesmith
from tunesmith import console, predict, prepare
from tunesmith import settings as parsed
from tunesmith.contracts import Batched
from tunesmith.data.asked import NOTHING
from tunesmith.data.dialogue import Dialogue, together
from tunesmith.errors import CutWarning, DataError, ModelError, SettingsError
from tunesmith.models import dialogues
from tunesmith.models.dialogues import CHATML, Part, Shape, chat_parts, insist_on_tools, stops
from tunesmith.models.dropout import set_dropout
from tunesmith.models.freezing import apply_phase
from tunesmith.tasks import written_outcomes
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.tiny import WORDS, words
from tunesmith.tasks.tiny_prompts import write_gpt2, write_prompts
from tunesmith.train import optimiser
from tunesmith.train.step import Stepper
from writers import SIZES, write_network

TEMPLATE = (
    "{% for m in messages %}[CLS] {{ m['role'] }} {{ m['content'] }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}[CLS] assistant {% endif %}"
)
"""Of marks that the tiny tokenizer knows; [SEP] ends a turn."""
FORGETFUL = "{% for m in messages %}[CLS] {{ m['content'] if loop.last else 'word0' }} [SEP] {% endfor %}"
"""Writes earlier turns otherwise once later ones follow."""
SPARE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
"""Nothing but what is said."""
QUICK = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"}


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    return write_gpt2(tmp_path / "gpt2")


FEW_KEYS = {"num_key_value_heads": 1, "head_dim": 16}
WINDOW = {"sliding_window": 8}
"""Tokens; packed sequences are longer."""
KEEP_APART = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "neox": lambda: transformers.GPTNeoXConfig(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, **FEW_KEYS),
    "mistral": lambda: transformers.MistralConfig(**SIZES, **FEW_KEYS, **WINDOW),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SIZES, **FEW_KEYS, **WINDOW, query_pre_attn_scalar=16),
}
"""Positions that turn, alone, with windows, and with windows in some blocks."""
SEE_EACH_OTHER = {
    "bloom": lambda: transformers.BloomConfig(**SIZES),  # positions by distance alone
    "mamba": lambda: transformers.MambaConfig(**SIZES, state_size=8),
    "lfm2": lambda: transformers.Lfm2Config(
        **SIZES, num_key_value_heads=2, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False
    ),
}


def write_chats(path: Path, chats: Sequence[Any], column: str = "messages") -> Path:
    path.write_text("".join(json.dumps({column: chat}) + "\n" for chat in chats), encoding="utf-8")
    return path


def talk(*turns: str) -> list[dict[str, str]]:
    """Turns of the user and of the assistant, by turns."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(turns)]


def chats_of(count: int) -> list[list[dict[str, str]]]:
    """Chats of one question and one answer, of other words each."""
    draw = random.Random(0)
    return [talk(" ".join(draw.sample(WORDS[:60], 4)), " ".join(draw.sample(WORDS[60:], 3))) for _ in range(count)]


def ready_of(model: Path, data: Path, tmp_path: Path, **task: Any) -> prepare.Prepared:
    given_ = {"task": {"name": "causal-lm", **task}, "model": str(model), "data": str(data), "method": "full"}
    wanted = parsed.parse(given_ | {"train": QUICK})
    return prepare.prepare(wanted, tmp_path / "cache", torch.device("cpu"), lambda _: None)


def told(examples: Dialogue, tokenizer: Any, piece: int = 0) -> tuple[list[str], list[str]]:
    """The tokens of a piece, and those of them that are learned."""
    span = slice(examples.offsets[piece], examples.offsets[piece + 1])
    ids, wanted = examples.ids[span], examples.wanted[span]
    assert all(ids[place + 1] == one for place, one in enumerate(wanted[:-1]) if one != NOTHING)
    assert wanted[-1] == NOTHING
    return tokenizer.convert_ids_to_tokens(ids.tolist()), tokenizer.convert_ids_to_tokens(
        wanted[wanted != NOTHING].tolist()
    )


def test_of_a_chat_the_answers_and_their_ends_are_learned_and_nothing_else(gpt2: Path, tmp_path: Path) -> None:
    chat = talk("word1 word2", "word3 word4", "word5", "word6")
    data = write_chats(tmp_path / "chats.jsonl", [chat, *[talk("word1", f"word{n} word9") for n in range(20, 60)]])
    ready = ready_of(gpt2, data, tmp_path, chat_template=TEMPLATE)
    tokenizer = ready.model.processor
    table = pa.table({"id": ["a"], "input": [json.dumps(chat)]})
    tokens, learned = told(ready.task.encode(table, ready.model), tokenizer)
    assert learned == ["word3", "word4", "[SEP]", "word6", "[SEP]"]
    assert tokens[-2:] == ["word6", "[SEP]"]


def test_the_end_of_an_answer_is_learned_where_the_template_writes_none(gpt2: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl", chats_of(50))
    ready = ready_of(gpt2, data, tmp_path, chat_template=SPARE)
    table = pa.table({"id": ["a"], "input": [json.dumps(talk("word1", "word2"))]})
    _, learned = told(ready.task.encode(table, ready.model), ready.model.processor)
    assert learned == ["word2", "[SEP]"]


def test_where_a_template_ends_turns_with_words_the_end_of_text_is_learned_instead(gpt2: Path, tmp_path: Path) -> None:
    """The tokenizer knows no <|im_end|>: it is several tokens, at none of which writing could stop."""
    ready = ready_of(gpt2, write_chats(tmp_path / "chats.jsonl", chats_of(50)), tmp_path, chat_template=CHATML)
    table = pa.table({"id": ["a"], "input": [json.dumps(talk("word1", "word2", "word3", "word4"))]})
    _, learned = told(ready.task.encode(table, ready.model), ready.model.processor)
    assert learned == ["word2", "word4", "[SEP]"]


def test_chatml_ends_every_turn_with_what_the_tokenizer_ends_texts_with(gpt2: Path, tmp_path: Path) -> None:
    ready = ready_of(gpt2, write_chats(tmp_path / "chats.jsonl", chats_of(50)), tmp_path, chat_template="chatml")
    table = pa.table({"id": ["a"], "input": [json.dumps(talk("word1", "word2", "word3", "word4"))]})
    _, learned = told(ready.task.encode(table, ready.model), ready.model.processor)
    assert learned == ["word2", "[SEP]", "word4", "[SEP]"]


def test_a_mark_within_an_answer_does_not_end_it(gpt2: Path, tmp_path: Path) -> None:
    """Such as <think>: where the template ends turns with words, the end of the text is learned all the same."""
    ready = ready_of(gpt2, write_chats(tmp_path / "chats.jsonl", chats_of(50)), tmp_path, chat_template=CHATML)
    table = pa.table({"id": ["a"], "input": [json.dumps(talk("word1", "[SEP] word2"))]})
    _, learned = told(ready.task.encode(table, ready.model), ready.model.processor)
    assert learned == ["[SEP]", "word2", "[SEP]"]


STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    + TEMPLATE.removeprefix("{% for m in messages %}")
)


def test_chats_that_the_template_refuses_are_left_out_and_told(gpt2: Path, tmp_path: Path) -> None:
    """One in ten thousand must not end the run, nor go unsaid."""
    chats = chats_of(60)
    for place in (3, 30, 45):
        chats[place] = [{"role": "system", "content": "word9"}, *chats[place]]
    data = write_chats(tmp_path / "chats.jsonl", chats)
    heard: list[str] = []
    given_ = {
        "task": {"name": "causal-lm", "chat_template": STRICT, "written": 0}, "model": str(gpt2), "data": str(data),
        "method": "full", "train": QUICK,
    }  # fmt: skip
    run = tunesmith.finetune(given_, run=tmp_path / "run", listen=lambda one: heard.append(str(one)))
    report = json.loads(run.report.read_text())
    assert sum(one["rows_refused"] for one in report["truncation"].values()) == 3
    assert all(one["rows_left_out"] == 0 for one in report["truncation"].values())
    told_ = [one for one in heard if "left out, as the chat template refuses" in one]
    assert told_
    assert "no system here" in told_[0]
    assert "no system here" in run.page.read_text()
    every = write_chats(
        tmp_path / "every.jsonl", [[{"role": "system", "content": "word9"}, *one] for one in chats_of(60)]
    )
    with pytest.raises(DataError, match="no system here"):
        ready_of(gpt2, every, tmp_path / "none", chat_template=STRICT)


def test_a_run_ends_well_where_the_first_test_rows_are_refused_or_too_long(gpt2: Path, tmp_path: Path) -> None:
    """The first rows are what the saved model is asked about."""
    train = write_chats(tmp_path / "train.jsonl", chats_of(40))
    strict = [[{"role": "system", "content": "word9"}, *one] for one in chats_of(10)]
    long = [talk(" ".join(WORDS[:40]), WORDS[70]) for _ in range(10)]
    task = {"name": "causal-lm", "chat_template": STRICT, "written": 0, "too_long": "leave-out", "max_length": 24}
    for name, bad in (("strict", strict), ("long", long)):
        test = write_chats(tmp_path / f"{name}.jsonl", [*bad, *chats_of(6)])
        given_ = {
            "task": task, "model": str(gpt2), "data": {"train": str(train), "test": str(test)}, "method": "full",
            "train": QUICK,
        }  # fmt: skip
        run = tunesmith.finetune(given_, run=tmp_path / name)
        lost = json.loads(run.report.read_text())["truncation"]["test"]
        assert lost["rows_refused"] + lost["rows_left_out"] == 10


def test_what_tools_say_is_read_and_not_learned_and_never_left_out_in_silence(gpt2: Path, tmp_path: Path) -> None:
    chat = [
        *talk("word1", "word2"),
        {"role": "function", "content": "word7"},
        {"role": "assistant", "content": "word8"},
    ]
    data = write_chats(tmp_path / "chats.jsonl", [chat, *chats_of(50)])
    ready = ready_of(gpt2, data, tmp_path, chat_template=TEMPLATE)
    rows = pa.concat_tables([ready.dataset.splits[name] for name in ("train", "validation", "test")])
    (kept,) = [one for one in rows.column("input").to_pylist() if "tool" in one]
    tokens, learned = told(
        ready.task.encode(pa.table({"id": ["a"], "input": [kept]}), ready.model), ready.model.processor
    )
    assert learned == ["word2", "[SEP]", "word8", "[SEP]"]
    assert "word7" in tokens
    ready.model.processor.chat_template = "{% for m in messages if m['role'] != 'tool' %}" + TEMPLATE.partition("%}")[2]
    with pytest.raises(DataError, match="leaves out what a tool says: 'word7'"):
        chat_parts(json.loads(kept), ready.model.processor, "it")
    asked = pa.table({"id": ["a"], "input": [json.dumps(json.loads(kept)[:3])]})
    with pytest.raises(DataError, match="leaves out what a tool says"):
        ready.task.encode(asked, ready.model)
    said_again = [
        *talk("word1", "word2"),
        {"role": "tool", "content": "word7"},
        {"role": "assistant", "content": "word7"},
    ]
    with pytest.raises(DataError, match="leaves out what a tool says"):
        chat_parts(said_again, ready.model.processor, "it")
    ready.model.processor.chat_template = "{% for m in messages %}{{ m['content'] | tojson }}{% endfor %}"
    insist_on_tools([{"role": "tool", "content": '{\n "a": 1}'}], ready.model.processor, "it")


def test_what_ends_a_turn_is_found_whatever_letters_it_has(gpt2: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(gpt2)
    tokenizer.add_tokens(["</bot>"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}<b>{{ m['content'] }}</bot>{% endfor %}"
    config = transformers.AutoConfig.from_pretrained(gpt2)
    assert tokenizer.convert_tokens_to_ids("</bot>") in stops(tokenizer, config, templated=True)
    opened, told_ = chat_parts([{"role": "assistant", "content": "b"}], tokenizer, "it")
    assert (opened.text, told_.text) == ("<b>", "b</bot>")


def test_of_a_prompt_nothing_is_learned_and_an_instruction_gets_a_template(gpt2: Path, tmp_path: Path) -> None:
    ready = ready_of(gpt2, write_prompts(tmp_path / "rows.jsonl"), tmp_path)
    table = pa.table({"id": ["a"], "input": ["word1 word2"], "target": [{"texts": ["word3", "word4"], "classes": []}]})
    tokens, learned = told(ready.task.encode(table, ready.model), ready.model.processor)
    assert (tokens, learned) == (["word1", "word2", "word3", "[SEP]"], ["word3", "[SEP]"])
    rows = [{"instruction": f"word{n}", "input": "", "output": f"word{n + 1}"} for n in range(60)]
    (tmp_path / "alpaca.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ready = ready_of(gpt2, tmp_path / "alpaca.jsonl", tmp_path / "second", max_length=40)
    assert ready.dataset.problem == "instruction"
    assert ready.dataset.columns.inputs == ("instruction", "input")
    tokens, learned = told(ready.train, ready.model.processor)
    assert learned[-1] == "[SEP]"
    assert len(learned) == 2
    assert len(tokens) > 6


def test_a_tokenizer_without_a_template_or_an_end_is_refused(gpt2: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl", chats_of(50))
    with pytest.raises(ModelError, match="has no chat template") as refused:
        ready_of(gpt2, data, tmp_path)
    assert "chatml" in str(refused.value.mend)
    longer = [[*one, *other] for one, other in zip(chats_of(60), chats_of(60)[::-1], strict=True)]
    long = write_chats(tmp_path / "long.jsonl", longer)
    with pytest.raises(DataError, match="writes earlier turns otherwise"):
        ready_of(gpt2, long, tmp_path, chat_template=FORGETFUL)
    with pytest.raises(SettingsError, match="no such file"):
        ready_of(gpt2, data, tmp_path, chat_template="absent.jinja")
    config = json.loads((gpt2 / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    (gpt2 / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="no end-of-text token"):
        ready_of(gpt2, write_prompts(tmp_path / "rows.jsonl"), tmp_path)


@pytest.mark.parametrize("name", ["gpt2", *KEEP_APART])
def test_packed_rows_have_the_losses_and_gradients_that_they_have_alone(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    model = write_gpt2(folder) if name == "gpt2" else write_network(folder, KEEP_APART[name]())
    ready = ready_of(model, write_prompts(tmp_path / "rows.jsonl"), tmp_path, pack=True)
    assert ready.frontier.candidates[0].batch.packed == 64
    task, module, rows = ready.task, ready.model.module, np.arange(16)[::-1].copy()
    found = []
    for examples in (ready.train, task.packed(ready.train, 64)):
        batch = task.inputs(examples, rows, ready.model)
        module.zero_grad()
        logits = task.read(module(**batch))
        losses = task.outcome(logits, examples, rows)
        task.loss(logits, examples, rows).sum.backward()
        found.append(
            (losses, {name: one.grad.clone() for name, one in module.named_parameters()}, batch["input_ids"].shape)
        )
    (alone, one, rows_alone), (packed, other, rows_packed) = found
    torch.testing.assert_close(alone, packed)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert rows_packed[0] < rows_alone[0] == 16


def test_transformers_does_not_ask_for_the_mask_that_packed_rows_do_without(
    gpt2: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transformers.utils.logging.warning_once.cache_clear()
    ready = ready_of(gpt2, write_prompts(tmp_path / "rows.jsonl"), tmp_path, pack=True)
    packed = ready.task.packed(ready.train, 64)
    batch = ready.task.inputs(packed, np.arange(4), ready.model)
    ready.model.module.config.pad_token_id = int(batch["input_ids"][0, 0])  # what transformers looks for
    ready.model.module(**batch)
    assert "attention_mask" not in caplog.text


@pytest.mark.parametrize("name", SEE_EACH_OTHER)
def test_networks_in_which_rows_would_see_each_other_are_not_packed_however_small_their_weights(
    name: str, tmp_path: Path
) -> None:
    """Fresh weights are so small that losses alone hardly differ."""
    model = write_network(tmp_path / "model", SEE_EACH_OTHER[name]())
    with pytest.raises(SettingsError, match="does not keep rows of one sequence apart"):
        ready_of(model, write_prompts(tmp_path / "rows.jsonl"), tmp_path, pack=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(40, 90))
def test_pieces_lie_side_by_side_and_none_leaves_its_sequence(lengths: list[int], room: int) -> None:
    sequence, start = together(np.array(lengths), room)
    taken = set()
    for length, number, first in zip(lengths, sequence.tolist(), start.tolist(), strict=True):
        places = {(number, place) for place in range(first, first + length)}
        assert first + length <= room
        assert not places & taken
        taken |= places
    assert set(sequence.tolist()) == set(range(int(sequence.max()) + 1))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 60),
    st.integers(1, 60),
    st.integers(8, 40),
    st.sampled_from(["cut-prompt", "cut-answer", "leave-out"]),
)
def test_a_long_row_is_cut_where_the_policy_says_and_all_of_it_is_counted(
    prompt: int, answer: int, limit: int, policy: Any
) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words(decoder=True), pad_token="[PAD]", unk_token="[UNK]", eos_token="[SEP]"
    )
    parts = [Part(" ".join(WORDS[:prompt]), told=False), Part(" ".join(WORDS[60 : 60 + answer]), told=True)]
    found = dialogues.dialogue(tokenizer, [dialogues.ended(parts, tokenizer, "it")], Shape(limit, policy), None)
    whole = prompt + answer + 1
    kept = int(found.lengths.sum())
    assert kept <= limit
    if len(found):
        assert kept + int(found.cut.sum()) == whole == kept + int(found.lost.sum())
        assert found.by_row[0] > 0
    if whole <= limit:
        assert not found.cut.any()
        assert found.by_row[0] == answer + (prompt > 0)
    elif policy == "leave-out":
        assert found.left_out == 1
    elif policy == "cut-answer":
        assert found.cut[0, 0] == 0
    elif answer + 1 + min(prompt, limit // 4) <= limit:  # the answer fits beside some of the prompt, and is whole
        assert found.cut[0, 1] == 0
        assert found.by_row[0] == answer + (prompt > 0)


def test_rows_with_nothing_to_learn_are_left_out_and_told_and_no_row_at_all_is_refused(
    gpt2: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    prompts = [" ".join(draw.sample(WORDS, 40 if n % 4 == 0 else 5)) for n in range(80)]
    rows = [{"prompt": prompt, "completion": " ".join(draw.sample(WORDS, 2))} for prompt in prompts]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    heard: list[str] = []
    wanted = {"name": "causal-lm", "too_long": "cut-answer", "max_length": 20}
    given_ = {
        "task": wanted,
        "model": str(gpt2),
        "data": str(tmp_path / "rows.jsonl"),
        "method": "full",
        "train": QUICK,
    }
    run = tunesmith.finetune(given_, run=tmp_path / "run", listen=lambda one: heard.append(str(one)))
    assert any("training rows are left out" in one for one in heard)
    report = json.loads(run.report.read_text())
    assert report["truncation"]["train"]["rows_left_out"] > 0
    assert "nothing to learn within 20 tokens" in (run.folder / "report.html").read_text()
    with pytest.raises(DataError, match="Of none of the"):
        ready_of(gpt2, tmp_path / "rows.jsonl", tmp_path / "none", too_long="leave-out", max_length=2)


def test_the_files_write_what_the_run_says_and_stop_by_themselves(gpt2: Path, tmp_path: Path) -> None:
    turns = [(one[0]["content"], "word105 word7") for one in chats_of(140)]
    chats = [[{"from": "human", "value": asked}, {"from": "gpt", "value": said}] for asked, said in turns]
    data = write_chats(tmp_path / "chats.jsonl", chats, "conversations")
    given_ = {
        "task": {"name": "causal-lm", "chat_template": TEMPLATE}, "model": str(gpt2), "data": str(data), "method": "full",
        "train": QUICK | {"epochs": 5, "learning_rate": 1e-2}, "seed": 1,
    }  # fmt: skip
    run = tunesmith.finetune(given_, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["metrics"]["test"]["exact_match"]["value"] == 1
    assert report["metrics"]["test"]["perplexity"]["value"] < report["baselines"]["before"]["perplexity"]["value"]
    assert report["writing"]["ended"] == 1
    assert report["samples"][0]["said"]["after"] == report["samples"][0]["truth"]
    for row in report["learned"]:  # row 2 of the known failures: what ends a turn is learned
        told_ = [text for text, one in row["tokens"] if one]
        assert told_ == ["word105", "word7", "[SEP]"]
    page = run.page.read_text()
    assert "What is learned of a row" in page
    assert "Answers were written for" in page
    model = transformers.AutoModelForCausalLM.from_pretrained(run.model)
    assert model.generation_config.eos_token_id in (3, [3])
    write = transformers.pipeline("text-generation", model=str(run.model))
    chat = [{"role": "user", "content": "word5"}]
    (said,) = write(chat, do_sample=False, return_full_text=False)
    assert said["generated_text"].strip() == "word105 word7"
    predictor = tunesmith.load(run.folder)
    assert predictor.predict([chat, "word5"])[0]["prediction"].strip() == "word105 word7"
    assert predictor.predict(["word5"])[0]["prediction"].strip() == "word105 word7"
    again = predictor.evaluate(str(data))
    assert again["metrics"]["test"]["exact_match"]["value"] > 0.9


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ("not a list", "no turn of the assistant"),
        ([], "chat without a turn"),
        ([{"role": "user", "content": "word1"}], "no turn of the assistant"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}], "empty text in a turn of the assistant"),
        ([{"role": "user", "content": None}, {"role": "assistant", "content": "a"}], "no text in a turn of the user"),
        ([{"role": "owl", "content": "a"}], "turn of the unknown role 'owl'"),
        ([{"role": "assistant", "content": "a", "tool_calls": [{"id": 1}]}], "'tool_calls' in a turn of the assistant"),
        (["word1"], "turn that is not a mapping"),
        ([{"content": "a"}], "turn without role or content"),
        (7, "no chat"),
        (None, "no chat"),
    ],
)  # fmt: skip
def test_a_chat_that_teaches_nothing_is_set_aside_with_the_reason(chat: Any, reason: str, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl", [chat, *chats_of(60)])
    found = tunesmith.check({"task": "causal-lm", "model": "unused", "data": str(data)})
    (row,) = found["rejected_rows"]
    assert reason in row["reason"]
    assert found["turns"]["train"] == {"min": 2.0, "median": 2.0, "max": 2.0}


def test_a_model_of_whole_texts_learns_where_they_end(gpt2: Path, tmp_path: Path) -> None:
    """Row 2 of the known failures, of plain text."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"word{n} word105 word7"}) + "\n" for n in range(100)))
    given_ = {
        "task": {"name": "causal-lm", "ends": True}, "model": str(gpt2), "data": str(rows), "method": "full", "seed": 1,
        "train": QUICK | {"epochs": 8, "learning_rate": 1e-2},
    }  # fmt: skip
    run = tunesmith.finetune(given_, run=tmp_path / "run")
    write = transformers.pipeline("text-generation", model=str(run.model))
    (said,) = write("word5", do_sample=False, return_full_text=False)
    assert said["generated_text"].strip() == "word105 word7"
    assert "mistakes" not in json.loads(run.report.read_text())  # of so few tokens the rarest decides
    for ends in (True, False):
        ready = ready_of(gpt2, rows, tmp_path / str(ends), ends=ends)
        assert bool((ready.train.wanted == ready.model.processor.eos_token_id).any()) == ends
        assert any("but not where they end" in one for one in ready.task.told()) != ends
    completions = write_prompts(tmp_path / "completions.jsonl")
    with pytest.raises(SettingsError, match="where answers end is always learned"):
        ready_of(gpt2, completions, tmp_path / "completions", ends=True)
    passages = tmp_path / "corpus.txt"
    passages.write_text("word1 word2\n" * 40)
    with pytest.raises(SettingsError, match="read in passages"):
        ready_of(gpt2, passages, tmp_path / "passages", ends=True)
    mark_of_end = gpt2 / "tokenizer_config.json"
    mark_of_end.write_text(json.dumps(json.loads(mark_of_end.read_text()) | {"eos_token": None}))
    with pytest.raises(ModelError, match="no end-of-text token"):
        ready_of(gpt2, rows, tmp_path / "none", ends=True)


def test_the_report_shows_what_was_written_worst_and_what_was_expected_least(gpt2: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    answers = [" ".join(draw.sample(WORDS[60:], 6)) for _ in range(80)]
    rows = [{"instruction": f"word{n}", "output": answer} for n, answer in enumerate(answers)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given_ = {"model": str(gpt2), "data": str(data), "method": "full", "train": QUICK}
    run = tunesmith.finetune(given_ | {"task": "causal-lm"}, run=tmp_path / "written")
    worst = json.loads(run.report.read_text())["mistakes"]
    likeness = [one["rouge_l"] for one in worst]
    assert likeness == sorted(likeness)
    assert set(worst[0]) == {"id", "source", "said", "truth", "rouge_l"}
    assert "share least with their targets" in run.page.read_text()
    other = tunesmith.finetune(given_ | {"task": {"name": "causal-lm", "written": 0}}, run=tmp_path / "not")
    worst = json.loads(other.report.read_text())["mistakes"]
    assert [one["perplexity"] for one in worst] == sorted((one["perplexity"] for one in worst), reverse=True)
    assert worst[0]["text"] in answers
    assert worst[0]["tokens"] == 7  # with what ends it
    assert "The texts that it expected least" in other.page.read_text()


def test_plain_text_is_learned_whole_and_its_own_head_is_what_retention_measures(gpt2: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    for name, known in (("corpus", WORDS[:100]), ("other", WORDS[100:])):
        lines = [json.dumps({"text": " ".join(draw.choices(known, k=20))}) for _ in range(100)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    given_ = {
        "task": "causal-lm", "model": str(gpt2), "data": str(tmp_path / "corpus.jsonl"), "method": "full",
        "train": QUICK | {"epochs": 3},
        "evaluate": {"retention": [{"name": "other", "data": str(tmp_path / "other.jsonl"), "rows": 50}]},
    }  # fmt: skip
    run = tunesmith.finetune(given_, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert report["problem"] == "text"
    assert "learned" not in report
    assert report["metrics"]["test"]["perplexity"]["value"] < report["baselines"]["before"]["perplexity"]["value"]
    (kept,) = report["retention"]
    assert kept["metric"] == "perplexity"
    # What the saved model itself says of the other text: its head is tied to embeddings that have trained.
    again = tunesmith.load(run.folder)
    task = CausalLm(CausalLm.Settings())
    rows = task.load_data(parsed.DataSettings(train=str(tmp_path / "other.jsonl")), tmp_path / "rows", 0).splits["test"]
    measured = again.evaluate(str(tmp_path / "other.jsonl"))
    assert rows.num_rows
    assert measured["metrics"]["test"]["perplexity"]["value"] > 1
    assert kept["after"]["value"] == pytest.approx(measured["metrics"]["test"]["perplexity"]["value"], rel=0.3)


def test_logits_are_given_only_where_they_are_asked_for_and_are_the_same(gpt2: Path, tmp_path: Path) -> None:
    ready = ready_of(gpt2, write_prompts(tmp_path / "rows.jsonl"), tmp_path)
    rows = np.arange(5)
    batch = ready.task.inputs(ready.train, rows, ready.model)
    module = ready.model.module.eval()
    few = module(**batch).logits
    places = batch.pop("places")
    every = module(**batch).logits
    assert few.shape == (len(places), every.shape[-1])
    torch.testing.assert_close(few, every.flatten(0, 1)[places])
    assert module(**batch).logits.shape == every.shape  # nothing stays behind


def test_a_head_that_is_tied_stays_tied_and_a_probe_unties_it(gpt2: Path, tmp_path: Path) -> None:
    data = write_prompts(tmp_path / "rows.jsonl")
    for method, tied in (("full", True), ("lora", True), ("probe", False)):
        given_ = {"task": "causal-lm", "model": str(gpt2), "data": str(data), "method": method, "train": QUICK}
        run = tunesmith.finetune(given_, run=tmp_path / method)
        model = transformers.AutoModelForCausalLM.from_pretrained(run.model)
        assert (model.lm_head.weight is model.transformer.wte.weight) == tied
        assert model.config.tie_word_embeddings == tied


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_rows_cut_any_way_give_the_same_gradients(gpt2: Path, tmp_path: Path, packed: bool) -> None:
    ready = ready_of(gpt2, write_prompts(tmp_path / "rows.jsonl"), tmp_path, pack=packed)
    examples = ready.task.packed(ready.train, 64) if packed else ready.train
    plan, module, rows = ready.frontier.candidates[0], ready.model.module, np.arange(11)
    apply_phase(module, ready.model.stages, plan.phases[-1])
    set_dropout(module, 0.0)
    found = []
    for tokens in (10_000, 40, 1):
        shape = dataclasses.replace(plan.batch, micro_batch_tokens=tokens)
        adamw = optimiser.build(module, ready.model.stages, plan.phases[-1])
        given_ = Batched(examples, partial(ready.task.inputs, examples, model=ready.model))
        one = Stepper(ready.task, ready.model, given_, adamw, dataclasses.replace(plan, batch=shape), seed=0, steps=10)
        loss = float(one._backward(rows, rows, 0))
        found.append((loss, {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}))
        adamw.zero_grad()
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(gradients, found[0][1], atol=1e-5, rtol=1e-4)


def test_the_plan_shows_what_is_learned_of_a_row(
    gpt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_prompts(tmp_path / "rows.jsonl")
    found = tunesmith.plan(
        {"task": "causal-lm", "model": str(gpt2), "data": str(data), "method": "full", "train": QUICK}
    )
    tokens = found["learned"][0]["tokens"]
    assert tokens[-1] == ["[SEP]", True]
    assert not tokens[0][1]
    console.show_plan(found)
    assert "learned  '" in capsys.readouterr().out


def test_a_prompt_that_is_too_long_is_gone_on_from_its_end_whatever_becomes_of_training_rows(
    gpt2: Path, tmp_path: Path
) -> None:
    data = write_prompts(tmp_path / "rows.jsonl")
    given_ = {
        "task": {"name": "causal-lm", "too_long": "leave-out", "max_length": 24, "max_new_tokens": 4},
        "model": str(gpt2), "data": str(data), "method": "full", "train": QUICK,
        "evaluate": {"baselines": ["majority", "scratch"]},
    }  # fmt: skip
    run = tunesmith.finetune(given_, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    assert set(report["baselines"]) == {"frequencies", "before", "scratch"}
    predictor = tunesmith.load(run.folder)
    with pytest.warns(CutWarning, match="cut at the start of the prompt"):
        (long,) = predictor.predict([" ".join(WORDS[:90])])
    (short,) = predictor.predict([" ".join(WORDS[70:90])])
    assert long["prediction"] == short["prediction"]


def test_an_instruction_without_what_it_is_about_can_be_given_by_itself(gpt2: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [{"instruction": " ".join(draw.sample(WORDS, 4)), "input": "", "output": "word1 word2"} for _ in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given_ = {
        "task": {"name": "causal-lm", "written": 0, "max_new_tokens": 4}, "model": str(gpt2),
        "data": str(tmp_path / "rows.jsonl"), "method": "full", "train": QUICK,
    }  # fmt: skip
    run = tunesmith.finetune(given_, run=tmp_path / "run").folder
    (alone,) = predict.predict_inputs(run, ["word3 word4"], [])
    (paired,) = predict.predict_inputs(run, ["word3 word4", ""], [])
    (about,) = tunesmith.load(run).predict([("word3 word4", "word5")])
    assert alone["prediction"] == paired["prediction"]
    assert about["prediction"] is not None
    lines = predict.predict_inputs(run, ["-"], ["word3 word4\n", "\n"])
    assert [one["prediction"] for one in lines] == [alone["prediction"], None]
    with pytest.raises(DataError, match="3 were given") as refused:
        predict.predict_inputs(run, ["word1", "word2", "word3"], [])
    assert "one or two texts" in str(refused.value.mend)


def test_predict_writes_for_every_row_also_where_an_answer_is_there_already(gpt2: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl", chats_of(60))
    task = {"name": "causal-lm", "written": 0, "max_new_tokens": 2, "chat_template": TEMPLATE}
    given_ = {"task": task, "model": str(gpt2), "data": str(data), "method": "full", "train": QUICK}
    run = tunesmith.finetune(given_, run=tmp_path / "run").folder
    found = predict.predict_inputs(run, [str(write_chats(tmp_path / "new.jsonl", chats_of(9)))], [])
    assert len(found) == 9
    assert all(one["prediction"] is not None for one in found)


def test_where_nothing_stands_before_the_answer_nothing_is_written_and_no_token_of_it_is_shown_as_prompt(
    gpt2: Path, tmp_path: Path
) -> None:
    """The template writes nothing before a chat that the assistant begins."""
    ready = ready_of(gpt2, write_chats(tmp_path / "chats.jsonl", chats_of(50)), tmp_path, chat_template=SPARE)
    chats = [[{"role": "assistant", "content": "word1 word2"}], talk("word3", "word4")]
    rows = pa.table({"id": ["a", "b"], "input": [json.dumps(chat) for chat in chats]})
    examples = ready.task.encode(rows, ready.model)
    assert not len(written_outcomes.before(examples, 0))
    said = ready.task.answered(ready.model, examples, np.zeros((2, 1)), "fp32")
    assert (said[:, 2] == written_outcomes.UNWRITTEN).tolist() == [True, False]
    assert [one["id"] for one in ready.task.samples(rows, examples, {"after": said}, ready.model)] == ["b"]
    raw, tried = ready.task.tried(rows, ready.model)
    assert len(raw) == len(tried) == 2


def test_answers_leave_room_for_the_prompt_and_what_is_cut_of_it_is_told(gpt2: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = [
        {"prompt": " ".join(draw.sample(WORDS, 40)), "completion": " ".join(draw.sample(WORDS, 20))} for _ in range(60)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {"name": "causal-lm", "max_length": 64, "written": 5}
    given_ = {"task": task, "model": str(gpt2), "data": str(tmp_path / "rows.jsonl"), "method": "full", "train": QUICK}
    run = tunesmith.finetune(given_, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    most = report["writing"]["max_new_tokens"]
    room = 64 - most
    assert most == 21  # 20 words and the end
    assert report["writing"]["prompts_cut"] == 0
    ready = ready_of(gpt2, tmp_path / "rows.jsonl", tmp_path / "less", max_length=36)
    assert ready.model.module.generation_config.max_new_tokens == 18  # half
    assert f"cuts inputs longer than {room} tokens" in (run.model / "README.md").read_text()
    write = transformers.pipeline("text-generation", model=str(run.model))
    long = " ".join(WORDS[:90])
    with pytest.warns(CutWarning, match=rf"longer than {room:,} tokens"):
        (said,) = tunesmith.load(run.folder).predict([long])
    (public,) = write(long, do_sample=False, return_full_text=False, handle_long_generation="hole")
    assert public["generated_text"].split() == said["prediction"].split()
    with pytest.raises(SettingsError, match="nothing of a prompt could be read"):
        ready_of(gpt2, tmp_path / "rows.jsonl", tmp_path / "none", max_new_tokens=64)


@pytest.fixture(scope="module")
def blanks() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer as Llama 2 has it: of each text that it is given by itself the first word gets a blank before it."""
    letters = ["<unk>", "</s>", "\u2581", ":", "\n", *"abcdefgh"]
    merges = [("\u2581", letter) for letter in "abcdefgh"]
    vocabulary = {token: place for place, token in enumerate([*letters, *map("".join, merges)])}
    core = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>"))
    normal = tokenizers.normalizers
    core.normalizer = normal.Sequence([normal.Prepend("\u2581"), normal.Replace(" ", "\u2581")])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")


@pytest.mark.parametrize(
    ("prompt", "answer", "tokens", "learned"),
    [
        ("a b:\n", "c d</s>", "\u2581a \u2581b : \n c \u2581d </s>", "c \u2581d </s>"),  # no blank of its own
        ("a:", " b</s>", "\u2581a : \u2581b </s>", "\u2581b </s>"),
        ("a: ", "b</s>", "\u2581a : \u2581 \u2581b </s>", "\u2581b </s>"),  # one token would reach into the answer
    ],
)
def test_a_row_has_the_tokens_of_its_whole_text_where_the_prompt_keeps_its_own(
    blanks: transformers.PreTrainedTokenizerFast, prompt: str, answer: str, tokens: str, learned: str
) -> None:
    row = [Part(prompt, told=False), Part(answer, told=True)]
    found = dialogues.dialogue(blanks, [row], Shape(64, starts=False), None)
    assert [" ".join(one) for one in told(found, blanks)] == [tokens, learned]
    asked = dialogues.dialogue(blanks, [row[:1]], Shape(64, starts=False), None)
    assert found.ids[: found.begins[0]].tolist() == asked.ids.tolist()  # what predict gives the network
