"""Splits are disjoint, whole, seeded, stratified, and keep together what belongs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import duplicates
from tunesmith.data.load import load
from tunesmith.data.split import cut
from tunesmith.settings import DataSettings


@settings(deadline=None)
@given(
    strata=st.lists(st.integers(0, 5), min_size=10, max_size=200),
    clusters=st.integers(1, 200),
    seed=st.integers(0, 3),
)
def test_clusters_stay_on_one_side_and_training_knows_every_class(strata: list[int], clusters: int, seed: int) -> None:
    rows = len(strata)
    together = np.random.default_rng(seed).integers(clusters, size=rows)
    split = cut(np.array(strata), together, (0.8, 0.1, 0.1), seed)
    assert set(split) <= {0, 1, 2}
    for cluster in np.unique(together):
        assert len(set(split[together == cluster])) == 1
    assert np.array_equal(split, cut(np.array(strata), together, (0.8, 0.1, 0.1), seed))
    for stratum in set(strata):
        own = np.array(strata) == stratum
        alone = [row for row in np.flatnonzero(own) if (together == together[row]).sum() == 1]
        if alone:
            assert (split[own] == 0).any()


def test_groups_too_large_for_a_small_split_go_to_training() -> None:
    """Three large groups and some of four: the second one used to become a validation split of 40 %."""
    together = np.repeat(np.arange(7), [100, 80, 4, 4, 4, 4, 4])
    split = cut(np.arange(200) % 2, together, (0.8, 0.1, 0.1), 0)
    assert [int((split == index).sum()) for index in (0, 1, 2)] == [184, 8, 8] or (split == 0).sum() >= 180
    assert (split == 1).any()
    assert (split == 2).any()


@given(sizes=st.lists(st.integers(2, 30), min_size=3, max_size=40), seed=st.integers(0, 3))
def test_no_split_but_training_exceeds_its_share_by_more_than_a_cluster(sizes: list[int], seed: int) -> None:
    together = np.repeat(np.arange(len(sizes)), sizes)
    split = cut(np.zeros(len(together), dtype=np.int64), together, (0.8, 0.1, 0.1), seed)
    for index in (1, 2):
        count = (split == index).sum()
        assert count
        assert count <= max(0.1 * len(together) + 0.5, min(sizes), sorted(sizes)[1], sorted(sizes)[2])


def test_a_class_that_lies_in_one_mixed_cluster_is_known_to_training() -> None:
    together = np.concatenate([np.arange(100), np.full(3, 200)])
    strata = np.concatenate([np.zeros(100, dtype=np.int64), [0, 0, 1]])
    for seed in range(10):
        assert cut(strata, together, (0.8, 0.1, 0.1), seed)[-1] == 0


@given(counts=st.lists(st.integers(1, 60), min_size=2, max_size=12), seed=st.integers(0, 3))
def test_single_rows_are_shared_out_as_evenly_as_whole_rows_allow(counts: list[int], seed: int) -> None:
    strata = np.repeat(np.arange(len(counts)), counts)
    split = cut(strata, np.arange(len(strata)), (0.8, 0.1, 0.1), seed)
    for share, index in ((0.8, 0), (0.1, 1), (0.1, 2)):
        for stratum, count in enumerate(counts):
            assert abs((split[strata == stratum] == index).sum() - share * count) <= 2.01


def test_near_duplicates_are_those_that_brute_force_finds() -> None:
    words = [f"w{number}" for number in range(60)]
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(words, 25)) for _ in range(150)]
    texts += [text.replace(" w1 ", " w2 ", 1) for text in texts[:40]] + [text.upper() + "!" for text in texts[40:60]]
    exact, near = duplicates.clusters([pa.table({"input": texts})], 0.9)

    def shingles(text: str) -> set[bytes]:
        encoded = duplicates.normalise(text).encode().ljust(5)
        return {encoded[at : at + 5] for at in range(len(encoded) - 4)}

    sets = [shingles(text) for text in texts]
    for one in range(len(texts)):
        for other in range(one):
            similarity = len(sets[one] & sets[other]) / len(sets[one] | sets[other])
            if similarity == 1.0 or duplicates.normalise(texts[one]) == duplicates.normalise(texts[other]):
                assert exact[one] == exact[other] or near[one] == near[other]
            if near[one] == near[other] and similarity < 0.5:
                raise AssertionError((texts[one], texts[other]))
    pairs = [(one, one - 150) for one in range(150, len(texts))]
    similar = [pair for pair in pairs if len(sets[pair[0]] & sets[pair[1]]) >= 0.9 * len(sets[pair[0]] | sets[pair[1]])]
    assert len(similar) > 20
    assert all(near[one] == near[other] for one, other in similar)


def test_one_text_a_thousand_times_is_found_in_linear_time() -> None:
    exact, near = duplicates.clusters([pa.table({"input": ["the same"] * 20_000 + ["Ω", "!!", "?"]})], 0.9)
    assert len(set(exact)) == 4
    assert len(set(near)) == 4


def test_groups_and_near_duplicates_are_not_torn_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [
        f"message number {number} about things {number * 7919 % 1000},{'ab'[number % 2]},p{number // 4}"
        for number in range(200)
    ]
    path.write_text("text,label,patient\n" + "\n".join(lines) + "\n")
    found = load(DataSettings(train=str(path), group="patient"), tmp_path / "cache", 0)
    groups = [set(rows.column("group").to_pylist()) for rows in found.splits.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    ids = [one for rows in found.splits.values() for one in rows.column("id").to_pylist()]
    assert len(ids) == len(set(ids)) == 200
