"""Text for language models: in windows, with the tokens that the network is asked for and their places."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith import seeds
from tunesmith.data.asked import NOTHING, Asked
from tunesmith.data.tokens import Tokens
from tunesmith.models.tokenize import Reading, overlap, tokenize

MOST_PIECES = 4_000
"""Forward passes, of one window each, that the hidden tokens of one split may take."""
Places = npt.NDArray[np.bool_]


def next_tokens(tokenizer: Any, rows: pa.Table, limit: int, end: int | None = None) -> Asked:
    """Each token of the texts is asked for once, at the place before it.

    A text longer than `limit` is read in windows; what a window shares with the one before it is only context there. The
    first token of a text has no place before it unless the tokenizer puts a special one there.

    Args:
        end: the token that is asked for where a text is over; none where it is absent.
    """
    tokens, fresh = _windows(tokenizer, rows, limit)
    last = np.zeros(len(tokens.ids), dtype=bool)
    last[tokens.offsets[1:] - 1] = True
    wanted = np.full(len(tokens.ids), NOTHING, dtype=np.int32)
    asking = ~last[:-1] & fresh[1:]
    wanted[:-1][asking] = tokens.ids[1:][asking]
    if end is not None and len(tokens):
        over = np.diff(tokens.owner, append=-1) != 0  # the last window of each text
        wanted[(tokens.offsets[1:] - 1 - _marks(tokenizer)[1])[over]] = end
    return _asked(tokens, wanted, np.ones(len(tokens), dtype=np.float32))


def masked_tokens(tokenizer: Any, rows: pa.Table, limit: int, most: int) -> Asked:
    """A piece for each token that is hidden: a window with the mask in its place, where the token is asked for.

    Args:
        most: of a window with more tokens than this, so many are drawn, and stand for all of them; fewer where there are
            many windows, and none of some where there are more than `MOST_PIECES`.
    """
    tokens, fresh = _windows(tokenizer, rows, limit)
    random = seeds.generator(0, "masked places")  # the same whenever the same texts are read
    window, place, scale = [], [], []
    most = max(1, min(most, MOST_PIECES // max(1, len(tokens))))
    read = set(random.permutation(len(tokens))[:MOST_PIECES].tolist())
    for number, (start, end) in enumerate(zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)):
        if number not in read:
            continue
        usable = np.flatnonzero(fresh[start:end])
        chosen = np.sort(random.permutation(usable)[:most])
        window.append(np.full(len(chosen), number))
        place.append(chosen)
        scale.append(np.full(len(chosen), len(usable) / max(1, len(chosen)), dtype=np.float32))
    of, at = (np.concatenate(one).astype(np.int64) if one else np.zeros(0, dtype=np.int64) for one in (window, place))
    lengths = tokens.lengths[of]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    source = np.repeat(tokens.offsets[of] - offsets[:-1], lengths) + np.arange(offsets[-1])
    ids = tokens.ids[source]
    hidden = offsets[:-1] + at
    wanted = np.full(len(ids), NOTHING, dtype=np.int32)
    wanted[hidden] = ids[hidden]
    ids[hidden] = tokenizer.mask_token_id
    pieces = Tokens(ids, None, offsets, tokens.owner[of], None, tokens.lost)
    return _asked(pieces, wanted, np.concatenate(scale) if scale else np.zeros(0, dtype=np.float32))


def _windows(tokenizer: Any, rows: pa.Table, limit: int) -> tuple[Tokens, Places]:
    """The texts in windows, and which of their tokens are neither special nor in the window before."""
    tokens = tokenize(tokenizer, rows, None, Reading(limit, windows=True))
    first, last = _marks(tokenizer)
    shared = overlap(limit, first + last)
    fresh = np.zeros(len(tokens.ids), dtype=bool)
    later = np.diff(tokens.owner, prepend=-1) == 0
    for number, (start, end) in enumerate(zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)):
        fresh[start + first + (shared if later[number] else 0) : end - last] = True
    return tokens, fresh


def _marks(tokenizer: Any) -> tuple[int, int]:
    """How many special tokens stand before each text, and how many after it."""
    core = tokenizer.backend_tokenizer
    core.no_truncation()
    whole, bare = core.encode("a").ids, core.encode("a", add_special_tokens=False).ids
    first = next((place for place in range(len(whole)) if whole[place : place + len(bare)] == bare), 0)
    return first, len(whole) - len(bare) - first


def _asked(tokens: Tokens, wanted: npt.NDArray[np.int32], scale: npt.NDArray[np.float32]) -> Asked:
    return Asked(tokens.ids, None, tokens.offsets, tokens.owner, None, tokens.lost, wanted, scale)
