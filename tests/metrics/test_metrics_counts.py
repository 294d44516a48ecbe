"""Intervals of metrics of counts: whatever is held at once, the same sums; and never much of it."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest

from tunesmith.metrics import counts as counting
from tunesmith.metrics import segmentation, tagging
from tunesmith.metrics.resampling import weights

HOW = {"seed": 0, "groups": None, "resamples": 50, "confidence": 0.95}


def drawn(rows: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (rows, *shape)).astype(np.int32)


def shares(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {"share": sums[..., 0, 0] / sums.sum(axis=(-2, -1))}


@pytest.mark.parametrize("most", [1, 70, 1_000_000])
def test_what_is_held_at_once_changes_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, other = drawn(40, (5, 3)), drawn(40, (5, 3))[::-1]
    sums, others = (next(weights(40, 0, None, 50)) @ one.reshape(40, -1).astype(float) for one in (counts, other))
    expected, gaps = sums[:, 0] / sums.sum(axis=1), sums[:, 0] / sums.sum(axis=1) - others[:, 0] / others.sum(axis=1)
    monkeypatch.setattr(counting, "MOST_NUMBERS", most)
    found = counting.intervals(shares, counts, **HOW)["share"]
    assert (found.low, found.high) == tuple(np.quantile(expected, [0.025, 0.975]))
    gap = counting.difference(shares, "share", counts, other, **HOW)
    assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(gaps, [0.025, 0.975])))


@pytest.mark.parametrize(
    ("metrics", "counts"), [(segmentation, drawn(200, (100, 100))), (tagging, drawn(20_000, (100, 3)))]
)
def test_memory_does_not_grow_with_rows_and_classes(metrics: object, counts: np.ndarray) -> None:
    tracemalloc.start()
    metrics.intervals(counts, seed=0, resamples=400)  # type: ignore[attr-defined]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 45_000_000  # as float64, all counts of tags would be 48 MB, and all sums of masks 32


def test_figures_of_millions_of_words_do_not_overflow() -> None:
    counts = np.full((4, 3, 3), 500_000, dtype=np.int32)
    with warnings.catch_warnings(action="error"):
        assert tagging.intervals(counts, seed=0)["token_accuracy"].value == 1
