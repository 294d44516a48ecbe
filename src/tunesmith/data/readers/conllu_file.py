"""CoNLL-U, the form of Universal Dependencies (universaldependencies.org/format.html): a line a word, ten columns parted by
TABs, and an empty line after each sentence.

Of ranges (1-2 for "don't", whose words stand below it) and empty nodes (1.1) the words alone are read. Line by line, so that
any size of file will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.data.readers import Record, Source
from tunesmith.data.readers.conll_file import Line, lines
from tunesmith.data.readers.delimited import broken, encoding_of
from tunesmith.data.rejected import Rejected, excerpt
from tunesmith.errors import DataError
from tunesmith.run import path_of

COLUMNS = ("tokens", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""What stands after the number of a word; the form is what everybody else calls tokens."""
UNSAID = "_"
_WORD = re.compile(r"\d+")
_OTHER = re.compile(r"\d+-\d+|\d+\.\d+")
_NAME = re.compile(r"#\s*sent_id\s*=\s*(\S.*)")


def read(where: str, encoding: str) -> dict[str, Source]:
    """A row a sentence: its `id`, as the comment sent_id has it, and a list a column; None where no word has anything in it.

    The number of a row is the line of its first word.

    Raises:
        DataError: there is no word.
    """
    path = path_of(where)
    name, _ = encoding_of(path, encoding)
    if not any(line.text and not line.text.startswith("#") for line in lines(path, encoding)):
        raise DataError(f"{where} holds no sentence.", "Expected: a word a line, in the ten columns of CoNLL-U.")
    return {"train": Source(where, ["id", *COLUMNS], _sentences(lines(path, encoding), name))}


def _sentences(every: Iterator[Line], encoding: str) -> Iterator[Record | Rejected]:
    first, named, words = 0, None, list[list[str]]()
    wrong: Rejected | None = None
    for number, line in every:
        if not line:
            if wrong or words:
                yield wrong or (first, [named, *_columns(words)])
            named, words, wrong = None, [], None
        elif line.startswith("#"):
            named = found[1] if (found := _NAME.fullmatch(line)) else named
        elif reason := _reason(line, encoding):
            wrong = wrong or Rejected("", number, reason, excerpt(line))
        elif _WORD.fullmatch((columns := line.split("\t"))[0]):
            first = first if words else number
            words.append(columns[1:])


def _reason(line: str, encoding: str) -> str | None:
    """Why a line cannot be read; None where it can."""
    if broken(line):
        return f"broken encoding: not {encoding}"
    columns = line.split("\t")
    if len(columns) != len(COLUMNS) + 1:
        return f"wrong column count: {len(columns)} instead of {len(COLUMNS) + 1}"
    numbered = _WORD.fullmatch(columns[0]) or _OTHER.fullmatch(columns[0])
    return None if numbered else "line that does not begin with the number of a word"


def _columns(words: list[list[str]]) -> list[list[str] | None]:
    """A list a column; the tokens always, as one of them may be the sign for nothing."""
    tokens, *others = (list(column) for column in zip(*words, strict=True))
    return [tokens, *(None if set(column) == {UNSAID} else column for column in others)]
