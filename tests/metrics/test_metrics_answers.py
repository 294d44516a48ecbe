"""Metrics of answers against the rules of SQuAD 2.0's own script, written down a second time here, and the threshold against
trying every one."""

from __future__ import annotations

import re
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tunesmith.errors import DataError
from tunesmith.metrics import answers

WORDS = st.lists(
    st.sampled_from(["the", "a", "An", "cat", "Cat.", "cats", "dog's", "--", "$5", "theory", "é", "x-ray", "I, too"]),
    max_size=5,
).map(" ".join)


def official(text: str) -> str:
    """normalize_answer of evaluate-v2.0.py, one rule after the other."""
    text = "".join(sign for sign in text.lower() if sign not in set(string.punctuation))
    text = re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)
    return " ".join(text.split())


def official_f1(gold: str, found: str) -> float:
    """compute_f1 of it."""
    gold_words, found_words = official(gold).split(), official(found).split()
    if not gold_words or not found_words:
        return float(gold_words == found_words)
    same = sum((Counter(gold_words) & Counter(found_words)).values())
    if not same:
        return 0.0
    precision, recall = same / len(found_words), same / len(gold_words)
    return 2 * precision * recall / (precision + recall)


def official_scores(found: str, golds: list[str]) -> tuple[float, float]:
    """get_raw_scores of it, for one question."""
    golds = [gold for gold in golds if official(gold)] or [""]
    return max(float(official(gold) == official(found)) for gold in golds), max(official_f1(g, found) for g in golds)


@given(WORDS, st.lists(WORDS, max_size=3))
def test_scores_are_those_of_squads_script(found: str, golds: list[str]) -> None:
    assert answers.scored([found], [golds])[0] == pytest.approx(official_scores(found, golds))


@pytest.mark.parametrize(
    ("found", "golds", "exact", "f1"),
    [
        ("the Eiffel Tower.", ["Eiffel tower"], 1, 1),
        ("Eiffel", ["Eiffel tower", "tower"], 0, 2 / 3),
        ("tower tower", ["tower"], 0, 2 / 3),
        ("in Paris", ["Paris, in"], 0, 1),
        ("London", ["Paris"], 0, 0),
        ("", ["Paris"], 0, 0),
        ("Paris", [], 0, 0),
        ("", [], 1, 1),
        ("...", [], 1, 1),  # nothing is left of it
        ("", ["the"], 1, 1),  # nor of this, which therefore counts as no answer
        ("", ["the", "Paris"], 0, 0),
        ("$", ["$"], 1, 1),
    ],
)
def test_of_several_answers_the_best_counts_and_none_must_be_none(
    found: str, golds: list[str], exact: float, f1: float
) -> None:
    assert answers.exact(found, golds) == exact
    assert answers.f1(found, golds) == pytest.approx(f1)


def test_in_scripts_without_blanks_each_sign_is_a_word() -> None:
    assert answers.normalised("1949年在北京。") == ["1949", "年", "在", "北", "京"]
    assert answers.normalised("「東京」 タワー") == ["東", "京", "タ", "ワ", "ー"]
    assert answers.f1("在北京", ["北京"]) == pytest.approx(4 / 5)
    assert answers.exact("北京。", ["北 京"]) == 1
    assert answers.normalised("서울 시청") == ["서울", "시청"]


def test_the_same_accents_are_the_same_letters_however_they_are_composed() -> None:
    assert answers.exact("cafe\u0301", ["caf\u00e9"]) == 1


def test_rows_must_be_there_and_of_one_number() -> None:
    with pytest.raises(DataError, match="no rows"):
        answers.scored([], [])
    with pytest.raises(DataError, match="differ in length"):
        answers.scored(["a"], [])


def rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    exact = random.random(count) < 0.5
    return np.stack([exact, np.maximum(exact, random.random(count))], axis=1), random.random(count) < 0.7


