"""Text to tokens: in batches, by the tokenizer's own fast core, with what was cut counted for every row."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.data.tokens import Tokens
from tunesmith.errors import ModelError

CHUNK = 4_000
"""Rows given to the tokenizer at once, and"""
CHARACTERS = 2_000_000
"""characters, about."""
OVERLAP = 8
"""Windows of a long text overlap by this part of their length."""


@dataclass(frozen=True)
class Reading:
    """How text is read: at most `limit` tokens a piece, special ones included; long texts cut or read in windows."""

    limit: int
    windows: bool = False
    first: int | None = None
    """The most tokens of the first text of a pair, where it stands in each window and the second alone is cut."""
    overlap: int = OVERLAP
    """Windows overlap by this part of their length."""


def fast(tokenizer: Any) -> None:
    """Insist that `tokenizer` has a fast core.

    Raises:
        ModelError: it has none.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} is a slow tokenizer.", "Take a model with a tokenizer.json.")


def tokenize(
    tokenizer: Any,
    rows: pa.Table,
    targets: npt.NDArray[Any] | None,
    reading: Reading,
    hear: Callable[[int, Any], None] | None = None,
) -> Tokens:
    """Tokens of the columns `input` and, where there is one, `pair`.

    Args:
        tokenizer: a fast transformers tokenizer.
        targets: (rows, …), handed on.
        hear: is told of each piece, in their order: its row, and what the tokenizer made of it, with offsets in characters.

    Raises:
        ModelError: the tokenizer has no fast core, or the limit leaves no room for text.
    """
    fast(tokenizer)
    core = tokenizer.backend_tokenizer
    paired = "pair" in rows.column_names
    kinds_wanted = paired and "token_type_ids" in tokenizer.model_input_names
    ids: list[npt.NDArray[np.int32]] = []
    kinds: list[npt.NDArray[np.uint8]] = []
    lengths: list[int] = []
    owner: list[int] = []
    lost = np.zeros(rows.num_rows, dtype=np.int64)
    special = core.num_special_tokens_to_add(paired)
    if reading.limit <= special + (1 if paired else 0):
        raise ModelError(f"{reading.limit} tokens leave no room for text beside {special} special ones.")
    stride = overlap(reading.limit, special + (reading.first or 0), reading.overlap) if reading.windows else 0
    first = 0
    for texts in _chunks(rows, paired):
        encodings, cut = _encoded(core, texts, reading, stride, offsets=hear is not None)
        for index, tokens in cut.items():
            lost[first + index] = tokens
        pieces = [(first + index, piece) for index, one in enumerate(encodings) for piece in one]
        if hear is not None:
            for row, piece in pieces:
                hear(row, piece)
        # A text that gives no token at all (only characters that the tokenizer drops) still needs one to stand for it.
        stand_in = [tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.eos_token_id]
        found = [piece.ids or stand_in for _, piece in pieces]
        counts = [len(one) for one in found]
        ids.append(np.fromiter(itertools.chain.from_iterable(found), dtype=np.int32, count=sum(counts)))
        if kinds_wanted:
            flat = itertools.chain.from_iterable(piece.type_ids or [0] for _, piece in pieces)
            kinds.append(np.fromiter(flat, dtype=np.uint8, count=sum(counts)))
        lengths.extend(counts)
        owner.extend(row for row, _ in pieces)
        first += len(texts)
    return Tokens(
        ids=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
        kinds=np.concatenate(kinds) if kinds else None,
        offsets=np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64),
        owner=np.array(owner, dtype=np.int64),
        targets=targets,
        lost=lost,
    )


def _encoded(
    core: Any, texts: Any, reading: Reading, stride: int, *, offsets: bool
) -> tuple[list[list[Any]], dict[int, int]]:
    """The pieces of each text, and of those that were cut how many tokens they lost."""
    encode = core.encode_batch if offsets else core.encode_batch_fast
    core.no_padding()
    strategy = "longest_first" if reading.first is None else "only_second"
    core.enable_truncation(reading.limit, stride=stride, strategy=strategy)
    encodings = encode(texts)
    if reading.windows:
        return [[one, *one.overflowing] for one in encodings], {}
    full = [index for index, one in enumerate(encodings) if len(one.ids) >= reading.limit]
    cut = {}
    if full:
        core.no_truncation()
        for index, whole in zip(full, core.encode_batch_fast([texts[index] for index in full]), strict=True):
            cut[index] = len(whole.ids) - len(encodings[index].ids)
    return [[one] for one in encodings], cut


def overlap(limit: int, special: int, part: int = OVERLAP) -> int:
    """Tokens that a window of at most `limit`, `special` ones that each has among them, shares with the one before it."""
    return min(limit // part, limit - special - 1)


def _parts(rows: pa.Table, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows in their order, so many together that their texts, and what is made of them, fit into memory."""
    for batch in rows.select(names).to_batches(CHUNK):
        lengths = sum(pc.utf8_length(batch.column(name)).to_numpy(zero_copy_only=False) for name in names)
        part = np.cumsum(lengths) // CHARACTERS
        starts = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), batch.num_rows]
        yield from (batch.slice(start, end - start) for start, end in itertools.pairwise(starts) if end > start)


def _chunks(rows: pa.Table, paired: bool) -> Iterator[Sequence[str] | Sequence[tuple[str, str]]]:
    for batch in _parts(rows, ["input", "pair"] if paired else ["input"]):
        texts = batch.column("input").to_pylist()
        yield list(zip(texts, batch.column("pair").to_pylist(), strict=True)) if paired else texts


def truncation(tokens: Tokens, limit: int) -> dict[str, Any]:
    """What the report says of long rows: how many were cut, how much of the text that was, and the longest."""
    cut = int((tokens.lost > 0).sum())
    longest = np.bincount(tokens.owner, weights=tokens.lengths, minlength=tokens.rows) + tokens.lost
    total = float(tokens.lengths.sum() + tokens.lost.sum())
    return {
        "limit": limit,
        "rows_cut": cut,
        "share": cut / max(1, tokens.rows),
        "tokens_lost": int(tokens.lost.sum()),
        "share_of_tokens": float(tokens.lost.sum()) / max(1.0, total),
        "longest": int(longest.max()) if tokens.rows else 0,
        "side": "right",
        "rows_in_windows": int((np.bincount(tokens.owner, minlength=tokens.rows) > 1).sum()),
    }
