"""What a language model is asked for: each token of each text once, whatever windows it is read in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import WORDS, write_model
from tunesmith.data.asked import NOTHING, Asked
from tunesmith.models import asking
from tunesmith.models.asking import masked_tokens, next_tokens


@pytest.fixture(scope="module", params=["gpt2", "bert"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One that marks neither end of a text, and one that marks both."""
    return transformers.AutoTokenizer.from_pretrained(
        write_model(tmp_path_factory.mktemp(request.param), request.param)
    )


def table(texts: list[list[int]]) -> pa.Table:
    return pa.table({"input": [" ".join(WORDS[word] for word in text) for text in texts]})


def asked_for(found: Asked, row: int) -> list[int]:
    """The tokens that are asked for in the pieces of `row`, in order."""
    said: list[int] = []
    for piece in np.flatnonzero(found.owner == row):
        inside = found.wanted[found.offsets[piece] : found.offsets[piece + 1]]
        said += inside[inside != NOTHING].tolist()
    return said


TEXTS = st.lists(st.lists(st.integers(0, 199), min_size=1, max_size=70), min_size=1, max_size=4)


@settings(deadline=None, max_examples=40)
@given(texts=TEXTS, limit=st.integers(8, 30))
def test_every_token_is_asked_for_once_and_in_order(tokenizer: Any, texts: list[list[int]], limit: int) -> None:
    found = next_tokens(tokenizer, table(texts), limit)
    marked = tokenizer.backend_tokenizer.num_special_tokens_to_add(False) > 0
    for row, text in enumerate(texts):
        words = [tokenizer.vocab[WORDS[word]] for word in text]
        assert asked_for(found, row) == (words if marked else words[1:])
        assert found.by_row[row] == len(words) - (not marked)
    assert found.lengths.max() <= limit
    for start, end in zip(found.offsets[:-1], found.offsets[1:], strict=True):
        asked = np.flatnonzero(found.wanted[start:end] != NOTHING)
        assert np.array_equal(found.wanted[start + asked], found.ids[start + asked + 1])


@settings(deadline=None, max_examples=30)
@given(texts=TEXTS, limit=st.integers(8, 30))
def test_where_texts_end_is_asked_for_once_after_all_else(tokenizer: Any, texts: list[list[int]], limit: int) -> None:
    plain, ended = (next_tokens(tokenizer, table(texts), limit, end) for end in (None, 7))
    assert np.array_equal(plain.ids, ended.ids)
    for row in range(len(texts)):
        assert asked_for(ended, row) == [*asked_for(plain, row), 7]
        assert ended.by_row[row] == plain.by_row[row] + 1


def test_a_later_window_begins_with_what_stood_before(tokenizer: Any) -> None:
    found = next_tokens(tokenizer, table([list(range(100))]), 32)
    places = [
        np.flatnonzero(found.wanted[start:end] != NOTHING)
        for start, end in zip(found.offsets[:-1], found.offsets[1:], strict=True)
    ]
    assert len(places) > 2
    assert all(one[0] >= 3 for one in places[1:])  # an eighth of the window is context alone


@settings(deadline=None, max_examples=30)
@given(texts=TEXTS, limit=st.integers(8, 30))
def test_every_token_is_hidden_once_where_there_is_room_for_all(
    bert_tokenizer: Any, texts: list[list[int]], limit: int
) -> None:
    found = masked_tokens(bert_tokenizer, table(texts), limit, most=1000)
    for row, text in enumerate(texts):
        assert asked_for(found, row) == [bert_tokenizer.vocab[WORDS[word]] for word in text]
        assert found.by_row[row] == len(text)
    hidden = found.wanted != NOTHING
    assert (found.ids[hidden] == bert_tokenizer.mask_token_id).all()
    assert (found.ids == bert_tokenizer.mask_token_id).sum() == hidden.sum() == len(found)


def test_drawn_places_stand_for_all_of_their_window_and_are_the_same_again(bert_tokenizer: Any) -> None:
    rows = table([list(range(50)), [3]])
    found, again = (masked_tokens(bert_tokenizer, rows, 64, most=8) for _ in range(2))
    assert np.bincount(found.owner).tolist() == [8, 1]
    assert found.by_row.tolist() == pytest.approx([50, 1])
    assert found.count(np.arange(9)) == pytest.approx(51)
    assert found.key == again.key
    assert len(set(asked_for(found, 0))) == 8


def test_a_mark_that_is_also_the_unknown_token_is_no_text(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, unk_token="[CLS]")
    found = next_tokens(tokenizer, table([list(range(100))]), 32)
    assert found.by_row.tolist() == [100]


def test_hidden_tokens_of_many_windows_are_drawn(bert_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_PIECES", 10)
    few = masked_tokens(bert_tokenizer, table([list(range(30))] * 4), 64, most=16)
    assert len(few) == 8
    assert few.by_row.tolist() == pytest.approx([30] * 4)
    assert len(masked_tokens(bert_tokenizer, table([list(range(30))] * 25), 64, most=16)) == 10


def test_texts_of_nothing_that_can_be_asked_for_are_counted_as_such(tokenizer: Any) -> None:
    assert next_tokens(tokenizer, pa.table({"input": ["", "word1 word2"]}), 16).by_row[0] <= 1


@pytest.fixture(scope="module")
def bert_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = write_model(tmp_path_factory.mktemp("bert"))
    return transformers.AutoTokenizer.from_pretrained(folder)