def test_intervals_are_over_all_questions_and_over_those_with_and_without_an_answer() -> None:
    scores, answerable = rows(0, 200)
    found = answers.intervals(scores, answerable, seed=0, resamples=300)
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {
            "exact_match": scores[:, 0].mean(),
            "f1": scores[:, 1].mean(),
            "answerable_exact_match": scores[answerable, 0].mean(),
            "answerable_f1": scores[answerable, 1].mean(),
            "unanswerable_accuracy": scores[~answerable, 0].mean(),
        }
    )
    assert all(one.low <= one.value <= one.high for one in found.values())
    for kind in (np.ones(200, dtype=bool), np.zeros(200, dtype=bool)):
        assert set(answers.intervals(scores, kind, seed=0, resamples=20)) == {"exact_match", "f1"}


def test_a_draw_without_a_question_of_a_kind_says_nothing_of_it() -> None:
    scores, answerable = np.ones((6, 2)), np.array([True] * 5 + [False])
    found = answers.intervals(scores, answerable, seed=0, resamples=300)["unanswerable_accuracy"]
    assert (found.low, found.value, found.high) == (1, 1, 1)


def test_rows_of_one_group_are_drawn_together() -> None:
    scores, answerable = rows(1, 200)
    scores[:100], scores[100:] = 0, 1
    alone = answers.intervals(scores, answerable, seed=0, resamples=300)["f1"]
    together = answers.intervals(scores, answerable, seed=0, resamples=300, groups=np.repeat([0, 1], 100))["f1"]
    assert alone.high - alone.low < 0.2
    assert (together.low, together.high) == (0, 1)


def test_a_difference_is_paired_by_question() -> None:
    scores, answerable = rows(2, 60)
    for name in ("f1", "answerable_f1", "unanswerable_accuracy"):
        same = answers.difference(name, scores, scores, answerable, seed=0)
        assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = scores - 0.1
    found = answers.difference("f1", scores, worse, answerable, seed=0)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


# The threshold

HALVES = st.sampled_from([0.0, 0.5, 1.0])  # sums of these are exact, so that ties are ties
MARGINS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
ROWS = st.lists(st.tuples(MARGINS, HALVES, HALVES), min_size=1, max_size=12).map(lambda found: np.array(found).T)


def mean(found: np.ndarray, threshold: float) -> float:
    margins, given_, none = found
    return float(np.where(margins > threshold, none, given_).mean())


@given(ROWS)
def test_no_threshold_does_better_than_the_one_found(found: np.ndarray) -> None:
    best = answers.threshold(*found)
    everyone = [-np.inf, *found[0], np.inf]
    assert np.isfinite(best)
    assert mean(found, best) == pytest.approx(max(mean(found, one) for one in everyone))


@given(ROWS)
def test_the_threshold_lies_between_rows_and_of_equals_it_is_the_highest(found: np.ndarray) -> None:
    best = answers.threshold(*found)
    above = [one for one in found[0] if one > best]
    assert all(mean(found, one) < mean(found, best) for one in above)
    assert found[0].min() - 1 <= best <= found[0].max() + 1


@given(arrays.arrays(np.float32, st.integers(1, 8), elements=st.floats(-8, 8, width=32)), st.integers(0, 7))
def test_narrow_margins_are_parted_as_wide_ones_are(margins: np.ndarray, count: int) -> None:
    """Also where two neighbours have no number between them."""
    margins = np.concatenate([margins, np.nextafter(margins, np.float32(9))])
    given_ = (margins <= np.sort(margins)[min(count, len(margins) - 1)]).astype(np.float64)
    best = answers.threshold(margins, given_, 1 - given_)
    assert ((margins <= best) == given_.astype(bool)).all()


def test_where_all_have_an_answer_one_is_always_given_and_where_none_has_never() -> None:
    margins, right, wrong = np.array([3.0, -1.0, 0.5]), np.array([0.0, 1.0, 0.5]), np.zeros(3)
    assert answers.threshold(margins, right, wrong) == 4
    assert answers.threshold(margins, wrong, np.ones(3)) == -2
    assert answers.threshold(margins, np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0])) == 1.75
    with pytest.raises(DataError, match="no rows"):
        answers.threshold(wrong[:0], wrong[:0], wrong[:0])
