"""Near-duplicates against brute force, and shares of splits to within one row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import duplicates, similarity
from tunesmith.data.split import cut


def shingles(text: bytes) -> set[bytes]:
    padded = text.ljust(5)
    return {padded[at : at + 5] for at in range(len(padded) - 4)}


def jaccard(one: bytes, other: bytes) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


TEXTS = st.lists(st.text(alphabet="ab é\U0001f600", max_size=40).map(str.encode), min_size=2, max_size=12)
THRESHOLDS = st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0])


@settings(deadline=None)
@given(texts=TEXTS, threshold=THRESHOLDS)
def test_similarity_is_exactly_that_of_sets(texts: list[bytes], threshold: float) -> None:
    pairs = np.array([(one, other) for other in range(len(texts)) for one in range(other)])
    found = similarity.at_least(threshold, pairs, lambda rows: [texts[row] for row in rows])
    assert found.tolist() == [jaccard(texts[one], texts[other]) >= threshold for one, other in pairs]


@settings(deadline=None)
@given(texts=TEXTS, threshold=THRESHOLDS)
def test_sketches_never_leave_out_a_similar_pair(texts: list[bytes], threshold: float) -> None:
    hashes, _, lengths = duplicates._hashes(texts)
    sketches = similarity.sketch(hashes, lengths)
    pairs = np.array([(one, other) for other in range(len(texts)) for one in range(other)])
    possible = similarity.may_reach(threshold, pairs, sketches, lengths)
    for (one, other), kept in zip(pairs, possible, strict=True):
        assert kept or jaccard(texts[one], texts[other]) < threshold


@settings(deadline=None)
@given(edges=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_connected_rows_are_those_that_a_walk_reaches(edges: list[tuple[int, int]]) -> None:
    found = duplicates.connected(np.arange(20), np.array(edges, dtype=np.int64).reshape(-1, 2))
    least = list(range(20))
    for _ in range(20):
        for one, other in edges:
            least[one] = least[other] = min(least[one], least[other])
    assert found.tolist() == least


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_most_pairs_at_the_threshold_are_found_whatever_it_is(threshold: float) -> None:
    random = np.random.default_rng(0)
    words = [f"w{number}" for number in range(400)]
    texts = [" ".join(random.choice(words, 30)) for _ in range(200)]
    changed = round(30 * (1 - threshold) / 3)
    texts += [" ".join(["other"] * changed + text.split()[changed:]) for text in texts]
    _, near = duplicates.clusters([pa.table({"input": texts})], threshold)
    similar = [
        jaccard(one.encode(), other.encode()) >= threshold for one, other in zip(texts, texts[200:], strict=False)
    ]
    found = near[:200] == near[200:]
    assert sum(similar) > 150
    assert found[similar].mean() > 0.95
    assert not found[~np.array(similar)].any()


def test_templated_rows_are_told_apart_in_linear_time() -> None:
    texts = [f"your order number {number} has been shipped today and will arrive soon" for number in range(30_000)]
    exact, near = duplicates.clusters([pa.table({"input": texts})], 0.9)
    assert len(set(exact)) == 30_000
    assert len(set(near)) > 29_000


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=30), seed=st.integers(0, 3))
def test_every_class_is_shared_out_to_within_one_row(counts: list[int], seed: int) -> None:
    strata = np.repeat(np.arange(len(counts)), counts)
    split = cut(strata, np.arange(len(strata)), (0.8, 0.1, 0.1), seed)
    for index, share in enumerate((0.8, 0.1, 0.1)):
        for stratum, count in enumerate(counts):
            assert abs((split[strata == stratum] == index).sum() - share * count) <= 1 + 1e-6
