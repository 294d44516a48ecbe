"""Preferences as files have them: texts, turns, whole chats; rows that say nothing are set aside, and said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from tunesmith.data.load import Dataset
from tunesmith.errors import DataError
from tunesmith.settings import DataSettings
from tunesmith.tasks.preference import Preference

ROWS = 20


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def reply(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(source: Path, folder: Path, **more: Any) -> Dataset:
    task = Preference(Preference.Settings(**more.pop("task", {})))
    return task.load_data(DataSettings(train=str(source), **more), folder / "cache", 0)


def first(found: Dataset) -> tuple[Any, ...]:
    """Prompt and answers of the row that was written first; turns where they are turns."""
    rows = [row for split in found.splits.values() for row in split.to_pylist()]
    row = min(rows, key=lambda one: one["line"])
    cells = [row[name] for name in ("input", "chosen", "rejected")]
    return tuple(json.loads(cell) if found.problem == "chat" else cell for cell in cells)


TEXTS = {"prompt": "Why {}?", "chosen": " Because {}.", "rejected": " No {}."}


def texts(rows: int = ROWS) -> list[dict[str, Any]]:
    return [{name: text.format(f"word{number}") for name, text in TEXTS.items()} for number in range(rows)]


def test_texts_are_read_as_they_stand(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.jsonl", texts()), tmp_path)
    assert found.problem == "completion"
    assert first(found) == ("Why word0?", " Because word0.", " No word0.")
    assert found.columns.inputs == ("prompt",)
    assert found.columns.targets == ("chosen", "rejected")
    assert found.audit["columns"]["inputs"] == ["prompt"]
    assert found.audit["columns"]["targets"] == ["chosen", "rejected"]
    assert any("task.problem=completion" in guess for guess in found.columns.guesses)


def test_a_column_of_just_the_name_is_read_before_one_that_is_nearly_called_so(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.jsonl", [row | {"Chosen ": "other"} for row in texts()]), tmp_path)
    assert found.columns.targets == ("chosen", "rejected")
    assert first(found)[1] == " Because word0."


def test_questions_and_instructions_go_into_a_template(tmp_path: Path) -> None:
    rows = [{"question": row.pop("prompt"), **row} for row in texts()]
    assert read(written(tmp_path / "a.jsonl", rows), tmp_path).problem == "instruction"


FORMS: dict[str, dict[str, Any]] = {
    "lists": {"prompt": [user("Why {}?")], "chosen": [reply("yes")], "rejected": [reply("no")]},
    "whole chats": {"chosen": [user("Why {}?"), reply("yes")], "rejected": [user("Why {}?"), reply("no")]},
    "a text beside whole chats": {
        "prompt": "Why {}?", "chosen": [user("Why {}?"), reply("yes")], "rejected": [user("Why {}?"), reply("no")],
    },
    "a prompt again in both": {
        "prompt": [user("Why {}?")], "chosen": [user("Why {}?"), reply("yes")], "rejected": [user("Why {}?"), reply("no")],
    },
    "turns beside texts": {"prompt": [user("Why {}?")], "chosen": [reply("yes")], "rejected": "no"},
    "other names for roles": {
        "prompt": [{"from": "human", "value": "Why {}?"}], "chosen": [{"from": "gpt", "value": "yes"}],
        "rejected": [{"from": "gpt", "value": "no"}],
    },
    "a turn after the answer": {
        "prompt": [user("Why {}?")], "chosen": [reply("yes"), user("Thanks")], "rejected": [reply("no")],
    },
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_chats_are_read_however_they_are_written_down(tmp_path: Path, form: str) -> None:
    rows = [json.loads(json.dumps(FORMS[form]).replace("{}", str(number))) for number in range(ROWS)]
    found = read(written(tmp_path / "a.jsonl", rows), tmp_path)
    assert found.problem == "chat"
    assert first(found) == ([user("Why 0?")], [reply("yes")], [reply("no")])
    assert not found.rejected


def test_lists_in_csv_and_parquet_are_lists(tmp_path: Path) -> None:
    rows = [{"prompt": [user(f"Why {n}?")], "chosen": [reply("yes")], "rejected": [reply("no")]} for n in range(ROWS)]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert first(read(tmp_path / "a.parquet", tmp_path / "one")) == ([user("Why 0?")], [reply("yes")], [reply("no")])
    import pandas  # noqa: PLC0415

    pandas.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    assert first(read(tmp_path / "a.csv", tmp_path / "two")) == ([user("Why 0?")], [reply("yes")], [reply("no")])


def test_earlier_turns_that_both_have_are_the_prompt(tmp_path: Path) -> None:
    begin = [[user("Hello"), reply("Hi"), user(f"Why {n}?")] for n in range(ROWS)]
    rows = [{"chosen": [*one, reply("yes")], "rejected": [*one, reply("no")]} for one in begin]
    assert first(read(written(tmp_path / "a.jsonl", rows), tmp_path)) == (begin[0], [reply("yes")], [reply("no")])


def test_the_beginning_that_two_texts_share_is_the_prompt(tmp_path: Path) -> None:
    begin = [f"\n\nHuman: Why {n}?\n\nAssistant: So.\n\nHuman: And?\n\nAssistant:" for n in range(ROWS)]
    rows = [{"chosen": f"{one} That is it.", "rejected": f"{one} That was not."} for one in begin]
    found = read(written(tmp_path / "a.jsonl", rows), tmp_path)
    assert first(found) == (begin[0], " That is it.", " That was not.")
    plain = [{"chosen": f"{n} upon a times there was", "rejected": f"{n} upon a timeless sea"} for n in range(ROWS)]
    found = read(written(tmp_path / "b.jsonl", plain), tmp_path / "b")
    assert first(found) == ("0 upon a", " times there was", " timeless sea")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"chosen": " No word0."}, "the chosen answer again in 'rejected'"),
    ({"chosen": ""}, "empty text in 'chosen'"),
    ({"rejected": " \n"}, "empty text in 'rejected'"),
    ({"rejected": None}, "no text in 'rejected'"),
    ({"chosen": 3}, "not text in 'chosen'"),
    ({"prompt": None}, "no text in 'prompt'"),
    ({"prompt": ""}, "empty text in 'prompt'"),
    ({"chosen": "a\x00b"}, "NUL character in 'chosen'"),
]
BAD_CHATS: list[tuple[dict[str, Any], str]] = [
    ({"chosen": [reply("no")]}, "the chosen answer again in 'rejected'"),
    ({"chosen": []}, "chat without a turn in 'chosen'"),
    ({"chosen": [user("what?")]}, "no turn of the assistant in 'chosen'"),
    ({"rejected": [reply("")]}, "empty text in a turn of the assistant in 'rejected'"),
    ({"rejected": [{"role": "wizard", "content": "no"}]}, "turn of the unknown role 'wizard' in 'rejected'"),
    ({"rejected": [{"role": "tool", "content": "no"}]}, "turn of a tool, which is not read here in 'rejected'"),
    ({"rejected": [user("or?"), reply("no")]}, "turn of the user where the answer should be in 'rejected'"),
    ({"prompt": []}, "chat without a turn in 'prompt'"),
    ({"prompt": 7}, "no chat in 'prompt'"),
    (
        {"prompt": None, "chosen": [user("a"), reply("b")], "rejected": [user("c"), reply("d")]},
        "no chat in 'prompt'",
    ),
]


@pytest.mark.parametrize(("change", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_texts_that_cannot_be_used_are_set_aside_with_the_reason(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    rows = texts(ROWS + 1)
    rows[0] |= change
    found = read(written(tmp_path / "a.jsonl", rows), tmp_path, max_rejected=0.5)
    assert [row.reason for row in found.rejected] == [reason]


@pytest.mark.parametrize(("change", "reason"), BAD_CHATS, ids=[reason for _, reason in BAD_CHATS])
def test_chats_that_cannot_be_used_are_set_aside_with_the_reason(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    rows = [{"prompt": [user(f"{n}?")], "chosen": [reply("yes")], "rejected": [reply("no")]} for n in range(ROWS + 1)]
    rows[0] |= change
    found = read(written(tmp_path / "a.jsonl", rows), tmp_path, max_rejected=0.5)
    assert [row.reason for row in found.rejected] == [reason]


def test_answers_without_a_common_beginning_are_set_aside(tmp_path: Path) -> None:
    rows = [{"chosen": f"{n} times yes", "rejected": f"{n} times no"} for n in range(ROWS)]
    rows[0] = {"chosen": "One", "rejected": "Another"}
    found = read(written(tmp_path / "a.jsonl", rows), tmp_path, max_rejected=0.5)
    assert "no beginning that both answers share" in found.rejected[0].reason
    chats = [{"chosen": [user(f"{n}"), reply("yes")], "rejected": [user(f"{n}"), reply("no")]} for n in range(ROWS)]
    chats[0] = {"chosen": [user("a"), reply("yes")], "rejected": [user("b"), reply("no")]}
    found = read(written(tmp_path / "b.jsonl", chats), tmp_path / "b", max_rejected=0.5)
    assert "no turn that both answers begin with" in found.rejected[0].reason


def test_columns_that_are_not_there_are_asked_for_by_name(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "better": "b", "worse": "c"} for _ in range(ROWS)]
    source = written(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=r"which columns of .* are the prompt, the chosen and the rejected") as caught:
        read(source, tmp_path)
    assert "[prompt, chosen, rejected]. Columns: prompt, better, worse." in str(caught.value)
    rows = [{"prompt": f"a {n}", "better": "b", "worse": "c"} for n in range(ROWS)]
    found = read(written(source, rows), tmp_path, input=["prompt", "better", "worse"])
    assert first(found) == ("a 0", "b", "c")
    with pytest.raises(DataError, match="only 'prompt' is read"):
        read(source, tmp_path, input="prompt")
    with pytest.raises(DataError, match="no column 'wors'; did you mean 'worse'"):
        read(source, tmp_path, input=["prompt", "better", "wors"])


def test_all_answers_to_one_prompt_stay_in_one_split(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [user(f"What is it about number {n // 3}?")],
            "chosen": [reply(f"yes {n}")],
            "rejected": [reply("no")],
        }
        for n in range(90)
    ]
    found = read(written(tmp_path / "a.jsonl", rows), tmp_path)
    prompts = [set(rows.column("input").to_pylist()) for rows in found.splits.values()]
    assert not prompts[0] & prompts[1]
    assert not (prompts[0] | prompts[1]) & prompts[2]
    assert found.audit["duplicates"]["exact"] == 0
    assert found.audit["duplicates"]["near"] >= 60


def test_it_is_said_where_the_length_alone_tells_the_answers(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.jsonl", texts()), tmp_path)
    assert found.audit["pairs"]["train"]["chosen_longer"] == 1
    assert any(
        "In 100 % of the training pairs the chosen answer is the longer" in one for one in found.audit["warnings"]
    )
    rows = texts()
    for row in rows[::2]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    found = read(written(tmp_path / "b.jsonl", rows), tmp_path / "b")
    assert not any("length" in one for one in found.audit["warnings"])
    assert np.isclose(found.audit["pairs"]["train"]["characters"]["chosen"], 12, atol=8)
