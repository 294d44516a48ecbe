"""What a language model wrote for rows, as it is kept: the loss of each row, then the tokens; and as people read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.contracts import Array
from tunesmith.data.asked import NOTHING
from tunesmith.data.dialogue import Dialogue
from tunesmith.metrics import written

LOSS, COUNT, FIRST = 0, 1, 2
"""The columns of an outcome: the loss of a row, the tokens that it is summed over, and from there on what is written."""
UNWRITTEN = -2
"""Stands where nobody let the network write."""
SAMPLES, LEARNED = 4, 3
"""Rows that the report shows, and"""
TOKENS = 400
"""tokens of each."""
CHARACTERS = 2_000
"""Of a text in the report, at most, and"""
REFERENCES = 3
"""of its targets."""
FEWEST = 5
"""Tokens by which it can be said that a text was not expected: of fewer the rarest word decides."""


def texts(outcomes: Array, tokenizer: Any) -> list[str | None]:
    """What is written for each row of `outcomes`, (rows, 2 + tokens); None where nothing is."""
    found: list[str | None] = []
    for row in outcomes[:, FIRST:].astype(np.int64):
        some = len(row) > 0 and row[0] != UNWRITTEN
        found.append(str(tokenizer.decode(row[row >= 0].tolist(), skip_special_tokens=True)) if some else None)
    return found


def before(examples: Dialogue, piece: int) -> Array:
    """The tokens of a piece that stand before its last answer; none where the answer is all that there is."""
    start = int(examples.offsets[piece])
    return examples.ids[start : start + int(examples.begins[piece])]


def after(examples: Dialogue, piece: int) -> Array:
    """The tokens of a piece from its last answer on."""
    return examples.ids[int(examples.offsets[piece]) + int(examples.begins[piece]) : int(examples.offsets[piece + 1])]


def least_alike(
    names: Sequence[Any], sources: Sequence[str], said: Sequence[str | None], known: Sequence[Sequence[str]], most: int
) -> list[dict[str, Any]]:
    """The rows whose text shares least with any of `known`, worst first: `id`, `source`, `said`, `truth`, `rouge_l`."""
    likeness = written.scored(said, known)[:, written.NAMES.index("rouge_l")]
    order = np.argsort(likeness, kind="stable").tolist()
    worst = [row for row in order if not np.isnan(likeness[row]) and likeness[row] < 1][:most]
    return [
        {
            "id": names[row],
            "source": sources[row][:CHARACTERS],
            "said": said[row],
            "truth": [text[:CHARACTERS] for text in known[row][:REFERENCES]],
            "rouge_l": float(likeness[row]),
        }
        for row in worst
    ]


def mistakes(rows: pa.Table, examples: Dialogue, outcomes: Array, tokenizer: Any, most: int) -> list[dict[str, Any]]:
    """The written rows that share least with their answers; where nothing was written to be held against answers, the rows
    that were expected least: `id`, `perplexity`, `tokens`, `prompt` and `text`."""
    names = rows.column("id").to_pylist()
    pieces = [examples.piece_of(row) for row in range(examples.rows)]
    if examples.references is not None and outcomes.shape[1] > FIRST and (outcomes[:, FIRST] != UNWRITTEN).any():
        read = [[] if one is None else before(examples, one)[-TOKENS:].tolist() for one in pieces]
        prompts = [tokenizer.decode(one, skip_special_tokens=True)[-CHARACTERS:] for one in read]
        return least_alike(names, prompts, texts(outcomes, tokenizer), examples.references, most)
    mean = outcomes[:, LOSS] / np.maximum(outcomes[:, COUNT], 1)
    found: list[dict[str, Any]] = []
    for row in np.argsort(-mean, kind="stable").tolist():
        piece = pieces[row]
        if piece is None or outcomes[row, COUNT] < FEWEST or len(found) == most:
            continue
        begins = int(examples.begins[piece]) if examples.references is not None else 0
        whole = examples.ids[int(examples.offsets[piece]) : int(examples.offsets[piece + 1])]
        prompt, text = (
            tokenizer.decode(one.tolist(), skip_special_tokens=True) for one in (whole[:begins], whole[begins:])
        )
        shown = {"perplexity": float(np.exp(mean[row])), "tokens": int(outcomes[row, COUNT])}
        found.append({"id": names[row], **shown, "prompt": prompt[-CHARACTERS:], "text": text[:CHARACTERS]})
    return found


def samples(rows: pa.Table, examples: Dialogue, said: Mapping[str, Array], tokenizer: Any) -> list[dict[str, Any]]:
    """The first rows for which all of `said` wrote: `id`, `prompt`, `truth`, and `said` by name."""
    told = {name: texts(found, tokenizer) for name, found in said.items()}
    shown = [row for row in range(examples.rows) if all(one[row] is not None for one in told.values())][:SAMPLES]
    names = rows.column("id").to_pylist()
    found = []
    for row in shown:
        piece = examples.piece_of(row)
        assert piece is not None  # or nothing would be written
        goes_on = tokenizer.decode(after(examples, piece)[:TOKENS].tolist(), skip_special_tokens=True)
        found.append(
            {
                "id": names[row],
                "prompt": tokenizer.decode(before(examples, piece)[-TOKENS:].tolist()),
                "truth": goes_on if examples.references is None else examples.references[row][0],
                "said": {name: one[row] for name, one in told.items()},
            }
        )
    return found


def learned(rows: pa.Table, examples: Dialogue, tokenizer: Any) -> list[dict[str, Any]]:
    """A few rows in their tokens, each with whether it is learned."""
    found = []
    for piece, row in enumerate(examples.owner[:LEARNED].tolist()):
        name = rows.slice(row, 1).column("id").to_pylist()[0]
        start, end = examples.offsets[piece], min(examples.offsets[piece + 1], examples.offsets[piece] + TOKENS)
        told = np.concatenate([[False], examples.wanted[start : end - 1] != NOTHING])
        tokens = [tokenizer.decode([token]) for token in examples.ids[start:end].tolist()]
        found.append({"id": name, "tokens": [[text, bool(one)] for text, one in zip(tokens, told, strict=True)]})
    return found


def predictions(
    rows: pa.Table, outcomes: Array, tokenizer: Any, references: Sequence[Sequence[str]] | None
) -> pa.Table:
    """`prediction`: what is written, null where nothing was; and where an answer is known `truth`, `loss`, the sum over its
    `tokens`."""
    columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
    columns["prediction"] = pa.array(texts(outcomes, tokenizer), pa.string())
    if outcomes[:, COUNT].any():
        columns |= {"loss": outcomes[:, LOSS], "tokens": outcomes[:, COUNT]}
    if references is not None:
        columns["truth"] = pa.array([list(one) for one in references], pa.list_(pa.string()))
    return pa.table(columns)
