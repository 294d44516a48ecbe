"""Rows that say the same, or nearly: exact repeats by their normalised text, near ones by MinHash.

MinHash (Broder 1997) over shingles of five bytes, with banding (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets,
chapter 3), computed for thousands of rows at once; what it proposes is checked by the exact Jaccard similarity
(`similarity.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.data.similarity import SHINGLE, WORDS, at_least, may_reach, sketch

Indices = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
HASHES = 24
"""Minimal hashes of a row, whatever the bands that they are cut into."""
CHUNK = 10_000
_WORDS = re.compile(r"\w+")
_MIX = np.uint64(0x9E3779B97F4A7C15)


def clusters(tables: list[pa.Table], threshold: float) -> tuple[Indices, Indices]:
    """Which rows are the same, and which are nearly the same.

    Args:
        tables: with the column input and, for pairs, pair; numbered one after the other.
        threshold: least Jaccard similarity of shingles for near-duplicates.

    Returns:
        Two arrays (rows of all tables,): cluster of exact repeats, and cluster of near-duplicates (which contains it).
    """
    read = _read(tables, bands_for(threshold))
    _, first, exact = np.unique(read.digests, return_index=True, return_inverse=True)
    root = np.arange(len(first))
    for band in read.signatures[first].T:
        pairs = candidates(band)
        pairs = pairs[root[pairs[:, 0]] != root[pairs[:, 1]]]
        pairs = pairs[may_reach(threshold, first[pairs], read.sketches, read.lengths)]
        similar = at_least(threshold, pairs, lambda rows: _encoded(tables, first[rows]))
        root = connected(root, pairs[similar])
    return exact.astype(np.int64), root[exact]


def bands_for(threshold: float) -> int:
    """How many bands the hashes are cut into: a pair at the threshold shares one with a probability of 0.96 or more."""
    if threshold >= 0.85:
        return 6  # of 4 hashes: 0.9 is found with probability 0.998, 0.5 proposed with 0.32
    return 8 if threshold >= 0.7 else 12


def normalise(text: str) -> str:
    """Words in lower case with one space between; the text itself where it has none."""
    return " ".join(_WORDS.findall(text.lower())) or text


@dataclass(frozen=True)
class _Read:
    """What is kept of each row while its text stays on disk."""

    digests: Hashes
    """(rows,) of the normalised text."""
    signatures: Hashes
    """(rows, bands): equal in a band where all its minimal hashes are equal."""
    sketches: Hashes
    """(rows, words): see `similarity.sketch`."""
    lengths: Indices
    """(rows,) shingles, with repeats."""


def _read(tables: list[pa.Table], bands: int) -> _Read:
    rows = sum(table.num_rows for table in tables)
    read = _Read(
        np.empty(rows, dtype=np.uint64),
        np.empty((rows, bands), dtype=np.uint64),
        np.empty((rows, WORDS), dtype=np.uint64),
        np.empty(rows, dtype=np.int64),
    )
    start = 0
    for table in tables:
        for texts in _texts(table):
            encoded = [text.encode() for text in texts]
            part = slice(start, start + len(encoded))
            read.digests[part] = [
                int.from_bytes(hashlib.blake2b(one, digest_size=8).digest(), "little") for one in encoded
            ]
            hashes, starts, read.lengths[part] = _hashes(encoded)
            read.signatures[part] = _signatures(hashes, starts, bands)
            read.sketches[part] = sketch(hashes, read.lengths[part])
            start = part.stop
    return read


def _texts(table: pa.Table) -> Iterator[list[str]]:
    """Normalised texts, a chunk at a time; those of a pair with a sign between that no word holds."""
    names = _columns(table)
    for batch in table.select(names).to_batches(CHUNK):
        columns = ([normalise(text) for text in batch.column(name).to_pylist()] for name in names)
        yield ["\x1f".join(parts) for parts in zip(*columns, strict=True)]


def _columns(table: pa.Table) -> list[str]:
    return ["input", "pair"] if "pair" in table.column_names else ["input"]


def _encoded(tables: list[pa.Table], rows: Indices) -> list[bytes]:
    """The normalised texts of single rows, numbered over all tables."""
    whole = pa.concat_tables([table.select(_columns(table)) for table in tables])
    return [text.encode() for texts in _texts(whole.take(rows)) for text in texts]


def _hashes(encoded: list[bytes]) -> tuple[Hashes, Indices, Indices]:
    """The hashes of all shingles, row after row; where each row starts, and how many it has."""
    padded = [one.ljust(SHINGLE) for one in encoded]
    lengths = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    data = np.frombuffer(b"".join(padded), dtype=np.uint8).astype(np.uint64)
    hashes = np.zeros(len(data) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        hashes = hashes * np.uint64(257) + data[offset : offset + len(hashes)]
    inside = np.ones(len(data), dtype=bool)
    for offset in range(1, SHINGLE):  # shingles that reach over the end of their row
        inside[np.cumsum(lengths) - offset] = False
    hashes = hashes[inside[: len(hashes)]]
    lengths -= SHINGLE - 1
    return (hashes ^ (hashes >> np.uint64(23))) * _MIX, np.cumsum(lengths) - lengths, lengths


def _signatures(hashes: Hashes, starts: Indices, bands: int) -> Hashes:
    """(rows, bands) of the rows whose shingles begin at `starts`."""
    signatures = np.zeros((len(starts), bands), dtype=np.uint64)
    random = np.random.default_rng(0)  # fixed: which rows are near-duplicates does not depend on the run's seed
    for band in range(bands):
        for _ in range(HASHES // bands):
            factor, shift = (np.uint64(value) for value in random.integers(1, 2**63, size=2))
            mixed = ((hashes ^ shift) * (factor | np.uint64(1))) >> np.uint64(20)
            signatures[:, band] = signatures[:, band] * _MIX + np.minimum.reduceat(mixed, starts)
    return signatures


def candidates(band: Hashes) -> Indices:
    """Pairs (pairs, 2) of rows that are equal in the band (rows,).

    Linear, however large a bucket: each row meets its bucket's first and its neighbour.
    """
    order = np.argsort(band, kind="stable")
    same = np.flatnonzero(band[order[1:]] == band[order[:-1]]) + 1
    begin = np.ones(len(band), dtype=bool)
    begin[same] = False
    leader = order[np.maximum.accumulate(np.where(begin, np.arange(len(band)), 0))]
    row = np.concatenate([order[same], order[same]])
    other = np.concatenate([leader[same], order[same - 1]])
    pairs = np.sort(np.minimum(row, other) * len(band) + np.maximum(row, other))
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique by hash is ten times slower here (NumPy 2.4)
    return np.stack([pairs // len(band), pairs % len(band)], axis=1)


def connected(root: Indices, edges: Indices) -> Indices:
    """The least row (rows,) that each row is linked to, by what `root` links already and by `edges` (edges, 2).

    Each round hangs the greater of two roots under the least root beside it, then makes all paths short.
    """
    root = root.copy()
    while len(edges):
        ends = root[edges]
        apart = ends[:, 0] != ends[:, 1]
        edges, ends = edges[apart], ends[apart]
        np.minimum.at(root, ends.max(axis=1), ends.min(axis=1))
        while not np.array_equal(root, root[root]):
            root = root[root]
    return root


def joined(first: Indices, second: Indices) -> Indices:
    """The clusters (rows,) of rows that are linked by either clustering, (rows,) each."""
    offset = int(first.max()) + 1
    nodes = np.arange(offset + int(second.max()) + 1)
    return connected(nodes, np.stack([first, second + offset], axis=1))[first]
