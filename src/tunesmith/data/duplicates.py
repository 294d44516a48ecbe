"""Rows that say the same, or nearly: exact repeats by their normalised text, near ones by MinHash.

MinHash (Broder 1997) over shingles of five bytes, with banding (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets,
chapter 3), computed for thousands of rows at once; what it proposes is checked by the exact Jaccard similarity.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Indices = npt.NDArray[np.int64]
SHINGLE = 5
BANDS, ROWS_PER_BAND = 6, 4
"""A pair of similarity 0.9 shares a band with probability 0.998, one of 0.5 with 0.32."""
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
    digests, signatures = _read(tables)
    _, first, exact = np.unique(digests, return_index=True, return_inverse=True)
    edges = _near(tables, signatures[first], first, threshold)
    _, label = connected_components(
        coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(len(first), len(first))),
        directed=False,
    )
    return exact.astype(np.int64), label[exact].astype(np.int64)


def normalise(text: str) -> str:
    """Words in lower case with one space between; the text itself where it has none."""
    return " ".join(_WORDS.findall(text.lower())) or text


def _read(tables: list[pa.Table]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    total = sum(table.num_rows for table in tables)
    digests = np.empty(total, dtype=np.uint64)
    signatures = np.empty((total, BANDS), dtype=np.uint64)
    start = 0
    for table in tables:
        for texts in _texts(table):
            encoded = [normalise(text).encode() for text in texts]
            end = start + len(encoded)
            digests[start:end] = [
                int.from_bytes(hashlib.blake2b(one, digest_size=8).digest(), "little") for one in encoded
            ]
            signatures[start:end] = _signatures(encoded)
            start = end
    return digests, signatures


def _texts(table: pa.Table) -> Iterator[list[str]]:
    paired = "pair" in table.column_names
    for batch in table.select(["input", "pair"] if paired else ["input"]).to_batches(CHUNK):
        texts = batch.column("input").to_pylist()
        if paired:
            texts = [f"{one} {other}" for one, other in zip(texts, batch.column("pair").to_pylist(), strict=True)]
        yield texts


def _signatures(encoded: list[bytes]) -> npt.NDArray[np.uint64]:
    """(rows, bands): equal in a band where all its minimal hashes are equal."""
    padded = [one if len(one) >= SHINGLE else one.ljust(SHINGLE) for one in encoded]
    lengths = np.fromiter(map(len, padded), dtype=np.int64, count=len(padded))
    data = np.frombuffer(b"".join(padded), dtype=np.uint8).astype(np.uint64)
    hashes = np.zeros(len(data) - SHINGLE + 1, dtype=np.uint64)
    for offset in range(SHINGLE):
        hashes = hashes * np.uint64(257) + data[offset : offset + len(hashes)]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    # A shingle that reaches over the end of its row gets the greatest hash, which is never the least one.
    last = np.zeros(len(data), dtype=bool)
    for offset in range(1, SHINGLE):
        last[starts + lengths - offset] = True
    across = last[: len(hashes)]
    hashes = (hashes ^ (hashes >> np.uint64(23))) * _MIX
    bands = np.zeros((len(encoded), BANDS), dtype=np.uint64)
    random = np.random.default_rng(0)  # fixed: which rows are near-duplicates does not depend on the run's seed
    for band in range(BANDS):
        for _ in range(ROWS_PER_BAND):
            factor, shift = (np.uint64(value) for value in random.integers(1, 2**63, size=2))
            mixed = ((hashes ^ shift) * (factor | np.uint64(1))) >> np.uint64(20)
            mixed[across] = np.uint64(2**63)
            bands[:, band] = bands[:, band] * _MIX + np.minimum.reduceat(mixed, starts)
    return bands


def _near(
    tables: list[pa.Table], signatures: npt.NDArray[np.uint64], rows: Indices, threshold: float
) -> npt.NDArray[np.int64]:
    """Pairs (edges, 2) of distinct texts, by position in `rows`, that are similar enough."""
    candidates: set[tuple[int, int]] = set()
    for band in range(signatures.shape[1]):
        order = np.argsort(signatures[:, band], kind="stable")
        same = np.flatnonzero(signatures[order[1:], band] == signatures[order[:-1], band]) + 1
        begin = np.zeros(len(order), dtype=bool)
        begin[0:1] = True
        begin[1:] = True
        begin[same] = False
        leader = order[np.maximum.accumulate(np.where(begin, np.arange(len(order)), 0))]
        # Each row is compared with its bucket's first and with its neighbour: linear, however large the bucket.
        candidates.update((int(min(a, b)), int(max(a, b))) for a, b in zip(order[same], leader[same], strict=True))
        candidates.update((int(min(a, b)), int(max(a, b))) for a, b in zip(order[same], order[same - 1], strict=True))
    wanted = sorted({position for pair in candidates for position in pair})
    shingles = dict(zip(wanted, _shingles(tables, rows[wanted]), strict=True)) if wanted else {}
    near = [
        pair
        for pair in candidates
        if len(shingles[pair[0]] & shingles[pair[1]]) >= threshold * len(shingles[pair[0]] | shingles[pair[1]])
    ]
    return np.array(near, dtype=np.int64).reshape(-1, 2)


def _shingles(tables: list[pa.Table], rows: Indices) -> Iterator[frozenset[bytes]]:
    """The shingles of single rows, numbered over all tables."""
    names = ["input", "pair"] if "pair" in tables[0].column_names else ["input"]
    joined = pa.concat_tables([table.select(names) for table in tables])
    for texts in _texts(joined.take(rows)):
        for text in texts:
            encoded = normalise(text).encode().ljust(SHINGLE)
            yield frozenset(encoded[start : start + SHINGLE] for start in range(len(encoded) - SHINGLE + 1))


def joined(first: Indices, second: Indices) -> Indices:
    """The clusters (rows,) of rows that are linked by either clustering, (rows,) each."""
    offset = int(first.max()) + 1
    nodes = offset + int(second.max()) + 1
    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second + offset)), shape=(nodes, nodes))
    return connected_components(links, directed=False)[1][first].astype(np.int64)  # type: ignore[no-any-return]
