"""Exact Jaccard similarity of many pairs of texts at once, over shingles of five bytes. Knows no files and no clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
SHINGLE = 5
_BITS = 8 * SHINGLE
PAIRS = 20_000
"""Pairs compared together: few enough for short rows to stay under 100 MB."""
MOST_BYTES = 4_000_000
"""Text held at once; long rows are compared fewer at a time."""


WORDS = 16
"""Of 64 bits, in a sketch: a short text has a bit of its own for nearly every shingle."""
_SKETCHED = 100_000


def sketch(hashes: Hashes, lengths: Indices) -> Hashes:
    """(rows, WORDS): a bit for each shingle, chosen by its hash.

    Args:
        hashes: of the shingles, row after row.
        lengths: (rows,) how many a row has.
    """
    bits = np.zeros((len(lengths), 64 * WORDS), dtype=bool)
    position = np.repeat(np.arange(len(lengths)) * (64 * WORDS), lengths)
    bits.reshape(-1)[position + (hashes >> np.uint64(54)).astype(np.int64)] = True
    return np.packbits(bits, axis=1).view(np.uint64)


def may_reach(threshold: float, pairs: Indices, sketches: Hashes, lengths: Indices) -> npt.NDArray[np.bool_]:
    """Which of `pairs` (pairs, 2) of rows can have a similarity of `threshold` at all; never leaves out one that has.

    A bit that only one text has is a shingle that only it has, so x and y such bits leave at most m = min(|A| - x, |B| - y)
    shingles in common, and J <= m / (m + x + y).
    """
    possible = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _SKETCHED):
        one, other = pairs[start : start + _SKETCHED].T
        a, b = sketches[one], sketches[other]
        x, y = (np.bitwise_count(only).sum(axis=1, dtype=np.int64) for only in (a & ~b, b & ~a))
        most = np.minimum(lengths[one] - x, lengths[other] - y)
        possible[start : start + _SKETCHED] = most >= threshold * (most + x + y)
    return possible


def at_least(threshold: float, pairs: Indices, texts: Callable[[Indices], Sequence[bytes]]) -> npt.NDArray[np.bool_]:
    """Which of `pairs` (pairs, 2) of rows have a Jaccard similarity of `threshold` or more; shape (pairs,).

    Args:
        texts: the texts of some rows.
    """
    similar = np.zeros(len(pairs), dtype=bool)
    start, step = 0, PAIRS // 20  # until it is known how long the texts are
    while start < len(pairs):
        part = pairs[start : start + step]
        rows, position = np.unique(part, return_inverse=True)
        found = texts(rows)
        similar[start : start + len(part)] = _similar(threshold, position.reshape(-1, 2), found)
        start += len(part)
        per_pair = max(sum(map(len, found)) / len(part), 1.0)
        step = int(np.clip(MOST_BYTES / per_pair, 1, PAIRS))
    return similar


def _similar(threshold: float, pairs: Indices, texts: Sequence[bytes]) -> npt.NDArray[np.bool_]:
    shingles, sizes = _sets(texts)
    starts = np.cumsum(sizes) - sizes
    both = sizes[pairs]
    # |A and B| / |A or B| is at most the smaller set over the larger.
    possible = np.flatnonzero(both.min(axis=1) >= threshold * both.max(axis=1))
    result = np.zeros(len(pairs), dtype=bool)
    if len(possible):
        lengths = both[possible].ravel()
        offsets = np.repeat(starts[pairs[possible]].ravel() - (np.cumsum(lengths) - lengths), lengths)
        numbers = np.repeat(np.arange(len(possible)), both[possible].sum(axis=1))
        keys = np.sort(numbers << _BITS | shingles[offsets + np.arange(len(offsets))])
        shared = np.bincount(keys[1:][keys[1:] == keys[:-1]] >> _BITS, minlength=len(possible))
        result[possible] = shared >= threshold * (both[possible].sum(axis=1) - shared)
    return result


def _sets(texts: Sequence[bytes]) -> tuple[Indices, Indices]:
    """The different shingles of each text (five bytes as one number), text after text; and how many each has."""
    padded = [text.ljust(SHINGLE) for text in texts]
    lengths = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    data = np.frombuffer(b"".join(padded), dtype=np.uint8).astype(np.int64)
    values = np.zeros(len(data) - SHINGLE + 1, dtype=np.int64)
    for offset in range(SHINGLE):
        values = values << 8 | data[offset : offset + len(values)]
    row = np.repeat(np.arange(len(padded)), lengths)
    within = row[: len(values)] == row[SHINGLE - 1 :]
    keys = np.sort(row[: len(values)][within] << _BITS | values[within])
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return keys & ((1 << _BITS) - 1), np.bincount(keys >> _BITS, minlength=len(padded))
