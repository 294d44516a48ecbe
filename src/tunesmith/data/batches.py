"""Which rows make a step, and how a step is cut into forward passes. Pure functions of (lengths, seed, epoch).

Rows of similar length stand together, so that padding is a few per cent of the work; which rows meet in a step, and
in which order the steps come, is still chance. Where the loss is a mean over tokens, chance alone decides, and similar
rows stand together in forward passes only. Lengths are known from tokenising: nothing is read again.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tunesmith import seeds

Indices = npt.NDArray[np.int64]
WINDOW = 50
"""Steps whose rows are sorted by length together: more saves little padding, less mixes lengths more."""
PADDED = 0.25
"""Share of padding that makes it worth while to cut a forward pass in two."""


def steps_per_epoch(pieces: int, rows: int) -> int:
    """Optimiser steps of one epoch."""
    return math.ceil(pieces / rows)


def steps(
    lengths: Indices,
    rows: int,
    seed: int,
    epoch: int,
    order: Indices | None = None,
    together: int = 1,
    *,
    alike: bool = True,
) -> list[Indices]:
    """The examples of each optimiser step of one epoch; over all steps they are every example once.

    Args:
        lengths: (examples,).
        rows: of a step; one is `together` neighbouring examples, which no step parts.
        order: all rows, neighbours into one step; drawn, and sorted by length in windows, when absent.
        alike: whether it is so sorted.
    """
    random = seeds.generator(seed, "batches", epoch)
    lengths = joined(lengths, together)
    if order is None:
        order = random.permutation(len(lengths))
        window = rows * (WINDOW if alike else 1)
        parts = [order[start : start + window] for start in range(0, len(order), window)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
    cut = [order[start : start + rows] for start in range(0, len(order), rows)]
    if len(cut) > 1 and len(cut[-1]) == 1 and rows > 2:  # one row has no mean and deviation for batch-norm to take
        cut[-2:] = [cut[-2][:-1], np.concatenate([cut[-2][-1:], cut[-1]])]
    return [spread(cut[index], together) for index in random.permutation(len(cut))]


def joined(lengths: Indices, together: int) -> Indices:
    """(rows,): what each row costs, of (examples,) that belong `together` by so many neighbours."""
    return np.asarray(lengths.reshape(-1, together).sum(axis=1))


def spread(rows: Indices, together: int) -> Indices:
    """The examples of `rows`, each of which is `together` neighbours."""
    return (rows[:, None] * together + np.arange(together)).ravel()


def several_each(labels: Indices, each: int, seed: int, epoch: int) -> Indices:
    """All rows once, drawn, so that up to `each` of one label are neighbours: steps that are cut from it have rows that
    belong together and rows that do not (Hermans et al. 2017, section 2).

    Args:
        labels: (rows,) what each belongs to.
    """
    random = seeds.generator(seed, "order", epoch)
    drawn = random.permutation(len(labels))
    drawn = drawn[np.argsort(labels[drawn], kind="stable")]
    ends = np.flatnonzero(np.diff(labels[drawn])) + 1
    chunks = [group[start : start + each] for group in np.split(drawn, ends) for start in range(0, len(group), each)]
    return np.concatenate([chunks[place] for place in random.permutation(len(chunks))])


def share(step: Indices, rank: int, processes: int) -> Indices:
    """The rows of `step` that process `rank` of `processes` works on; may be empty in a short last step."""
    return step[rank::processes]


def micro_batches(indices: Indices, lengths: Indices, tokens: int, *, spare: bool = False) -> list[Indices]:
    """`indices` cut so that rows × longest row of each part stays within `tokens` (a longer row stands alone); to `spare`
    padding also where more than `PADDED` of a part would be padding.

    A single row that is left over takes a neighbour in where two of its length fit: batch normalisation that trains knows no
    variance of one.
    """
    ordered = indices[np.argsort(lengths[indices], kind="stable")]
    parts: list[Indices] = []
    start = 0
    for end in range(1, len(ordered) + 1):
        size = 0 if end == len(ordered) else (end + 1 - start) * int(lengths[ordered[end]])
        wasteful = spare and size > 0 and lengths[ordered[start : end + 1]].sum() < (1 - PADDED) * size
        if end == len(ordered) or size > tokens or wasteful:
            parts.append(ordered[start:end])
            start = end
    if (
        not spare
        and len(parts) > 1
        and len(parts[-1]) == 1 < len(parts[-2]) - 1
        and 2 * int(lengths[parts[-1][0]]) <= tokens
    ):
        parts[-2:] = [parts[-2][:-1], np.concatenate([parts[-2][-1:], parts[-1]])]
    return parts


def in_length_order(lengths: Indices, tokens: int) -> list[Indices]:
    """All rows, for a pass that trains nothing: longest first, so that memory runs out at once or never."""
    return micro_batches(np.arange(len(lengths)), lengths, tokens)[::-1]
