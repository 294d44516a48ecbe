"""Which words of a text are hidden from a masked language model: whole ones, each at most once, other ones in each view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tiny import SPECIAL
from tunesmith.data.asked import NOTHING
from tunesmith.data.masked import NO_WORD, SHARE, Masked, Views
from tunesmith.models.hidden_words import LONGEST_WORD, hidden_words

PIECES = ["a", "b", "c", "d", "##a", "##b", "##c", "##d", "."]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One whose words have a token for each letter, so that most words have several."""
    vocabulary = {piece: index for index, piece in enumerate([*SPECIAL, *PIECES])}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **marks)


WORDS = st.text(alphabet="abcd", min_size=1, max_size=6)
TEXTS = st.lists(
    st.lists(WORDS | st.sampled_from(["[MASK]", "é", "."]), min_size=1, max_size=40).map(" ".join), min_size=1
)


def read(tokenizer: Any, texts: list[str], limit: int, seed: int = 0) -> Masked:
    return hidden_words(tokenizer, pa.table({"input": texts}), limit, seed)


def pieces(found: Masked) -> list[slice]:
    return [slice(*ends) for ends in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


@given(texts=TEXTS, limit=st.integers(4, 40), seed=st.integers(0, 9), view=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_a_word_is_hidden_whole_or_not_at_all_and_marks_never_are(
    tokenizer: Any, texts: list[str], limit: int, seed: int, view: int
) -> None:
    first = read(tokenizer, texts, limit, seed)
    found = first if view == 0 else first.hidden(view, seed)
    special = np.isin(found.whole, tokenizer.all_special_ids)
    hidden = found.wanted != NOTHING
    assert not (special & hidden).any()
    assert np.array_equal(found.ids[~hidden], found.whole[~hidden])
    for inside in pieces(found):
        words, own = found.words[inside], hidden[inside]
        chosen = {int(word) for word in words[own]}
        assert all(own[words == word].all() for word in chosen)
        for word in chosen:  # all of it behind the mask, or none
            behind = found.ids[inside][words == word] == tokenizer.mask_token_id
            assert behind.all() or not behind.any()
        count = len({int(word) for word in words if word != NO_WORD})
        assert len(chosen) <= max(1, np.ceil(SHARE * count))
        assert len(chosen) >= min(count, max(1, np.floor(SHARE * count)))


@given(texts=TEXTS, limit=st.integers(10, 40))
@settings(max_examples=100, deadline=None)
def test_every_word_can_be_hidden_in_one_window_and_in_no_other(tokenizer: Any, texts: list[str], limit: int) -> None:
    """Words are shorter here than what windows share, so that each lies whole in one of them."""
    found = read(tokenizer, texts, 8 * limit)
    for row, text in enumerate(texts):
        if "[MASK]" in text:  # where a text brings masks of its own, these are what is asked
            continue
        letters = [letter for letter in text.replace("é", "") if letter != " "]
        usable = [
            found.words[inside] != NO_WORD for inside, of in zip(pieces(found), found.owner, strict=True) if of == row
        ]
        assert sum(int(one.sum()) for one in usable) == len(letters)


def test_a_word_cut_by_a_window_is_hidden_in_the_next_that_shows_it_whole(tokenizer: Any) -> None:
    """Windows of 16 tokens, 2 of which are marks, share two; the word "cc" lies across the end of the first."""
    found = read(tokenizer, ["a " * 13 + "cc b b"], 16)
    first, second = pieces(found)
    shown = tokenizer.convert_ids_to_tokens(found.whole[first].tolist())
    assert shown[-2:] == ["c", "[SEP]"]
    assert found.words[first][-2] == NO_WORD
    again = found.whole[second].tolist()
    place = again.index(tokenizer.convert_tokens_to_ids("c"))
    assert found.words[second][place] == found.words[second][place + 1] != NO_WORD


def test_a_long_word_counts_as_several(tokenizer: Any) -> None:
    found = read(tokenizer, ["abcd" * 6], 64)
    assert np.bincount(found.words[found.words != NO_WORD]).tolist() == [LONGEST_WORD, LONGEST_WORD, 4]


def test_the_shares_are_those_of_the_paper(tokenizer: Any) -> None:
    found = read(tokenizer, ["ab cd ab dd ca . ba bb cc d"] * 3000, 64).hidden(1, 0)
    words = len(np.unique(np.stack([found.owner.repeat(found.lengths), found.words])[:, found.words >= 0], axis=1).T)
    hidden = found.wanted != NOTHING
    first = hidden & (np.diff(found.words, prepend=NO_WORD) != 0)
    assert first.sum() / words == pytest.approx(SHARE, abs=0.005)
    masked = found.ids[first] == tokenizer.mask_token_id
    assert masked.mean() == pytest.approx(0.8, abs=0.02)
    assert (found.ids[first] == found.wanted[first]).mean() == pytest.approx(0.1 + 0.1 / len(PIECES), abs=0.02)


def test_a_view_is_the_same_whenever_it_is_asked_for_and_others_differ(tokenizer: Any) -> None:
    texts = ["ab cd ab dd ca", "ba bb cc d a b c d ab bc cd"] * 20
    found = Views(read(tokenizer, texts, 64, 5), 4, 5)
    again = Views(read(tokenizer, texts, 64, 5), 4, 5)
    length = len(found.first)
    indices = [view * length + np.arange(length) for view in (2, 0, 3, 2, 1)]
    for other, one in zip(reversed(indices), indices, strict=True):
        again.drawn(other)
        (mine, at), (theirs, _) = found.drawn(one), again.drawn(one)
        assert np.array_equal(at, np.arange(length))
        assert np.array_equal(mine.ids, theirs.ids)
        assert found.count(one) == theirs.by_row.sum()
    views = [found.drawn(one)[0].wanted.tobytes() for one in indices]
    assert len(set(views)) == 4
    assert Views(found.first, 4, 6).drawn(indices[0])[0].wanted.tobytes() != views[0]
    assert np.array_equal(found.first.hidden(1, 5).whole, found.first.whole)
    assert len(found) == 4 * length
    assert found.weights.sum() == 4 * len(texts)


def test_what_is_hidden_in_a_row_hangs_on_no_other_row(tokenizer: Any) -> None:
    one = read(tokenizer, ["ab cd ab dd ca"], 64)
    two = read(tokenizer, ["ab cd ab dd ca", "a b c d a b c"], 64)
    assert np.array_equal(two.ids[: len(one.ids)], one.ids)


def test_texts_without_a_word_have_nothing_to_tell(tokenizer: Any) -> None:
    found = read(tokenizer, ["é é", "ab", " "], 64)
    assert found.left_out == 2
    assert found.owner.tolist() == [1]
    assert found.rows == 3


SENTENCES = [
    "the quick brown fox jumps over the lazy dog and so on",
    "where is my parcel that should be here by nine today",
]
MARKS = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}


def trained(kind: str) -> Any:
    """A tokenizer of short pieces, as RoBERTa, XLM-R, and encoders with Gemma's or Llama's SentencePiece have them."""
    metaspace = pre_tokenizers.Metaspace()
    special = {"special_tokens": list(MARKS.values()), "vocab_size": 300 if kind == "byte-level" else 60}
    if kind == "unigram":
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer, trainer = metaspace, trainers.UnigramTrainer(unk_token="<unk>", **special)  # type: ignore[arg-type]
    else:
        core = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if kind == "byte-level" else metaspace
        alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "byte-level" else []
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **special)  # type: ignore[arg-type]
    core.train_from_iterator(SENTENCES * 20, trainer)
    if kind == "unparted":
        core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")  # of which none is left by then
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(mark, core.token_to_id(mark)) for mark in ("<s>", "</s>")]
    )
    marks = {f"{name}_token": mark for name, mark in MARKS.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **marks)


@pytest.mark.parametrize("kind", ["byte-level", "unigram", "unparted"])
def test_words_are_those_of_the_text_whatever_the_tokenizer(kind: str) -> None:
    one = trained(kind)
    found = read(one, SENTENCES, 128)
    for inside, sentence in zip(pieces(found), SENTENCES, strict=True):
        words, tokens = found.words[inside], np.array(one.convert_ids_to_tokens(found.whole[inside].tolist()))
        shown = ["".join(tokens[words == word]).strip("▁Ġ") for word in range(int(words.max()) + 1)]
        assert shown == sentence.split()
        assert (words != NO_WORD).sum() > len(shown)


def test_a_word_that_no_tokenizer_parts_is_hidden_in_one_window(tokenizer: Any) -> None:
    """By the place of its first character, which windows that share it agree on."""
    one = trained("unparted")
    text = " ".join(["fox dog is my by the so on"] * 6)
    found = read(one, [text], 24)
    assert len(found) > 2
    usable = sum(len(set(found.words[inside].tolist()) - {NO_WORD}) for inside in pieces(found))
    assert usable == len(text.split())
