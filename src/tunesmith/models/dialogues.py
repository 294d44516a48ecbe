"""Text of which some parts are learned, to tokens: prompts with answers, and chats as a template writes them.

A row has the tokens of its whole text, as other programs make them of what a template writes, wherever those before an
answer are those that the network is given when it is to write it. Where a token reaches from the prompt into the answer they
are not, and the parts are tokenised one by one.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np
import numpy.typing as npt

from tunesmith.data.asked import NOTHING
from tunesmith.data.cells.chats import ASSISTANT, TOOL, Turns
from tunesmith.data.dialogue import Dialogue
from tunesmith.errors import DataError, ModelError

CHUNK = 1_000
"""Rows given to the tokenizer at once."""
SENTINEL = "THE ANSWER STANDS HERE"
"""Stands for the words of a turn, to find what a template writes around them."""
KEPT = 4
"""Of a prompt that is too long together with its answer at least this part of the limit is kept."""
TooLong = Literal["cut-prompt", "cut-answer", "leave-out"]


class Part(NamedTuple):
    """A stretch of a row's text."""

    text: str
    told: bool
    """Whether the network is to tell it."""


@dataclass(frozen=True)
class Shape:
    """How rows become sequences."""

    limit: int
    """Tokens of a row, at most."""
    too_long: TooLong = "cut-prompt"
    open: int | None = None
    """The same of rows of which nothing is told, as something is to be written after them; None for as many."""
    starts: bool = True
    """Whether the marks that the tokenizer puts before a text stand before each row; templates write their own."""
    sides: int = 1
    """So many rows in turn are answers to one prompt, which is cut alike in all of them."""


class _Row(NamedTuple):
    """Tokens of one row; those that are to be told."""

    ids: npt.NDArray[np.int32]
    told: npt.NDArray[np.bool_]


def dialogue(
    tokenizer: Any, rows: Iterable[Sequence[Part]], shape: Shape, references: Sequence[Sequence[str]] | None
) -> Dialogue:
    """Each row as one piece, with the tokens of its told parts asked for, each at the place before it; a row of which no told
    token is left within the limit has none.

    Args:
        rows: the parts of each, in their order; the end-of-text token closes those that are told where `ended` put it there.
        references: (rows,) what could be written as the last told part.

    Raises:
        ModelError: the tokenizer has no fast core, or the limit leaves no room.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} is a slow tokenizer.", "Take a model with a tokenizer.json.")
    lead = marks(tokenizer)[0] if shape.starts else []
    ids: list[npt.NDArray[np.int32]] = []
    wanted: list[npt.NDArray[np.int32]] = []
    owner, begins, cut = [], [], []
    for number, (row, start) in enumerate(_started(_tokenised(tokenizer, rows, lead), shape)):
        kept, lost = _cut(row, start, shape, tokenizer.bos_token_id)
        cut.append(lost)
        if row.told.any() and not kept.told[1:].any():
            continue
        asked = np.full(len(kept.ids), NOTHING, dtype=np.int32)
        asked[:-1][kept.told[1:]] = kept.ids[1:][kept.told[1:]]
        ids.append(kept.ids)
        wanted.append(asked)
        begins.append(_last_answer(kept.told))
        owner.append(number)
    lengths = np.array([len(one) for one in ids], dtype=np.int64)
    sides = np.array(cut, dtype=np.int64).reshape(-1, 2)
    return Dialogue(
        ids=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
        kinds=None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        owner=np.array(owner, dtype=np.int64),
        targets=None,
        lost=sides.sum(axis=1),
        wanted=np.concatenate(wanted) if wanted else np.zeros(0, dtype=np.int32),
        scale=np.ones(len(ids), dtype=np.float32),
        begins=np.array(begins, dtype=np.int64),
        cut=sides,
        references=references,
    )


def marks(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that stand before each text, and those after it."""
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    whole, bare = core.encode("a").ids, core.encode("a", add_special_tokens=False).ids
    first = next((place for place in range(len(whole)) if whole[place : place + len(bare)] == bare), 0)
    return whole[:first], whole[first + len(bare) :]


def ended(parts: Sequence[Part], tokenizer: Any, source: str) -> list[Part]:
    """`parts`, the last of which is told, closed by the end-of-text token, which is learned too.

    Raises:
        ModelError: the tokenizer has none, so that nothing could say where an answer ends.
    """
    if tokenizer.eos_token is None:
        raise ModelError(
            f"The tokenizer of {source} has no end-of-text token (eos_token): nothing could say where an answer ends.",
            "Set eos_token in its tokenizer_config.json.",
        )
    return [*parts, Part(tokenizer.eos_token, told=True)]


