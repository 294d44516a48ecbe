"""Files of CoNLL's form whose names do not say so: .txt, as the data of CoNLL-2003 come, and .tsv without a header.

What is not of that form is read as for all other inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from tunesmith.data.readers import Source, conll_file, delimited, plain_text
from tunesmith.run import path_of

SEEN = 1000
LEAST_ALIKE = 0.95
"""Share of lines that must have the form of the others."""
WORDS = ("token", "tokens", "word", "words", "form", "text")
TAGS = ("tag", "tags", "ner", "ner_tag", "ner_tags", "pos", "upos", "label", "labels", "chunk")
"""What a header calls its first and its last column."""


def read_text(where: str, encoding: str) -> dict[str, Source]:
    """CoNLL's form, or passages."""
    return _tagged(where, encoding) or plain_text.read(where, encoding)


def read_table(where: str, encoding: str) -> dict[str, Source]:
    """CoNLL's form, or cells parted by tabs below a header."""
    return _tagged(where, encoding) or delimited.read_tsv(where, encoding)


def _tagged(where: str, encoding: str) -> dict[str, Source] | None:
    lines = [line.text for line in islice(conll_file.lines(path_of(where), encoding), SEEN)]
    if not _is_tagged(lines):
        return None
    (source,) = conll_file.read(where, encoding).values()
    guess = (
        f"{where} is read as CoNLL's form: a word a line, its tag in the last of {len(source.columns)} columns, texts parted "
        "by empty lines."
    )
    return {"train": replace(source, guesses=(guess,))}


def _is_tagged(lines: Sequence[str]) -> bool:
    """Whether the first lines of a file have CoNLL's form: two columns or more, as many in each line, without a header, and
    either tags that spell entities, or words without a blank in texts that empty lines part."""
    form = conll_file.form_of(lines)
    if form is None or form.width < 2:
        return False
    rows = [form.columns(line) for line in lines if conll_file.has_token(line)]
    if rows[0][0].casefold() in WORDS and rows[0][-1].casefold() in TAGS:
        return False

    def mostly(alike: Callable[[list[str]], bool]) -> bool:
        return sum(len(row) == form.width and alike(row) for row in rows) >= LEAST_ALIKE * len(rows)

    tokens = [at for at, line in enumerate(lines) if line]
    parted = len(tokens) < tokens[-1] - tokens[0] + 1
    return mostly(lambda row: row[-1] == "O" or row[-1][:2] in ("B-", "I-")) or (
        parted and mostly(lambda row: not any(map(str.isspace, row[0])))
    )
