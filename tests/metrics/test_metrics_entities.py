"""Metrics of entities and of tags against seqeval and scikit-learn, and their intervals over rows."""

from __future__ import annotations

import warnings
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics as seqeval
from seqeval.scheme import IOB2
from sklearn import metrics

from tunesmith.errors import DataError
from tunesmith.metrics import entities, tagging
from tunesmith.metrics.entities import Row

CLASSES = ("LOC", "ORG", "PER", "MISC")
WORDS = 12


def row(random: np.random.Generator) -> Row:
    """Entities that share no word."""
    found, place = [], 0
    while place < WORDS:
        length = int(random.integers(1, 4))
        if random.random() < 0.5 and place + length <= WORDS:
            found.append((place, place + length, int(random.integers(3))))  # never of the last class
        place += length
    return found


def told(random: np.random.Generator, truth: Row) -> Row:
    """Some as they are, some of another class, some shorter, some not at all."""
    found = []
    for first, last, label in truth:
        chance = random.random()
        if chance < 0.5:
            found.append((first, last, label))
        elif chance < 0.7:
            found.append((first, last, (label + 1) % 4))
        elif chance < 0.85 and last - first > 1:
            found.append((first, last - 1, label))
    return found


def rows(seed: int, count: int = 10) -> tuple[list[Row], list[Row], np.ndarray]:
    random = np.random.default_rng(seed)
    truth = [row(random) for _ in range(count)]
    found = [told(random, one) if random.random() < 0.8 else row(random) for one in truth]
    return truth, found, entities.counted(truth, found, len(CLASSES))


def tags(of: list[Row]) -> list[list[str]]:
    found = []
    for one in of:
        line = ["O"] * WORDS
        for first, last, label in one:
            line[first:last] = [f"B-{CLASSES[label]}", *[f"I-{CLASSES[label]}"] * (last - first - 1)]
        found.append(line)
    return found


@given(st.integers(0, 80))
def test_metrics_are_those_of_seqeval(seed: int) -> None:
    truth, found, counts = rows(seed)
    value = entities.from_counts(counts.sum(axis=0))
    pair = (tags(truth), tags(found))
    with warnings.catch_warnings(action="ignore"):  # seqeval has one for each class without a prediction
        strict = {"mode": "strict", "scheme": IOB2}
        assert value["entity_f1"] == pytest.approx(seqeval.f1_score(*pair, **strict))
        assert value["entity_precision"] == pytest.approx(seqeval.precision_score(*pair, **strict))
        assert value["entity_recall"] == pytest.approx(seqeval.recall_score(*pair, **strict))
        assert value["entity_macro_f1"] == pytest.approx(seqeval.f1_score(*pair, average="macro", **strict))
        report = seqeval.classification_report(*pair, output_dict=True, **strict)
    for name, one in zip(CLASSES, entities.per_class(counts), strict=True):
        other = report.get(name, {"f1-score": 0, "precision": 0, "recall": 0, "support": 0})
        assert one["f1"] == pytest.approx(other["f1-score"])
        assert one["precision"] == pytest.approx(other["precision"])
        assert one["recall"] == pytest.approx(other["recall"])
        assert one["support"] == other["support"]


@given(st.integers(0, 80))
def test_what_is_right_is_never_more_than_what_is_there(seed: int) -> None:
    truth, found, counts = rows(seed)
    true, predicted, right = np.moveaxis(counts, -1, 0)
    assert (right <= np.minimum(true, predicted)).all()
    assert true.sum() == sum(map(len, truth))
    assert [one["found"] for one in entities.per_class(counts)] == predicted.sum(axis=0).tolist()
    whole = entities.from_counts(entities.counted(truth, truth, len(CLASSES)).sum(axis=0))
    assert all(value in (0, 1) for value in whole.values())
    other = entities.from_counts(entities.counted(found, truth, len(CLASSES)).sum(axis=0))
    assert other["entity_precision"] == entities.from_counts(counts.sum(axis=0))["entity_recall"]


