"""Metrics of answers, as SQuAD's own script has them (Rajpurkar et al. 2016, section 6.1; 2018, section 5).

Texts are compared without case, punctuation and the articles of English. In scripts without blanks each sign is a word, as
MLQA's script has it for Chinese (Lewis et al. 2020), and their own punctuation goes too.

Shared by all functions:
    scores: (rows, 2) exact match and F1, from 0 to 1.
    answerable: (rows,) whether the question has an answer.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics.checks import check_rows
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.resampling import Groups, percentiles, weigh

Array = npt.NDArray[Any]
NAMES = ("exact_match", "f1")
_WIDE = "".join(sign for sign in map(chr, (*range(0x3000, 0x3040), *range(0xFF00, 0xFF66))) if not sign.isalnum())
_PUNCTUATION = str.maketrans("", "", string.punctuation + _WIDE.replace("\u3000", ""))  # which is a blank
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_UNPARTED = re.compile(
    "(["
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese
    "])"
)


def normalised(text: str) -> list[str]:
    """The words of `text` as they are compared; letters composed, so that the same accents are the same letters."""
    plain = _ARTICLES.sub(" ", unicodedata.normalize("NFC", text.lower()).translate(_PUNCTUATION))
    return _UNPARTED.sub(r" \1 ", plain).split()


def exact(found: str, answers: Sequence[str]) -> float:
    """1 where `found` is one of `answers`; where there is none, whether nothing was found."""
    return float(normalised(found) in _wanted(answers))


def f1(found: str, answers: Sequence[str]) -> float:
    """The best of the F1s, over words, with each of `answers`; where there is none, whether nothing was found."""
    own = normalised(found)
    return max(_f1(own, words) for words in _wanted(answers))


def scored(found: Sequence[str], answers: Sequence[Sequence[str]]) -> Array:
    """(rows, 2): `scores` of what was found.

    Raises:
        DataError: there are no rows, or lengths differ.
    """
    check_rows(np.empty(len(found)), np.empty(len(answers)))
    return np.array([(exact(one, own), f1(one, own)) for one, own in zip(found, answers, strict=True)])


def intervals(
    scores: Array,
    answerable: Array,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Every metric with its interval; of questions with and without an answer where there are some of both."""
    check_rows(scores, answerable)
    drawn = weigh(lambda weights: _means(weights, scores, answerable), len(scores), seed, groups, resamples)
    values = {name: float(one[0]) for name, one in _means(np.ones((1, len(scores))), scores, answerable).items()}
    return percentiles(values, drawn, confidence)


def difference(
    name: str,
    first: Array,
    second: Array,
    answerable: Array,
    *,
    seed: int,
    groups: Groups = None,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """Metric `name` of the scores `first` minus that of `second`, both on the same drawn rows."""
    check_rows(first, second, answerable)

    def apart(weights: Array) -> dict[str, Array]:
        one, other = (_means(weights, scores, answerable)[name] for scores in (first, second))
        return {name: one - other}

    drawn = weigh(apart, len(first), seed, groups, resamples)
    value = {name: float(apart(np.ones((1, len(first))))[name][0])}
    return percentiles(value, drawn, confidence)[name]


def threshold(margins: Array, given: Array, none: Array) -> float:
    """The margin above which giving no answer does best on these rows; between two rows, in their middle.

    Args:
        margins: (rows,) by how much no answer is likelier than the best one, finite.
        given: (rows,) the score where an answer is given, and
        none: (rows,) where none is.

    Raises:
        DataError: there are no rows, or lengths differ.
    """
    check_rows(margins, given, none)
    order = np.argsort(margins, kind="stable")
    ascending = margins[order]
    # What the first rows give when they are answered, for each number of them at which margins part; of equals the most.
    totals = np.concatenate([[0.0], np.cumsum((given - none)[order])])
    parting = np.concatenate([[True], ascending[1:] > ascending[:-1], [True]])
    best = len(order) - int(np.argmax(np.where(parting, totals, -np.inf)[::-1]))
    if best == 0:
        return float(ascending[0] - 1)
    if best == len(order):
        return float(ascending[-1] + 1)
    lower, upper = ascending[best - 1 : best + 1]
    middle = lower + (upper - lower) / 2
    return float(middle if middle < upper else lower)  # there may be no number between them


def _wanted(answers: Sequence[str]) -> list[list[str]]:
    """The words of each answer that has some; those of no answer where none has."""
    return [words for answer in answers if (words := normalised(answer))] or [[]]


def _f1(one: list[str], other: list[str]) -> float:
    if not one or not other:
        return float(one == other)
    shared = sum((Counter(one) & Counter(other)).values())
    return 2 * shared / (len(one) + len(other))


def _means(weights: Array, scores: Array, answerable: Array) -> dict[str, Array]:
    """(resamples,) of each metric; of those about one kind of question, a draw without any has no value."""
    found = {name: weights @ scores[:, place] / weights.sum(axis=1) for place, name in enumerate(NAMES)}
    if answerable.all() or not answerable.any():
        return found
    for rows, told in (
        (answerable, ("answerable_exact_match", "answerable_f1")),
        (~answerable, ("unanswerable_accuracy",)),
    ):
        own = weights[:, rows]
        own = own[own.any(axis=1)]
        found |= {name: own @ scores[rows, place] / own.sum(axis=1) for place, name in enumerate(told)}
    return found
