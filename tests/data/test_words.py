"""Texts in words: tokens as they are, and texts taken apart by a rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.cells import Place, Unusable
from tunesmith.data.cells.words import WORDS, words_of
from tunesmith.settings import DataSettings

PLACE = Place(Path(), Path(), DataSettings(train="none", max_characters=60))


def words(text: str) -> list[str]:
    places = words_of(text)
    return [text[start:end] for start, end in zip(places[::2], places[1::2], strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the state-of-the-art's", ["the", "state", "-", "of", "-", "the", "-", "art", "'", "s"]),
        ("1,000.5 of B2B", ["1", ",", "000", ".", "5", "of", "B", "2", "B"]),
        ("a_b $5 (x)!?", ["a", "_", "b", "$", "5", "(", "x", ")", "!", "?"]),
        ("caf\u00e9s \u00c5ngstro\u0308m", ["caf\u00e9s", "\u00c5ngstro\u0308m"]),
        ("cafe\u0301s", ["cafe\u0301s"]),
        ("我在北京 2024年", ["我", "在", "北", "京", "2024", "年"]),
        ("カタカナ、ひら", ["カ", "タ", "カ", "ナ", "、", "ひ", "ら"]),
        ("ที่ดี", ["ที่", "ดี"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("مَرحبا، بالعالم", ["مَرحبا", "،", "بالعالم"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("नमस्ते।", ["नमस्ते", "।"]),
        ("hi🤷🏽\u200d♂️❤️🇩🇪🇫🇷 1️⃣", ["hi", "🤷🏽\u200d♂️", "❤️", "🇩🇪", "🇫🇷", "1️⃣"]),
        ("\ufeffa\u200bb\u00a0c\u2028d", ["a", "b", "c", "d"]),
    ],
)
def test_texts_are_taken_apart_by_a_rule_that_knows_no_language(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(max_size=60))
def test_words_stand_in_order_and_hold_all_that_is_seen(text: str) -> None:
    places = words_of(text)
    assert places == sorted(places)
    assert all(start < end for start, end in zip(places[::2], places[1::2], strict=True))
    inside = {place for start, end in zip(places[::2], places[1::2], strict=True) for place in range(start, end)}
    outside = [sign for place, sign in enumerate(text) if place not in inside]
    assert all(sign.isspace() or not sign.isprintable() for sign in outside)
    assert not any(word.strip() != word for word in words(text))


@pytest.mark.parametrize(
    "cell",
    [
        ["New York", "is", "big"],
        ("New York", "is", "big"),
        np.array(["New York", "is", "big"]),
        '["New York", "is", "big"]',
        "['New York', 'is', 'big']",
    ],
)
def test_tokens_are_words_as_they_are(cell: Any) -> None:
    assert WORDS.read([cell], "train:1", PLACE) == ("New York is big", [0, 8, 9, 11, 12, 15])


def test_tokens_that_say_where_they_stand_keep_their_places() -> None:
    """As Prodigy writes them; blanks may be tokens too."""
    text = " It's a\n\nbig one"
    places = [(1, 3), (3, 5), (6, 7), (7, 9), (9, 12), (13, 16)]
    tokens = [
        {"text": text[start:end], "start": start, "end": end, "id": number, "ws": True}
        for number, (start, end) in enumerate(places)
    ]
    assert WORDS.read([tokens], "train:1", PLACE) == (text, [1, 3, 3, 5, 6, 7, 9, 12, 13, 16])


def test_brackets_alone_make_no_list() -> None:
    assert WORDS.read(["[sic]"], "train:1", PLACE) == ("[sic]", [0, 1, 1, 4, 4, 5])
    assert WORDS.read(["[1, 2]"], "train:1", PLACE) == ("[1, 2]", [0, 1, 1, 2, 2, 3, 4, 5, 5, 6])


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "no text"),
        (7, "not text"),
        ("  ", "empty text"),
        ([], "empty text"),
        ("[]", "empty text"),
        (["a", ""], "empty token"),
        (["a", "\t"], "empty token"),
        (["a", None], "token that is not text"),
        (["a", 7], "token that is not text"),
        (np.array([["a"]]), "token that is not text"),
        ([{"text": "a", "start": 0}], "tokens that are mappings without a text, a start and an end"),
        ([{"text": 7, "start": 0, "end": 1}], "tokens that are mappings without a text, a start and an end"),
        ([{"text": "a", "start": 0, "end": 1}, "b"], "tokens of which some are mappings"),
        ([{"text": "a", "start": 1, "end": 3}], "tokens whose starts and ends do not go with their text"),
        ([{"text": "a", "start": 1, "end": 2}, {"text": "b", "start": 0, "end": 1}], "do not go with their text"),
        ([{"text": "a", "start": 10**12, "end": 10**12 + 1}], "text of more than 60 characters"),
        ([{"text": "\n", "start": 0, "end": 1}], "empty text"),
        (["a", "b\x00"], "NUL character"),
        (["a", "b\ud800"], "broken encoding"),
        (["a" * 40, "b" * 40], "text of more than 60 characters"),
        ("\u200b\ufeff", "text without a word"),
        (["\u200b"], None),  # somebody says that this is one
    ],
)
def test_cells_without_a_word_say_why(cell: Any, reason: str | None) -> None:
    found = WORDS.read([cell], "train:1", PLACE)
    assert isinstance(found, Unusable) == (reason is not None)
    assert reason is None or reason in found[1]