def test_an_entity_is_right_with_all_its_words_and_its_class_alone() -> None:
    truth = [[(0, 2, 0), (4, 5, 1)], [(1, 2, 1)], []]
    found = [[(0, 1, 0), (4, 5, 1), (4, 5, 1)], [(1, 2, 0)], []]
    counts = entities.counted(truth, found, 3)
    assert counts.tolist() == [[[1, 1, 0], [1, 1, 1], [0, 0, 0]], [[0, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 0]] * 3]
    value = entities.from_counts(counts.sum(axis=0))
    assert value["entity_f1"] == pytest.approx(2 / 6)
    assert value["entity_macro_f1"] == pytest.approx((0 + 2 / 3) / 2)


def test_nothing_found_and_nothing_there_is_zero() -> None:
    value = entities.from_counts(entities.counted([[], []], [[], []], 2).sum(axis=0))
    assert set(map(float, value.values())) == {0}
    assert entities.intervals(entities.counted([[], []], [[], []], 2), seed=0)["entity_f1"].high == 0


def test_rows_that_do_not_pair_are_refused() -> None:
    with pytest.raises(DataError, match="differ in length: 2 and 1 rows"):
        entities.counted([[], []], [[]], 2)
    with pytest.raises(DataError, match="no rows to measure"):
        tagging.counted([], [], 2)
    with pytest.raises(DataError, match="the 2 classes"):
        tagging.counted([[0, 1]], [[0, 2]], 2)
    with pytest.raises(DataError, match="differ in length"):
        tagging.counted([[0, 1]], [[0]], 2)


def tagged(seed: int, count: int = 10) -> tuple[list[list[int]], list[list[int]], np.ndarray]:
    random = np.random.default_rng(seed)
    truth = [random.integers(0, 4, random.integers(1, 9)).tolist() for _ in range(count)]
    found = [[tag if random.random() < 0.6 else int(random.integers(4)) for tag in one] for one in truth]
    return truth, found, tagging.counted(truth, found, 5)


@given(st.integers(0, 50))
def test_metrics_of_tags_are_those_of_all_words(seed: int) -> None:
    truth, found, counts = tagged(seed)
    flat = [tag for one in truth for tag in one], [tag for one in found for tag in one]
    value = tagging.from_counts(counts.sum(axis=0))
    assert value["token_accuracy"] == pytest.approx(metrics.accuracy_score(*flat))
    assert value["macro_f1"] == pytest.approx(metrics.f1_score(*flat, average="macro"))
    each = metrics.f1_score(*flat, average=None, labels=range(5), zero_division=0)
    assert [one["f1"] for one in tagging.per_class(counts)] == pytest.approx(each.tolist())
    assert [one["support"] for one in tagging.per_class(counts)] == [flat[0].count(tag) for tag in range(5)]


def a_thing(name: str, seed: int, count: int) -> tuple[ModuleType, str, np.ndarray]:
    if name == "entities":
        return entities, "entity_f1", rows(seed, count)[2]
    return tagging, "token_accuracy", tagged(seed, count)[2]


@pytest.mark.parametrize("name", ["entities", "tags"])
def test_intervals_are_those_of_drawn_rows(name: str) -> None:
    module, metric, counts = a_thing(name, 1, 40)
    found = module.intervals(counts, seed=0, resamples=300)
    assert all(one.low <= one.value <= one.high for one in found.values())
    assert found == module.intervals(counts, seed=0, resamples=300)
    narrow = module.intervals(np.concatenate([counts] * 9), seed=0, resamples=300)[metric]
    assert narrow.high - narrow.low < 0.5 * (found[metric].high - found[metric].low)
    together = module.intervals(np.concatenate([counts] * 9), seed=0, resamples=300, groups=np.tile(np.arange(40), 9))
    assert together[metric].high - together[metric].low > 2 * (narrow.high - narrow.low)


@pytest.mark.parametrize("name", ["entities", "tags"])
def test_a_difference_is_paired_by_row(name: str) -> None:
    module, metric, counts = a_thing(name, 2, 30)
    same = module.difference(metric, counts, counts, seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = counts.copy()
    worse[:, :, 2] = worse[:, :, 2] // 2
    found = module.difference(metric, counts, worse, seed=0)
    assert found.low > 0
    assert found.value == pytest.approx(
        float(module.from_counts(counts.sum(axis=0))[metric] - module.from_counts(worse.sum(axis=0))[metric])
    )
