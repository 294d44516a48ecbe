"""How rows with prompts and answers, and chats, become parts of a text, some of which are learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pyarrow as pa
from pydantic import Field

from tunesmith.data.cells import Cells
from tunesmith.data.cells.chats import ASSISTANT, CHATS, QUESTIONS, USER, Turns
from tunesmith.data.cells.preferences import ANSWERS
from tunesmith.data.cells.prompts import PROMPTS
from tunesmith.data.cells.text import ONE_TEXT
from tunesmith.errors import DataError, SettingsError
from tunesmith.models.dialogues import (
    Part,
    TooLong,
    chat_parts,
    chatml,
    ended,
    insist_on_template,
    insist_on_tools,
    loaded_turns,
    written,
)
from tunesmith.run import path_of
from tunesmith.settings import Auto
from tunesmith.tasks.language import LanguageSettings

Made = TypeVar("Made")
Problem = Literal["text", "completion", "instruction", "chat"]
CHATML_NAME = "chatml"


class WritingSettings(LanguageSettings):
    """Settings of tasks whose network writes answers."""

    chat_template: str | None = None
    """The template that chats are written with: `chatml`, a file, or the Jinja template itself; absent, the tokenizer's
    own."""
    too_long: TooLong = "cut-prompt"
    """What becomes of rows of more than `max_length` tokens: the start of the prompt is cut, or the end of the answer, or
    the row is left out."""
    max_new_tokens: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Tokens of an answer that is written, at most; by the lengths of the training answers when it is `auto`."""


READS: dict[str, Cells] = {"text": ONE_TEXT, "completion": PROMPTS, "instruction": PROMPTS, "chat": QUESTIONS}
"""What a row of each is."""
LEARNS: dict[str, Cells] = READS | {"chat": CHATS}
"""The same where it is to be learned from."""
ABOUT = "### Instruction:\n{prompt}\n\n### Input:\n{input}\n\n### Response:\n"
ALONE = "### Instruction:\n{prompt}\n\n### Response:\n"
NOTHING_LEFT = [Part("", told=True)]
"""The parts of a row that the template refuses: as what is told of it has no tokens, the row is dropped."""


def told_by(columns: Sequence[str], target: str | None) -> Problem:
    """Which of them rows with these columns are.

    Args:
        target: the column that the user names as what is to be written.
    """
    folded = {str(name).strip().casefold() for name in columns}
    if not folded.isdisjoint(CHATS.names) and target is None:
        return "chat"
    if {"prompt", "completion"} <= folded:
        return "completion"
    written_ = {"completion", "output", "response", "targets", "target", "answer", "summary", "answers", "references"}
    if target is not None or (not folded.isdisjoint(written_) and len(folded) > 1):
        return "instruction"
    return "text"


def template_for(tokenizer: Any, template: str) -> str:
    """What `template_of` found, as `tokenizer` can end a turn."""
    return chatml(tokenizer) if template == CHATML_NAME else template


def template_of(wanted: str) -> str:
    """The Jinja template that task.chat_template names: a file, or the template itself; "chatml" stays a name, as how its
    turns end is up to the tokenizer.

    Raises:
        SettingsError: there is no such file.
    """
    if wanted == CHATML_NAME or "{" in wanted:
        return wanted
    path = path_of(wanted)
    if not path.is_file():
        raise SettingsError(
            f"task.chat_template is {wanted!r}, and there is no such file.",
            "Give chatml, a file with a Jinja template, or the template itself.",
        )
    return Path(path).read_text(encoding="utf-8")


def parts_of(
    rows: pa.Table, problem: str, tokenizer: Any, source: str, refused: list[DataError]
) -> Iterator[list[Part]]:
    """The parts of each row: what comes before, and the answer, which is told; or what is to be gone on from alone.

    Args:
        refused: gets what is said against each row that the template refuses; of such a row nothing is left.
    """
    if problem == "chat":
        insist_on_template(tokenizer, source)
        for chat in rows.column("input").to_pylist():
            turns = loaded_turns(chat)
            parts = chat_parts if turns[-1]["role"] == ASSISTANT else _to_be_answered
            yield _unless_refused(refused, NOTHING_LEFT, parts, turns, tokenizer, source)
        return
    names = [name for name in ("input", "pair", "target") if name in rows.column_names]
    for row in rows.select(names).to_pylist():
        answer = row["target"]["texts"][0] if "target" in row else None
        asked = (row["input"], row.get("pair", ""), answer, problem)
        yield _unless_refused(refused, NOTHING_LEFT, prompted, *asked, tokenizer, source)


