"""Written texts against their references, as summaries and translations are measured: ROUGE, BLEU, chrF, exact match.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are figures of whole sets of rows: what they count of each row is added up
first. Both come from sacrebleu (Post 2018), with its default settings, so that figures are comparable with published ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.demand import OnDemand
from tunesmith.errors import SettingsError
from tunesmith.metrics import written
from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

sacrebleu: Any = OnDemand("sacrebleu.metrics")
Array = npt.NDArray[Any]
OF_SETS = ("bleu", "chrf")
NAMES = ("rouge_l", "rouge_1", "rouge_2", *OF_SETS, "exact_match")
BLEU_COUNTS = 10
"""Numbers that BLEU keeps of a row: two lengths, and matches and n-grams of four lengths; those of chrF come after them."""


def insist() -> None:
    """Raise SettingsError where a package is missing."""
    missing = [name for name in ("rouge_score", "sacrebleu") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"Measuring written texts needs {' and '.join(missing).replace('_', '-')}, not installed here.",
            'Install it: pip install "tunesmith[text]"; or set task.metric=perplexity and task.written=0.',
        )


def counted(said: Sequence[str | None], references: Sequence[Sequence[str]]) -> Array:
    """(rows, numbers) all that the metrics take of each row: those of `written.scored`, then what BLEU and chrF count; NaN
    where nothing was written."""
    scores = written.scored(said, references)
    known = [row for row, text in enumerate(said) if text is not None]
    if not known:
        return scores
    texts = [said[row] for row in known]
    most = max(len(references[row]) for row in known)
    # As many streams as the row with the most references needs; the others have nothing there.
    streams = [[_at(references[row], place) for row in known] for place in range(most)]
    parts = [
        np.array(one._extract_corpus_statistics(texts, streams), dtype=np.float64)  # what its own bootstrap draws from
        for one in _metrics()
    ]
    found = np.full((len(said), sum(part.shape[1] for part in parts)), np.nan)
    found[known] = np.concatenate(parts, axis=1)
    return np.concatenate([scores, found], axis=1)


def intervals(
    counts: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> Mapping[str, Interval]:
    """Every metric over rows for which something was written, with its interval; none where nothing was."""
    kept = ~np.isnan(counts[:, 0])
    if not kept.any():
        return {}
    values, groups = counts[kept], None if groups is None else groups[kept]
    drawn = weigh(lambda weights: figures(values, weights), len(values), seed, groups, resamples)
    return percentiles(_whole(values), drawn, confidence)


def figure(counts: Array, metric: str) -> float:
    """One metric over rows for which something was written."""
    kept = counts[~np.isnan(counts[:, 0])]
    return float(figures(kept, np.ones((1, len(kept))), [metric])[metric][0])


def difference(
    first: Array,
    second: Array,
    metric: str,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """One metric of the counts `first` minus that of `second`, over rows that both were written for, drawn together."""
    check_rows(first, second)
    kept = ~np.isnan(first[:, 0]) & ~np.isnan(second[:, 0])
    one, other, groups = first[kept], second[kept], None if groups is None else groups[kept]

    def gap(weights: Array) -> dict[str, Array]:
        return {metric: figures(one, weights, [metric])[metric] - figures(other, weights, [metric])[metric]}

    drawn = weigh(gap, len(one), seed, groups, resamples)
    return percentiles({metric: _whole(one)[metric] - _whole(other)[metric]}, drawn, confidence)[metric]


def figures(counts: Array, weights: Array, names: Sequence[str] = NAMES) -> dict[str, Array]:
    """By metric (resamples,): its value where each row counts as often as `weights`, (resamples, rows), say. BLEU and chrF go
    to 100, as everywhere, the others to 1."""
    sums = weights @ counts
    rows, width = weights.sum(axis=1), len(written.NAMES)
    found = {name: sums[:, place] / rows for place, name in enumerate(written.NAMES)}
    columns = {"bleu": slice(width, width + BLEU_COUNTS), "chrf": slice(width + BLEU_COUNTS, None)}
    for name, metric in zip(OF_SETS, _metrics(), strict=True):
        if name in names:
            found[name] = np.array([_score(metric, one) for one in sums[:, columns[name]]])
    return {name: found[name] for name in names}


def _whole(counts: Array) -> dict[str, float]:
    return {name: float(one[0]) for name, one in figures(counts, np.ones((1, len(counts)))).items()}


def _score(metric: Any, sums: Array) -> float:
    return float(metric._compute_score_from_stats([round(one) for one in sums]).score)


def _metrics() -> tuple[Any, Any]:
    """BLEU and chrF, as `OF_SETS` has them."""
    return sacrebleu.BLEU(), sacrebleu.CHRF()


def _at(texts: Sequence[str], place: int) -> str | None:
    return texts[place] if place < len(texts) else None
