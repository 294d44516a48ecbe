"""Questions and passages to tokens: the question whole, the passage in windows, and where the answer stands in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data.passages import Indices, Passages
from tunesmith.models.tokenize import Reading, fast, tokenize

OVERLAP = 3
"""Windows overlap by this part of their length, so that most answers lie whole in one."""
QUESTION = 2
"""The question may take this part of a window."""


def passages(tokenizer: Any, rows: pa.Table, limit: int) -> Passages:
    """Pieces of at most `limit` tokens; the first of each row's answers is what is to be found.

    Args:
        tokenizer: a fast transformers tokenizer.
        rows: with the columns input, the question, and pair, the passage; perhaps target.

    Raises:
        ModelError: the tokenizer has no fast core, or the limit leaves no room.
    """
    fast(tokenizer)
    most = min(limit // QUESTION, limit - tokenizer.backend_tokenizer.num_special_tokens_to_add(True) - 1)
    shortened, lost = _shortened(tokenizer, rows.column("input").to_pylist(), most)
    texts = rows.column("pair").to_pylist()
    targets = rows.column("target").to_pylist() if "target" in rows.column_names else None
    read = pa.table({"input": shortened, "pair": texts})
    spans: list[npt.NDArray[np.int32]] = []

    def hear(row: int, piece: Any) -> None:
        spans.append(_spans(piece, texts[row]))

    reading = Reading(limit, windows=True, first=most, overlap=OVERLAP)
    tokens = tokenize(tokenizer, read, None, reading, hear)
    return Passages(
        tokens.ids, tokens.kinds, tokens.offsets, tokens.owner, None, tokens.lost + lost,
        spans=np.concatenate(spans) if spans else np.zeros((0, 2), dtype=np.int32),
        answer=None if targets is None else _places(spans, tokens.owner, targets),
        passages=texts,
        answers=None if targets is None else [target["texts"] for target in targets],
    )  # fmt: skip


def plain(tokenizer: Any, rows: pa.Table, limit: int) -> Passages:
    """Questions and passages, cut at `limit` tokens, whose logits are wanted as they are: what a public loader gives."""
    tokens = tokenize(tokenizer, rows, None, Reading(limit))
    none = np.full((len(tokens.ids), 2), -1, dtype=np.int32)
    texts = rows.column("pair").to_pylist()
    return Passages(
        tokens.ids, tokens.kinds, tokens.offsets, tokens.owner, None, tokens.lost, none, None, texts, None, plain=True
    )


def _spans(piece: Any, text: str) -> npt.NDArray[np.int32]:
    """(tokens, 2): where each token of the passage `text` stands in it; -1 of others."""
    ends = np.array(piece.offsets, dtype=np.int32).reshape(-1, 2)
    of_passage = np.array([sequence == 1 for sequence in piece.sequence_ids], dtype=bool)
    for token in np.flatnonzero(of_passage).tolist():  # some tokenizers count the blank before a word in
        start, end = ends[token].tolist()
        ends[token, 0] += len(text[start:end]) - len(text[start:end].lstrip())
    usable = of_passage & (ends[:, 1] > ends[:, 0])
    return np.where(usable[:, None], ends, -1)


def _places(spans: Sequence[npt.NDArray[np.int32]], owner: Indices, targets: Sequence[Mapping[str, Any]]) -> Indices:
    """(pieces, 2): first and last token of each row's first answer; twice the piece's first where it shows not all of it.

    All of it are the tokens that the passage has there: blanks at its ends, and signs that the tokenizer drops, have none.
    """
    inside = [_between(ends, targets[row]) for ends, row in zip(spans, owner.tolist(), strict=True)]
    reach: dict[int, tuple[int, int]] = {}
    for ends, row, tokens in zip(spans, owner.tolist(), inside, strict=True):
        if len(tokens):
            first, last = int(ends[tokens[0], 0]), int(ends[tokens[-1], 1])
            low, high = reach.get(row, (first, last))
            reach[row] = min(low, first), max(high, last)
    found = np.zeros((len(spans), 2), dtype=np.int64)
    for piece, (ends, row, tokens) in enumerate(zip(spans, owner.tolist(), inside, strict=True)):
        if len(tokens) and (ends[tokens[0], 0], ends[tokens[-1], 1]) == reach[row]:
            found[piece] = tokens[0], tokens[-1]
    return found


def _between(spans: npt.NDArray[np.int32], target: Mapping[str, Any]) -> Indices:
    """Tokens of a piece that are of the first answer."""
    if not target["starts"]:
        return np.zeros(0, dtype=np.int64)
    start, end = target["starts"][0], target["ends"][0]
    return np.flatnonzero((spans[:, 0] >= 0) & (spans[:, 1] > start) & (spans[:, 0] < end))


def _shortened(tokenizer: Any, questions: Sequence[str], most: int) -> tuple[list[str], Indices]:
    """Questions of at most `most` tokens, and how many tokens each lost."""
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    core.no_padding()
    lost = np.zeros(len(questions), dtype=np.int64)
    kept = list(questions)
    for row, one in enumerate(core.encode_batch(kept, add_special_tokens=False)):
        count, tokens = len(one.ids), most
        while count > most:  # what is cut may be other tokens by itself: a sign of several, a word's beginning
            kept[row] = questions[row][: one.offsets[tokens - 1][1] if tokens > 0 else 0]
            count, tokens = len(core.encode(kept[row], add_special_tokens=False).ids), tokens - 1
        lost[row] = len(one.ids) - count
    return kept, lost
