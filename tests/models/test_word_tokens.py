"""Every word is answered for once, at its first token, in the window that shows the most around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tiny import WORDS, write_model
from tunesmith.data.cells.words import WORDS as CELLS
from tunesmith.data.cells.words import words_of
from tunesmith.models.word_tokens import every_token, tagged


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_model(tmp_path_factory.mktemp("model") / "bert")
    return transformers.AutoTokenizer.from_pretrained(folder)


def by_letters(prefix: str) -> Any:
    """A tokenizer of single characters; with `prefix`, blanks belong to what follows them, as in RoBERTa and T5."""
    letters = {sign: place for place, sign in enumerate([*"<>?", *map(chr, range(32, 127)), "Ġ", "▁"])}
    core = Tokenizer(models.BPE(letters, [], unk_token="?"))
    if prefix == "Ġ":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
    elif prefix == "▁":
        core.pre_tokenizer = pre_tokenizers.Metaspace()
    else:
        core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="< $A >", special_tokens=[("<", 0), (">", 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="?", unk_token="?")


def table(*texts: str | list[str]) -> pa.Table:
    rows = [CELLS.read([text], "row", None) for text in texts]  # type: ignore[arg-type]
    inputs, words = zip(*rows, strict=True)
    return pa.table({"input": list(inputs), "words": pa.array(list(words), pa.list_(pa.int64()))})


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.data.cells.words.unusable", lambda text, most: None)
    monkeypatch.setattr(CELLS, "read", lambda cells, row, place: _read(cells[0]))


def _read(cell: str | list[str]) -> tuple[str, list[int]]:
    if isinstance(cell, str):
        return cell, words_of(cell)
    ends = np.cumsum([len(token) + 1 for token in cell]) - 1
    return " ".join(cell), [
        int(end) for pair in zip(ends - [len(token) for token in cell], ends, strict=True) for end in pair
    ]


@pytest.mark.parametrize("prefix", ["", "Ġ", "▁"])
def test_a_word_is_answered_for_at_its_first_token_whatever_the_tokenizer_does_with_blanks(prefix: str) -> None:
    tokenizer = by_letters(prefix)
    rows = table("to be or not", ["ab", "c"], " x  yz")
    found = tagged(tokenizer, rows, None, 64)
    text = rows.column("input").to_pylist()
    starts = [words[::2] for words in rows.column("words").to_pylist()]
    for piece in range(len(found)):
        row = int(found.owner[piece])
        [_, _, places, words] = found.asked(np.array([piece]))
        ids = found.ids[found.offsets[piece] : found.offsets[piece + 1]]
        for place, word in zip(places, words - found.word_offsets[row], strict=True):
            first = text[row][starts[row][word]]
            seen = tokenizer.convert_ids_to_tokens(int(ids[place]))
            nearby = tokenizer.convert_ids_to_tokens(int(ids[min(place + 1, len(ids) - 1)]))
            assert seen == first or (seen in ("Ġ", "▁", prefix) and nearby == first)
    assert found.answers.sum() == sum(map(len, starts))


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=40), min_size=1, max_size=4), st.integers(6, 40))
@settings(max_examples=40, deadline=None)
def test_every_word_is_answered_for_once(plain: Any, texts: list[list[str]], limit: int) -> None:
    found = tagged(plain, table(*texts), None, limit)
    assert (found.lengths <= limit).all()
    _, _, _, words = found.asked(np.arange(len(found)))
    assert sorted(words) == list(range(sum(map(len, texts))))
    assert not found.follows.any()
    assert found.count(np.arange(len(found))) == sum(map(len, texts))
    ids = np.array([plain.vocab[word] for text in texts for word in text])
    piece, _, places, words = found.asked(np.arange(len(found)))
    assert (found.ids[found.offsets[piece] + places] == ids[words]).all()


def test_the_window_that_shows_the_most_around_a_word_answers_for_it(plain: Any) -> None:
    text = [WORDS[number] for number in range(62)]
    found = tagged(plain, table(text), None, 34)  # 32 words a window, of which 4 are shared
    piece, _, places, words = found.asked(np.arange(len(found)))
    assert [int((piece == one).sum()) for one in range(3)] == [30, 28, 4]
    room = np.minimum(places, 33 - places)
    assert room[(words > 8) & (words < 54)].min() == 3


def test_where_one_token_holds_several_words_the_first_answers_for_all() -> None:
    core = Tokenizer(models.WordLevel({"don't": 3, "go": 4, "?": 2, "<": 0, ">": 1}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="< $A >", special_tokens=[("<", 0), (">", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="?", unk_token="?")
    found = tagged(tokenizer, table("don't go"), np.arange(4), 16)  # don, ', t, go
    _, _, places, words = found.asked(np.arange(1))
    assert dict(zip(words.tolist(), places.tolist(), strict=True)) == {0: 1, 3: 2}
    assert found.follows.tolist() == [False, True, True, False]
    values = np.array([[[1.0], [4.0]]], dtype=np.float32)
    assert found.by_word(values)[:, 0].tolist() == [1, 0, 0, 4]


def test_words_without_a_token_have_no_answer(plain: Any) -> None:
    rows = table([WORDS[0], "\u200b", WORDS[1]])
    found = tagged(plain, rows, None, 16)
    assert found.words_of_rows.tolist() == [3]
    _, _, _, words = found.asked(np.arange(len(found)))
    assert {0, 2} <= set(words.tolist())


def test_what_a_public_loader_gives_is_asked_of_every_token(plain: Any) -> None:
    rows = table(WORDS[:3], WORDS[:6])
    found = every_token(plain, rows, 6)
    assert found.answers.tolist() == [5, 6]
    assert found.lengths.tolist() == [5, 6]