def chat_parts(turns: Turns, tokenizer: Any, source: str, first: int = 0) -> list[Part]:
    """A chat as the tokenizer's template writes it, the turns of the assistant told, with what closes them where a special
    token stands in it. What stands in the answer itself, of the kind of <think>, ends nothing.

    Args:
        first: the turn from which on they are.

    Raises:
        DataError: the template refuses the chat, leaves out what a tool says, or writes earlier turns otherwise once later
            ones follow.
    """
    insist_on_tools(turns, tokenizer, source)
    whole = written(turns, tokenizer)
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    parts: list[Part] = []
    done, closed = 0, True
    for number, turn in enumerate(turns):
        if turn["role"] != ASSISTANT or number < first:
            continue
        after = written(turns[: number + 1], tokenizer)
        # Templates write no chat without a turn: of one that the assistant begins, what precedes its words is its opening.
        opening, _, closing = written([*turns[:number], {**turn, "content": SENTINEL}], tokenizer).partition(SENTINEL)
        before = written(turns[:number], tokenizer, open_=True) if number else opening
        if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
            raise DataError(
                f"The chat template of {source} writes earlier turns otherwise once later ones follow, so that it cannot be "
                f"told which tokens are an answer; the chat begins with {turns[0]['content'][:40]!r}.",
                "Set task.chat_template to one that writes each turn the same way wherever it stands.",
            )
        if done < len(before):
            parts.append(Part(whole[done : len(before)], told=False))
        closing = closing if after.endswith(closing) else ""
        closed = any(mark in closing for mark in special)
        end = len(after) if closed else len(after) - len(closing)  # many tokens, none of which could end an answer
        parts.append(Part(whole[len(before) : end], told=True))
        if end < len(after):
            parts.append(Part(closing, told=False))
        done = len(after)
    if parts and done == len(whole):
        parts = parts if parts[-1].told else parts[:-1]  # nothing follows that a closing would part it from
        if not closed:
            parts = ended(parts, tokenizer, source)
    if done < len(whole):
        parts.append(Part(whole[done:], told=False))
    return parts


def insist_on_tools(turns: Turns, tokenizer: Any, source: str) -> None:
    """Insist that the template writes what tools say: one that knows no tools passes their turns over without a word.

    Raises:
        DataError: it does not.
    """
    for number, turn in enumerate(turns):
        if turn["role"] != TOOL:
            continue
        marked = [*turns[:number], {**turn, "content": SENTINEL}, *turns[number + 1 :]]
        if SENTINEL not in written(marked, tokenizer):
            raise DataError(
                f"The chat template of {source} leaves out what a tool says: {turn['content'][:40]!r}.",
                "Set task.chat_template to one that knows the role tool, such as chatml.",
            )


def written(turns: Turns, tokenizer: Any, *, open_: bool = False) -> str:
    """The chat as the template of `tokenizer` writes it; `open_` for one that the assistant is to go on with.

    Raises:
        DataError: the template refuses it.
    """
    try:
        found: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_)
    except jinja2.TemplateError as error:
        raise DataError(
            f"The chat template refuses the chat that begins with {turns[0]['content'][:40]!r}: {error}.",
            "Mend the chat or take it out, or set task.chat_template to one that takes it.",
        ) from error
    return found


def insist_on_template(tokenizer: Any, source: str) -> None:
    """Raise ModelError where `tokenizer` has no chat template."""
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {source} has no chat template, so that it is not known how it writes a chat.",
            "Set task.chat_template: chatml, or a file with a Jinja template.",
        )


TURN_END = "<|im_end|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chatml(tokenizer: Any) -> str:
    """ChatML; with the tokenizer's end of text at the end of each turn, where it knows no <|im_end|>: as several tokens, this
    could end nothing."""
    known = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    return CHATML if TURN_END in known or not tokenizer.eos_token else CHATML.replace(TURN_END, tokenizer.eos_token)


def loaded_turns(chat: str) -> Turns:
    """The turns of a chat as cells keep it."""
    turns: Turns = json.loads(chat)
    return turns


