"""How near written texts are to what could have been written: the same to the letter, and by the words that they share.

ROUGE (Lin 2004, sections 2 and 3.1) comes from the package rouge-score. Words are those of any script: letters and digits in
a row, and each sign of a script without blanks; case does not count, and nothing is stemmed.
"""

from __future__ import annotations

import importlib.util
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.demand import OnDemand
from tunesmith.errors import SettingsError
from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

scorer: Any = OnDemand("rouge_score.rouge_scorer")
Array = npt.NDArray[Any]
NAMES = ("exact_match", "rouge_l", "rouge_1", "rouge_2")
_KINDS = ("rougeL", "rouge1", "rouge2")
_WORDS = re.compile(r"[\u3005-\u9fff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uac00-\ud7a3\U00020000-\U0003ffff]|[^\W_]+")


class Words:
    """A tokenizer of rouge-score's kind; its own knows a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        """The words of `text`, in lower case."""
        return _WORDS.findall(unicodedata.normalize("NFKC", text).lower())


def insist() -> None:
    """Raise SettingsError where rouge-score is not installed."""
    if importlib.util.find_spec("rouge_score") is None:
        raise SettingsError(
            "Comparing written texts needs rouge-score, which is not installed.",
            'Install it: pip install "tunesmith[text]"; or set task.written=0.',
        )


def scored(said: Sequence[str | None], references: Sequence[Sequence[str]]) -> Array:
    """(rows, 4) exact match, and F1 of the longest common subsequence, of words and of pairs of words, each with the best of
    the row's `references`; NaN where nothing was written."""
    check_rows(np.empty(len(said)), np.empty(len(references)))
    found = np.full((len(said), len(NAMES)), np.nan)
    rouge = scorer.RougeScorer(list(_KINDS), tokenizer=Words())
    for row, (text, known) in enumerate(zip(said, references, strict=True)):
        if text is None:
            continue
        exact = float(any(_plain(text) == _plain(one) for one in known))
        scores = [rouge.score(one, text) for one in known]
        likest = [max((one[kind].fmeasure for one in scores), default=0.0) for kind in _KINDS]
        found[row] = exact, *(max(one, exact) for one in likest)
    return found


def intervals(
    scores: Array, *, seed: int, groups: Groups = None, resamples: int = 1000, confidence: float = 0.95
) -> Mapping[str, Interval]:
    """The mean of each column of `scored`, over rows for which something was written; none where nothing was."""
    kept = ~np.isnan(scores[:, 0])
    if not kept.any():
        return {}
    values, groups = scores[kept], None if groups is None else groups[kept]

    def means(weights: Array) -> dict[str, Array]:
        found = weights @ values / weights.sum(axis=1, keepdims=True)
        return {name: found[:, column] for column, name in enumerate(NAMES)}

    drawn = weigh(means, len(values), seed, groups, resamples)
    whole = {name: float(one[0]) for name, one in means(np.ones((1, len(values)))).items()}
    return percentiles(whole, drawn, confidence)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
