"""Cutting rows into splits: stratified, seeded, and with rows that belong together on one side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tunesmith import seeds

Indices = npt.NDArray[np.int64]


def cut(strata: Indices, together: Indices, shares: Sequence[float], seed: int) -> Indices:
    """The split of each row, (rows,), as an index into `shares`.

    Each stratum is shared out to within one row; which split gets the rows that rounding leaves over is chosen so that
    what one stratum takes from a split is made good by the next.
    A stratum's first row goes to split 0, so that training knows every class. A cluster too large for what a split still
    lacks goes to split 0; where that leaves a split without any row, it gets the smallest cluster.

    Args:
        strata: (rows,) class, or bin of the score.
        together: (rows,) cluster; rows of one cluster get the same split.
        shares: of the splits; they add up to 1.
        seed: of the run.
    """
    random = seeds.generator(seed, "split")
    _, together, sizes = np.unique(together, return_inverse=True, return_counts=True)
    split = np.full(len(strata), -1, dtype=np.int64)
    wanted = np.outer(np.bincount(strata), shares)
    given = np.zeros_like(wanted)
    _place_clusters(strata, together, sizes, wanted, given, split, random)
    carried = np.zeros(len(shares))
    single = np.flatnonzero(split < 0)
    single = single[random.permutation(len(single))]
    single = single[np.argsort(strata[single], kind="stable")]
    if not len(single):
        return split
    present, starts = np.unique(strata[single], return_index=True)
    for stratum, rows in zip(present, np.split(single, starts[1:]), strict=True):
        quota = np.maximum(wanted[stratum] - given[stratum], 0.0)
        if quota.sum() <= 0:  # clusters filled every split already
            quota = np.array(shares, dtype=np.float64)
        quota *= len(rows) / quota.sum()
        counts = np.floor(quota + 1e-9).astype(np.int64)
        rest = np.argsort(-(quota - counts + carried), kind="stable")[: len(rows) - counts.sum()]
        counts[rest] += 1
        if counts[0] == 0 and given[stratum, 0] == 0:
            counts[np.argmax(counts)] -= 1
            counts[0] = 1
        carried += quota - counts
        split[rows] = np.repeat(np.arange(len(shares)), counts)
    return split


def _place_clusters(
    strata: Indices,
    together: Indices,
    sizes: Indices,
    wanted: npt.NDArray[np.float64],
    given: npt.NDArray[np.float64],
    split: Indices,
    random: np.random.Generator,
) -> None:
    """Give each cluster of several rows, largest first, to the split that lacks its classes most. Fills `given`, `split`."""
    several = np.flatnonzero(sizes > 1)
    several = several[random.permutation(len(several))]
    several = several[np.argsort(-sizes[several], kind="stable")]
    members = np.argsort(together, kind="stable")
    ends = np.cumsum(sizes)
    left = np.bincount(strata)
    for cluster in several:
        rows = members[ends[cluster] - sizes[cluster] : ends[cluster]]
        found, counts = np.unique(strata[rows], return_counts=True)
        left[found] -= counts
        # What a split still lacks, relative to what it should have: small splits are not starved by large ones.
        lack = (counts[:, None] * (wanted[found] - given[found]) / np.maximum(wanted[found], 1e-9)).sum(axis=0)
        room = wanted.sum(axis=0) - given.sum(axis=0)
        lack[1:][room[1:] < len(rows) - 0.5] = -np.inf
        unknown = (given[found, 0] == 0) & (left[found] == 0)
        target = 0 if unknown.any() else int(np.argmax(lack))
        given[found, target] += counts
        split[rows] = target
    if len(several) and len(several) == len(sizes):
        _feed_the_starved(several, [members[ends[c] - sizes[c] : ends[c]] for c in several], wanted.shape[1], split)


def _feed_the_starved(clusters: Indices, rows: Sequence[Indices], splits: int, split: Indices) -> None:
    """Where nothing but clusters is there and a split got none: the smallest ones of split 0. Fills `split`."""
    for starved in range(1, splits):
        inside = [at for at in range(len(clusters)) if split[rows[at][0]] == 0]
        if not (split == starved).any() and len(inside) > 1:
            split[rows[inside[-1]]] = starved  # clusters come largest first