def stops(tokenizer: Any, config: Any, *, templated: bool) -> list[int]:
    """The tokens at which an answer ends: the end of the text, and what the template closes a turn of the assistant with."""
    known = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    found = {*known, tokenizer.eos_token_id}
    if templated:
        turns = [{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": SENTINEL}]
        closing = written(turns, tokenizer).rpartition(SENTINEL)[2]
        ids = tokenizer.backend_tokenizer.encode(closing, add_special_tokens=False).ids if closing else []
        special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
        found.update(next(([one] for one in ids if one in special), []))
    return sorted(one for one in found if one is not None)


def _tokenised(tokenizer: Any, rows: Iterable[Sequence[Part]], lead: list[int]) -> Iterator[_Row]:
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    core.no_padding()
    given = iter(rows)
    while block := list(itertools.islice(given, CHUNK)):
        flat = [part.text for parts in block for part in parts]
        encoded = iter(core.encode_batch_fast(flat, add_special_tokens=False))
        texts = ["".join(part.text for part in parts) for parts in block]
        whole = core.encode_batch_fast(texts, add_special_tokens=False)
        for parts, text, one in zip(block, texts, whole, strict=True):
            found = [(next(encoded).ids, part.told) for part in parts]
            ids = list(itertools.chain.from_iterable(own for own, _ in found))
            told = list(itertools.chain.from_iterable([told] * len(own) for own, told in found))
            if ids != one.ids and (asked := _told_of_whole(core, parts, text)) is not None:
                ids, told = one.ids, asked
            ids, told = [*lead, *ids], [*([False] * len(lead)), *told]
            if not ids:  # only characters that the tokenizer drops
                ids, told = [tokenizer.eos_token_id or 0], [any(part.told for part in parts)]
            yield _Row(np.array(ids, dtype=np.int32), np.array(told, dtype=bool))


def _told_of_whole(core: Any, parts: Sequence[Part], text: str) -> list[bool] | None:
    """Which tokens of the whole text are told; None where the network would be given others before an answer."""
    found = core.encode(text, add_special_tokens=False)
    ends = np.cumsum([len(part.text) for part in parts])
    starts = np.array([start for start, _ in found.offsets], dtype=np.int64)
    place = np.minimum(np.searchsorted(ends, starts, side="right"), len(parts) - 1)
    for number, part in enumerate(parts):
        if number and part.told and not parts[number - 1].told:
            before = core.encode(text[: ends[number - 1]], add_special_tokens=False).ids
            if before != found.ids[: int((place < number).sum())]:
                return None
    return [parts[one].told for one in place]


def _last_answer(told: npt.NDArray[np.bool_]) -> int:
    """The place at which the last told stretch begins; the length where there is none."""
    if not told.any():
        return len(told)
    last = int(np.flatnonzero(told)[-1])
    before = np.flatnonzero(~told[:last])
    return int(before[-1]) + 1 if len(before) else 0


def _started(rows: Iterator[_Row], shape: Shape) -> Iterator[tuple[_Row, int]]:
    """Each row with the token at which what is kept of it begins."""
    for group in zip(*[rows] * shape.sides, strict=True):
        starts = [_start(row, shape) for row in group]
        for row, start in zip(group, starts, strict=True):
            prompt = int(row.told.argmax())
            yield row, max(start, min(max(starts), prompt - min(prompt, shape.limit // KEPT)))


def _start(row: _Row, shape: Shape) -> int:
    """How many tokens are to be cut from the start of `row` alone."""
    whole, limit = len(row.ids), _limit(row, shape)
    # Of what is to be gone on from the end is needed, whatever is said of answers.
    if whole <= limit or (row.told.any() and shape.too_long != "cut-prompt"):
        return 0
    begins = _last_answer(row.told)
    return max(0, min(whole - limit, begins - min(begins, limit // KEPT)))


def _limit(row: _Row, shape: Shape) -> int:
    return shape.limit if row.told.any() or shape.open is None else shape.open


def _cut(row: _Row, start: int, shape: Shape, bos: int | None) -> tuple[_Row, tuple[int, int]]:
    """`row` from `start` on in at most as many tokens as it may have, none where it is left out; and how many were cut from
    its start and its end."""
    whole, limit = len(row.ids), _limit(row, shape)
    if whole > limit and row.told.any() and shape.too_long == "leave-out":
        return _Row(row.ids[:0], row.told[:0]), (0, whole)
    end = min(whole, start + limit)
    if start and limit > 1 and row.ids[0] == bos:  # what begins every text stays where it is
        start += 1
        kept = np.concatenate([[0], np.arange(start, end)])
        return _Row(row.ids[kept], row.told[kept]), (start - 1, whole - end)
    return _Row(row.ids[start:end], row.told[start:end]), (start, whole - end)
