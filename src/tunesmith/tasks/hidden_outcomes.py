"""What a masked language model says of rows, as it is kept: figures of each row, then its tokens; and as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tunesmith.contracts import Array, Indices, Model
from tunesmith.data.asked import NOTHING
from tunesmith.data.masked import Masked
from tunesmith.models.forward import outputs

LOSS, RIGHT, COUNT, FIRST = 0, 1, 2, 3
"""The columns of an outcome: the loss of a row over its hidden tokens, how many of them are told, how many there are; then
come the tokens of its first window, the hidden ones as they are told."""
NONE = -1
"""Stands after the last token."""
SAMPLES, LEARNED = 4, 3
"""Rows that the report shows, and"""
TOKENS = 400
"""tokens of each."""


def said(task: Any, model: Model, examples: Masked, precision: str) -> Array:
    """(rows, 1 + tokens): the columns from COUNT on, by one more forward pass of `task` over the first window of each row."""
    asking = examples.asking_all()
    rows, first = np.unique(examples.owner, return_index=True)
    lengths = examples.lengths[first]
    found = np.full((examples.rows, int(lengths.max(initial=0))), NONE, dtype=np.float64)

    def take(output: Any, _: Any, chosen: Indices) -> dict[str, torch.Tensor]:
        pieces = first[chosen]
        inside, source = asking.places(pieces)
        tokens = np.full(inside.shape, NONE, dtype=np.float32)
        tokens[inside] = asking.whole[source]
        tokens.flat[asking.asked_at(pieces)] = task.read(output).argmax(dim=-1).cpu().numpy()
        padded = np.full((len(chosen), found.shape[1]), NONE, dtype=np.float32)
        padded[:, : inside.shape[1]] = tokens
        return {"tokens": torch.from_numpy(padded)}

    if len(first):
        passed = outputs(
            model.module, lengths, lambda chosen: task.inputs(asking, first[chosen], model), take, precision
        )
        found[rows] = passed["tokens"]
    return np.concatenate([examples.by_row[:, None], found], axis=1)


def samples(rows: pa.Table, examples: Masked, said: Mapping[str, Array], tokenizer: Any) -> list[dict[str, Any]]:
    """The first rows with hidden words: `id`, `prompt` with masks, `truth`, and `said` by name, the hidden words alone."""
    names = rows.column("id").to_pylist()
    found = []
    for piece in np.flatnonzero(np.diff(examples.owner, prepend=-1)).tolist():
        start = int(examples.offsets[piece])
        inside = slice(start, min(int(examples.offsets[piece + 1]), start + TOKENS))
        hidden = examples.wanted[inside] != NOTHING
        if not hidden.any():
            continue
        row, words = int(examples.owner[piece]), examples.words[inside]
        given = np.where(hidden, examples.how.mask, examples.ids[inside])
        given = given[hidden | ~np.isin(given, tokenizer.all_special_ids)]
        own = {name: one[row, FIRST : FIRST + len(hidden)].astype(np.int64) for name, one in said.items()}
        found.append(
            {
                "id": names[row],
                "prompt": tokenizer.decode(given.tolist()),
                "truth": _words(examples.wanted[inside], hidden, words, tokenizer),
                "said": {name: _words(one, hidden, words, tokenizer) for name, one in own.items()},
            }
        )
        if len(found) == SAMPLES:
            break
    return found


def _words(tokens: Array, hidden: Array, words: Array, tokenizer: Any) -> str:
    """The hidden words of a window, one after the other."""
    each = [tokens[hidden & (words == word)].tolist() for word in np.unique(words[hidden])]
    return ", ".join(tokenizer.decode(one).strip() for one in each)


def learned(rows: pa.Table, examples: Masked, tokenizer: Any) -> list[dict[str, Any]]:
    """A few rows in their tokens, each with whether it is hidden in the first epoch."""
    names = rows.column("id").to_pylist()
    found = []
    for piece in np.flatnonzero(np.diff(examples.owner, prepend=-1))[:LEARNED].tolist():
        start = int(examples.offsets[piece])
        inside = slice(start, min(int(examples.offsets[piece + 1]), start + TOKENS))
        tokens = [tokenizer.decode([token]) for token in examples.whole[inside].tolist()]
        hidden = (examples.wanted[inside] != NOTHING).tolist()
        shown = [[text, one] for text, one in zip(tokens, hidden, strict=True)]
        found.append({"id": names[examples.owner[piece]], "tokens": shown})
    return found


def predictions(rows: pa.Table, outcomes: Array, tokenizer: Any) -> pa.Table:
    """`prediction`, and where words are hidden `loss` and `right`, the sums over `tokens`."""
    columns: dict[str, Any] = {name: rows.column(name) for name in ("id", "group") if name in rows.column_names}
    tokens = outcomes[:, FIRST:].astype(np.int64)
    texts = [
        tokenizer.decode(row[row != NONE].tolist(), skip_special_tokens=True) if (row != NONE).any() else None
        for row in tokens
    ]
    columns["prediction"] = pa.array(texts, pa.string())
    if outcomes[:, COUNT].any():
        columns |= {"loss": outcomes[:, LOSS], "right": outcomes[:, RIGHT], "tokens": outcomes[:, COUNT]}
    return pa.table(columns)
