"""Whether two rows show the same thing: what vectors of length 1 say of it, about identities that were never taught.

Every row asks all others. What it finds, and how similar the others are, is worked out once; a resample only weighs the rows
that ask, so that rows, and whole identities, can be drawn anew. What is found among, the gallery, stays as it is.

Similarities are counted in bins whose ends are quantiles of those that occur: vectors that all point nearly one way, as those
of pre-trained networks do, are told apart as well as others.

Shared by all functions:
    embeddings: (rows, width) of length 1.
    identity: (rows,) whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics.checks import check_finite, check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

Array = npt.NDArray[Any]
MARKS = 160
"""Quantiles of each kind of pair."""
TAIL = 0.05
"""Of pairs of two identities, the most similar, which have quantiles of their own: what few of them reach lies there."""
SAMPLED = 1_000_000
"""Similarities that quantiles are taken of."""
CELLS = 2**20
"""Of equal width, from which bins are made up: a table finds a bin sooner than a search."""
ROUNDING = 5e-7
"""By which similarities that are the same may differ in fp32."""
FEW = 5
FALSE_ACCEPTS = 0.01
BLOCK = 4_000_000
"""Similarities held at once."""


@dataclass(frozen=True)
class Compared:
    """What each row finds when it asks all others."""

    asks: Array
    """(rows,) whether there is another row of its identity."""
    first: Array
    """(rows,) whether the most similar other row is of its identity."""
    fifth: Array
    """(rows,) whether one of the five most similar is."""
    precision_at_r: Array
    """(rows,) MAP@R (Musgrave et al. 2020, section 3.2): of the R most similar, R being how many there are to find."""
    same: Array
    """(rows, bins) how many others of its identity are so similar, and"""
    others: Array
    """(rows, bins) how many of other identities."""
    edges: Array
    """(bins + 1,) the ends of the bins, ascending, as similarities."""

    def __len__(self) -> int:
        return len(self.asks)


def compare(embeddings: Array, identity: Array) -> Compared:
    """Let every row ask all others.

    Raises:
        DataError: no rows, other lengths, or what is no number.
    """
    check_rows(embeddings, identity)
    check_finite(embeddings, "embeddings")
    count = len(embeddings)
    vectors = embeddings.astype(np.float32)
    sizes = np.bincount(np.unique(identity, return_inverse=True)[1])
    deepest = int(min(count - 1, max(FEW, sizes.max() - 1)))
    edges = _edges(vectors, identity)
    table, bins = _table(edges), len(edges) - 1
    parts: list[list[Array]] = [[] for _ in range(5)]
    step = max(1, BLOCK // count)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        near = vectors[rows] @ vectors.T
        alike = identity[rows, None] == identity[None]
        itself = np.arange(len(rows)), rows
        alike[itself] = False
        places = table[_cells(near, edges)] + bins * np.arange(len(rows))[:, None]
        same = np.bincount(places[alike], minlength=len(rows) * bins)
        everything = np.bincount(places.ravel(), minlength=len(rows) * bins)
        everything[places[itself]] -= 1
        near[itself] = -np.inf
        wanted = alike.sum(axis=1)
        hits = np.take_along_axis(alike, _nearest(near, deepest), axis=1)
        found: list[Array] = [np.asarray(hits[:, :deep].any(axis=1)) for deep in (1, FEW)]
        found.append(_precision(hits, wanted))
        found += [one.reshape(len(rows), bins).astype(np.float32) for one in (same, everything - same)]
        for part, values_ in zip(parts, found, strict=True):
            part.append(values_)
    first, fifth, precision, same, others = (np.concatenate(part) for part in parts)
    return Compared(same.sum(axis=1) > 0, first, fifth, precision, same, others, edges)


def _edges(vectors: Array, identity: Array) -> Array:
    """(bins + 1,) ascending: quantiles of the similarities of pairs of one identity, and of pairs of two.

    Those of one identity lie a little below what they are taken of and the others a little above, so that pairs which a
    similarity tells apart share no bin, whatever rounding does to them.
    """
    count = len(vectors)
    few = np.random.default_rng(0).permutation(count)[: max(1, SAMPLED // count)]
    near = (vectors[few] @ vectors.T).astype(np.float64)
    alike, others = identity[few, None] == identity[None], identity[few, None] != identity[None]
    alike[np.arange(len(few)), few] = False
    beside = max(ROUNDING, 2 * float(near.max() - near.min()) / CELLS)
    found = [np.array([near.min() - 2 * beside, near.max() + 2 * beside])]
    whole = np.linspace(0, 1, MARKS)
    if alike.any():
        found.append(np.quantile(near[alike], whole) - beside)
    if others.any():
        found.append(np.quantile(near[others], np.concatenate([whole, 1 - TAIL * whole])) + beside)
    return np.unique(np.concatenate(found))


def _cells(near: Array, edges: Array) -> Array:
    """The cell of each similarity; those beyond the ends, which quantiles of a sample may miss, in the outermost."""
    width = (edges[-1] - edges[0]) / CELLS
    found = (near - np.float32(edges[0])) * np.float32(1 / width)
    return np.asarray(np.clip(found, 0, CELLS - 1), dtype=np.int64)


def _table(edges: Array) -> Array:
    """(CELLS,) the bin that each cell belongs to."""
    starts = np.linspace(edges[0], edges[-1], CELLS, endpoint=False)
    return np.asarray(np.searchsorted(edges[1:-1], starts, side="right"), dtype=np.int64)


def _nearest(near: Array, count: int) -> Array:
    """(rows, count) the most similar columns, most similar first; of equals those that come first."""
    if not count:
        return np.zeros((len(near), 0), dtype=np.int64)
    some = np.sort(np.argpartition(-near, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(near, some, axis=1), axis=1, kind="stable")
    found = np.take_along_axis(some, order, axis=1)
    # Which of the equals at its border a partition takes depends on the processor; vectors that are all one have only such.
    tied = (near >= np.take_along_axis(near, found[:, -1:], axis=1)).sum(axis=1) > count
    found[tied] = np.argsort(-near[tied], axis=1, kind="stable")[:, :count]
    return found


def _precision(hits: Array, wanted: Array) -> Array:
    """(rows,): the sum of the precisions at each hit among the first R answers, divided by R."""
    ranks = np.arange(1, hits.shape[1] + 1)
    inside = hits & (ranks <= wanted[:, None])
    return np.asarray((inside * hits.cumsum(axis=1) / ranks).sum(axis=1) / np.maximum(wanted, 1))


def _figures(compared: Compared, weights: Array) -> dict[str, Array]:
    """Metrics by name, (resamples,) each; NaN where they are not defined."""
    asks = weights * compared.asks
    total = asks.sum(axis=1)

    def mean(values_: Array) -> Array:
        return np.asarray(np.divide(asks @ values_, total, out=np.full(len(weights), np.nan), where=total > 0))

    accepted, false = _rates(weights @ compared.same, weights @ compared.others)
    both = ~np.isnan(accepted[:, -1] + false[:, -1])  # there are pairs of either kind
    eer, _, _ = _crossing(accepted, false)
    steps = np.diff(false, axis=1)
    at = (false <= FALSE_ACCEPTS).sum(axis=1) - 1  # the last place with few enough
    at = np.clip(at, 0, accepted.shape[1] - 2)
    rows = np.arange(len(weights))
    low, high = false[rows, at], false[rows, at + 1]
    share = np.clip(np.divide(FALSE_ACCEPTS - low, high - low, out=np.zeros_like(low), where=high > low), 0, 1)
    tar = accepted[rows, at] + share * (accepted[rows, at + 1] - accepted[rows, at])
    return {
        "recall_at_1": mean(compared.first),
        "recall_at_5": mean(compared.fifth),
        "map_at_r": mean(compared.precision_at_r),
        "auroc": (steps * (accepted[:, 1:] + accepted[:, :-1]) / 2).sum(axis=1),
        "verification_accuracy": ((accepted + 1 - false) / 2).max(axis=1),
        "eer": np.where(both, eer, np.nan),
        "tar_at_far_1": np.where(both, tar, np.nan),
    }


def _rates(same: Array, others: Array) -> tuple[Array, Array]:
    """(resamples, bins + 1) each, as the similarity that is asked for falls: same pairs accepted, and different ones."""

    def share(counts: Array) -> Array:
        sums = np.cumsum(counts[:, ::-1], axis=1, dtype=np.float64)
        whole = sums[:, -1:]
        found = np.divide(sums, whole, out=np.full_like(sums, np.nan), where=whole > 0)
        return np.concatenate([np.where(whole > 0, 0.0, np.nan), found], axis=1)

    return share(same), share(others)


def _crossing(accepted: Array, false: Array) -> tuple[Array, Array, Array]:
    """Where as many same pairs are refused as different ones are accepted: the rate, and between which places among the bins'
    ends it holds; over a range, as it does of pairs that are told apart without a mistake, or at one place."""
    gap = np.round(false - (1 - accepted), 12)  # climbs from -1 to 1
    place = np.clip((gap < 0).sum(axis=1), 1, gap.shape[1] - 1)
    rows = np.arange(len(gap))
    before, after = gap[rows, place - 1], gap[rows, place]
    share = np.divide(-before, after - before, out=np.zeros_like(before), where=after > before)
    rate = false[rows, place - 1] + share * (false[rows, place] - false[rows, place - 1])
    first = place - 1 + share
    return rate, first, np.maximum((gap <= 0).sum(axis=1) - 1, first)


def values(compared: Compared) -> dict[str, float]:
    """Every metric by name; one is absent where there are no pairs that it needs."""
    found = _figures(compared, np.ones((1, len(compared))))
    return {name: float(value[0]) for name, value in found.items() if not np.isnan(value[0])}


def intervals(
    compared: Compared, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Every metric with its interval, rows (or groups of them) drawn anew."""
    drawn = weigh(lambda weights: _figures(compared, weights), len(compared), seed, groups, resamples)
    defined = {name: value[~np.isnan(value)] for name, value in drawn.items()}
    return percentiles(values(compared), defined, confidence)