def _to_be_answered(turns: Turns, tokenizer: Any, source: str) -> list[Part]:
    insist_on_tools(turns, tokenizer, source)
    return [Part(written(turns, tokenizer, open_=True), told=False)]


def _unless_refused(refused: list[DataError], nothing: Made, made: Callable[..., Made], *given: Any) -> Made:
    """What is made of a row; where the template refuses it, what leaves nothing of the row."""
    try:
        return made(*given)
    except DataError as error:
        refused.append(error)
        return nothing


def insist_on_some(left: int, rows: int, refused: Sequence[DataError], why: str) -> None:
    """Insist that of `rows`, where there are any, something is left.

    Args:
        refused: what is said against each row that the template refuses.
        why: what became of the others.

    Raises:
        DataError: nothing is.
    """
    if left or not rows:
        return
    if len(refused) == rows:
        raise refused[0]
    also = f" The template refuses {len(refused):,} of them: {refused[0].what}" if refused else ""
    raise DataError(why + also, "Raise task.max_length, or set task.too_long=cut-prompt.")


def prompted(prompt: str, about: str, answer: str | None, problem: str, tokenizer: Any, source: str) -> list[Part]:
    """The parts of a row: the prompt, with what it is `about` where that is not empty, and the answer, where there is one.

    Args:
        problem: "completion", as both stand, or "instruction", in a template.
    """
    if problem == "instruction" and tokenizer.chat_template:
        turns = [{"role": USER, "content": f"{prompt}\n\n{about}" if about else prompt}]
        if answer is None:
            return _to_be_answered(turns, tokenizer, source)
        return chat_parts([*turns, {"role": ASSISTANT, "content": answer}], tokenizer, source)
    if problem == "instruction":
        before = (ABOUT if about else ALONE).format(prompt=prompt, input=about)
    else:
        before = prompt + (f"\n{about}\n" if about else "")
    if answer is None:
        return [Part(before, told=False)]
    return ended([Part(before, told=False), Part(answer, told=True)], tokenizer, source)


def sides_of(
    rows: pa.Table, problem: str, tokenizer: Any, source: str, refused: list[DataError]
) -> Iterator[list[Part]]:
    """Of each row the prompt with the chosen answer, then with the rejected one; only these are told.

    Args:
        refused: gets what is said against each row of which the template refuses a side; of such a row nothing is left.
    """
    if problem == "chat":
        insist_on_template(tokenizer, source)

    def side(prompt: str, answer: str) -> list[Part]:
        if problem != "chat":
            return prompted(prompt, "", answer, problem, tokenizer, source)
        before = loaded_turns(prompt)
        return chat_parts([*before, *loaded_turns(answer)], tokenizer, source, len(before))

    def sides(prompt: str, *answers: str) -> list[list[Part]]:
        return [side(prompt, answer) for answer in answers]

    nothing = [NOTHING_LEFT] * len(ANSWERS)
    for row in zip(*(rows.column(name).to_pylist() for name in ("input", *ANSWERS)), strict=True):
        yield from _unless_refused(refused, nothing, sides, *row)


def answers_of(rows: pa.Table, problem: str) -> list[list[str]] | None:
    """What could be written as the last answer of each row; None where rows have none."""
    if problem == "chat":
        turns = [loaded_turns(chat)[-1] for chat in rows.column("input").to_pylist()]
        if any(turn["role"] != ASSISTANT for turn in turns):
            return None
        return [[turn["content"]] for turn in turns]
    if "target" not in rows.column_names:
        return None
    return [target["texts"] for target in rows.column("target").to_pylist()]
