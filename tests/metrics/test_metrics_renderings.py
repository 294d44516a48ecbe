"""Figures of written texts against sacrebleu's and rouge-score's own, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from tunesmith.errors import DataError
from tunesmith.metrics import renderings

TEXT = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "dog", "Ünder", "猫", "5%"]), max_size=9).map(
    " ".join
)
ROWS = st.lists(st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=3)), min_size=1, max_size=6)


@given(ROWS)
def test_bleu_and_chrf_are_those_of_sacrebleu_with_any_number_of_references(rows: list[tuple[str, list[str]]]) -> None:
    said, references = [text for text, _ in rows], [known for _, known in rows]
    counts = renderings.counted(said, references)
    streams = [[one[place] if place < len(one) else None for one in references] for place in range(3)]
    streams = [stream for stream in streams if any(text is not None for text in stream)]
    for name, metric in (("bleu", sacrebleu.metrics.BLEU()), ("chrf", sacrebleu.metrics.CHRF())):
        expected = metric.corpus_score(said, streams).score
        assert renderings.figure(counts, name) == pytest.approx(expected)


def test_rouge_is_that_of_rouge_score_with_the_nearest_reference() -> None:
    said = ["the cat sat on the mat", "a dog"]
    references = [["a mat", "the cat was on the mat"], ["the dog barks"]]
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    counts = renderings.counted(said, references)
    for name, kind in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        best = [
            max(scorer.score(one, text)[kind].fmeasure for one in known)
            for text, known in zip(said, references, strict=True)
        ]
        assert renderings.figure(counts, name) == pytest.approx(np.mean(best))


def test_rows_that_were_not_written_count_for_nothing() -> None:
    said, references = ["one two", None, "three"], [["one two"], ["x"], ["three four"]]
    counts = renderings.counted(said, references)
    assert np.isnan(counts[1]).all()
    kept = renderings.counted([said[0], said[2]], [references[0], references[2]])
    for name in renderings.NAMES:
        assert renderings.figure(counts, name) == renderings.figure(kept, name)
    assert renderings.intervals(renderings.counted([None], [["x"]]), seed=0) == {}


def test_an_interval_holds_the_value_and_a_difference_is_paired() -> None:
    random = np.random.default_rng(0)
    words = np.array(["one", "two", "three", "four", "five", "six"])
    references = [[" ".join(random.choice(words, 6))] for _ in range(40)]
    said = [" ".join(random.choice(words, 6)) for _ in range(40)]
    near = [known[0].replace("six", "seven") for known in references]
    good, bad = (renderings.counted(texts, references) for texts in (near, said))
    found = renderings.intervals(good, seed=0, resamples=200)
    assert {*found} == {*renderings.NAMES}
    assert all(one.low <= one.value <= one.high for one in found.values())
    for name in ("rouge_l", "bleu", "chrf"):
        gap = renderings.difference(good, bad, name, seed=0, resamples=200)
        assert gap.value == pytest.approx(renderings.figure(good, name) - renderings.figure(bad, name))
        assert gap.low > 0
        assert renderings.difference(good, good, name, seed=0, resamples=200).high == 0
    with pytest.raises(DataError):
        renderings.difference(good, bad[:3], "bleu", seed=0)


def test_whole_groups_are_drawn() -> None:
    counts = renderings.counted(["one"] * 4 + ["two"] * 4, [["one"]] * 8)
    alone = renderings.intervals(counts, seed=0)["rouge_l"]
    groups = np.repeat([0, 1], 4)
    assert renderings.intervals(counts, seed=0, groups=groups)["rouge_l"].low == 0.0 < alone.low