def difference(
    name: str,
    first: Compared,
    second: Compared,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Metric `name` of `first` minus that of `second`, both on the same drawn rows."""
    check_rows(first.asks, second.asks)

    def apart(weights: Array) -> dict[str, Array]:
        one, other = (_figures(compared, weights)[name] for compared in (first, second))
        return {name: one - other}

    drawn = weigh(apart, len(first), seed, groups, resamples)[name]
    value = float(apart(np.ones((1, len(first))))[name][0])
    return percentiles({name: value}, {name: drawn[~np.isnan(drawn)]}, confidence).get(name, Interval(0.0, 0.0, 0.0))


def threshold(compared: Compared) -> float | None:
    """The similarity of the equal error rate, in the middle of where that holds; None where pairs of one kind are missing."""
    accepted, false = _rates(*_whole(compared))
    if np.isnan(accepted).any() or np.isnan(false).any():
        return None
    _, first, last = _crossing(accepted, false)
    falling = compared.edges[::-1]
    return float(np.interp([first[0], last[0]], np.arange(len(falling)), falling).mean())


def mistaken(embeddings: Array, identity: Array, least: float) -> tuple[float | None, float | None]:
    """What becomes of pairs where the similarity `least` counts as the same: the share of different ones that is accepted,
    and that of same ones that is refused; None where there are no such pairs.

    Raises:
        DataError: no rows, or other lengths.
    """
    check_rows(embeddings, identity)
    vectors = embeddings.astype(np.float32)
    pairs, wrong = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)  # of two identities, and of one
    step = max(1, BLOCK // len(vectors))
    for start in range(0, len(vectors), step):
        accepted = vectors[start : start + step] @ vectors.T >= least
        rows = np.arange(len(accepted))
        alike = identity[start : start + step, None] == identity[None]
        pairs += [(~alike).sum(), alike.sum() - len(rows)]
        alike[rows, rows + start] = False
        accepted[rows, rows + start] = False
        wrong += [(accepted & ~alike).sum(), (alike & ~accepted).sum()]
    false, refused = (int(some) / int(all_) if all_ else None for some, all_ in zip(wrong, pairs, strict=True))
    return false, refused


def most_like(embeddings: Array, prototypes: Array) -> tuple[Array, Array]:
    """(rows,) which of the `prototypes`, (prototypes, width) of length 1, is the most similar, and how similar it is."""
    found: list[tuple[Array, Array]] = []
    step = max(1, BLOCK // len(prototypes))
    for start in range(0, max(1, len(embeddings)), step):
        near = embeddings[start : start + step] @ prototypes.T
        found.append((near.argmax(axis=1), near.max(axis=1)))
    which, how = zip(*found, strict=True)
    return np.concatenate(which), np.concatenate(how)


def nearest_other(embeddings: Array) -> tuple[Array, Array]:
    """(rows,) the most similar other row of each, and how similar it is; itself where it is the only one."""
    nearest, similarity = [], []
    for row, vector in enumerate(embeddings):
        near = embeddings @ vector
        if len(near) > 1:
            near[row] = -np.inf
        nearest.append(int(near.argmax()))
        similarity.append(float(near.max()))
    return np.array(nearest, dtype=np.int64), np.array(similarity)


def confused(embeddings: Array, identity: Array) -> list[tuple[float, int, int, int, float]]:
    """Rows that the most similar other row misleads, the most similar first: how similar it is, the row, that one, the most
    similar of its own identity, and how similar this is."""
    found = []
    for row, vector in enumerate(embeddings):
        near = embeddings @ vector
        near[row] = -np.inf
        own = np.where(identity == identity[row], near, -np.inf)
        best, right = int(near.argmax()), int(own.argmax())
        if np.isfinite(own[right]) and identity[best] != identity[row]:
            found.append((float(near[best]), row, best, right, float(near[right])))
    return sorted(found, reverse=True)


def described(compared: Compared, embeddings: Array, identity: Array, least: float | None) -> dict[str, Any]:
    """What stands behind the figures: how many rows ask, the curve, and what becomes of pairs at the `threshold` `least`."""
    images = np.unique(identity, return_counts=True)[1]
    false, refused = (None, None) if least is None else mistaken(embeddings, identity, least)
    return {
        "threshold": least,
        "false_accept_rate": false,
        "false_reject_rate": refused,
        "identities": len(images),
        "identities_with_pairs": int((images > 1).sum()),
        "images": len(identity),
        "queries": int(compared.asks.sum()),
        "roc": [[round(end, 4) for end in point] for point in roc(compared)],
    }


def roc(compared: Compared, points: int = 200) -> list[tuple[float, float]]:
    """Shares of different and of same pairs that are accepted, as the similarity that is asked for falls."""
    accepted, false = _rates(*_whole(compared))
    if np.isnan(accepted).any() or np.isnan(false).any():
        return []
    at = np.linspace(0, 1, points)
    # Of equal shares of false accepts the best counts.
    ends = np.maximum.accumulate(accepted[0])
    known, place = np.unique(false[0][::-1], return_index=True)
    return [(float(x), float(y)) for x, y in zip(at, np.interp(at, known, ends[::-1][place]), strict=True)]


def _whole(compared: Compared) -> tuple[Array, Array]:
    return compared.same.sum(axis=0, dtype=np.float64)[None], compared.others.sum(axis=0, dtype=np.float64)[None]


def loss(embeddings: Array, identity: Array, temperature: float = 0.1) -> float:
    """The soft nearest neighbour loss (Frosst et al. 2019, equation 1) over rows that have another of their identity.

    Raises:
        DataError: no rows, or other lengths.
    """
    check_rows(embeddings, identity)
    count, total, asked = len(embeddings), 0.0, 0
    vectors = embeddings.astype(np.float32)
    step = max(1, BLOCK // count)
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        near = vectors[rows] @ vectors.T / np.float32(temperature)
        near[np.arange(len(rows)), rows] = -np.inf
        alike = identity[rows, None] == identity[None]
        alike[np.arange(len(rows)), rows] = False
        some = alike.any(axis=1)
        own = _log_sum(np.where(alike[some], near[some], np.float32(-np.inf)))
        total += float((_log_sum(near[some]) - own).sum())
        asked += int(some.sum())
    return total / asked if asked else 0.0


def unit(vectors: Array) -> Array:
    """`vectors`, (rows, width), of length 1."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _log_sum(logits: Array) -> Array:
    """(rows,): log of the sum of exp over columns; many times faster than np.logaddexp.reduce."""
    peak = logits.max(axis=1, keepdims=True)
    return np.asarray(peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1, dtype=np.float64)))
