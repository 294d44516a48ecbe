"""What is told of words: entities, which are words in a row with a type, or a tag of each word; and all that depends on it.

A network gives each word a logit for each tag. Of entities the tags are those of IOB2, O first, then B and I of each type.

Shared by the methods that make columns:
    cells: of each row its text, and start and end of each of its words, one after the other.
    labels: what people call the classes of targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tunesmith.contracts import Array
from tunesmith.data.tagged import UNKNOWN
from tunesmith.metrics import entities, tagging
from tunesmith.metrics.entities import Row

Tags = npt.NDArray[np.int64]
Cell = tuple[str, Sequence[int]]
SPAN = [("start", pa.int64()), ("end", pa.int64()), ("label", pa.string())]
MOST_CELLS = 4_000_000
"""Logits of rows whose best paths are found together."""
NEVER = -1e9
"""A logit that no path takes."""


class WordProblem(ABC):
    """One of the two. Tags are those of the network; labels are what people call them."""

    name: ClassVar[str]
    counted: ClassVar[str]
    """What there are several of in a text."""
    metrics: ClassVar[Any]
    """The module of its metrics."""
    selectable: ClassVar[tuple[str, ...]]
    """Metrics that may be primary, the usual one first."""

    @abstractmethod
    def tags(self, labels: Sequence[str]) -> list[str]:
        """What the outputs of the network are called."""

    @abstractmethod
    def encoded(self, target: Mapping[str, Any], words: int) -> Tags:
        """(words,) tags of one text, from its target; UNKNOWN where a word has a tag that no training text has."""

    @abstractmethod
    def taught(self, tags: Tags, follows: npt.NDArray[np.bool_]) -> Tags:
        """(words,) what is to be answered for words that answer for those after them too, which lie in the same token.

        Args:
            tags: (words,) of all rows.
            follows: (words,) whether each lies in the token of the word before it.
        """

    @abstractmethod
    def decoded(self, logits: Array, offsets: Tags) -> Tags:
        """(words,) the best tags of each row.

        Args:
            logits: (words, tags) of all rows; nothing but 0 of words that have no answer, and go on as the word before them.
            offsets: (rows + 1,) where the words of each row lie.
        """

    @abstractmethod
    def counts(self, truth: Sequence[Tags], found: Sequence[Tags], tags: int, unknown: Tags) -> Array:
        """What the metrics take, a set of counts a row, from the tags of each text, (its words,). One class comes after all
        others: what is of a type that no training text has, and that no answer is right for.

        Args:
            unknown: (rows,) how much there is of it.
        """

    @abstractmethod
    def objects(self, tags: Tags) -> Row:
        """First word, word after the last, and label of what the tags of one text spell; nothing is UNKNOWN among them."""

    @abstractmethod
    def answers(
        self, cells: Sequence[Cell], found: Sequence[Tags], logits: Sequence[Array], labels: Sequence[str]
    ) -> dict[str, pa.Array]:
        """Columns of what was found: `prediction` for people, and one for programs."""

    @abstractmethod
    def truth(self, cells: Sequence[Cell], targets: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> pa.Array:
        """The column of what was to be found."""

    @abstractmethod
    def counts_again(self, table: pa.Table, labels: Sequence[str]) -> Array:
        """`counts` from the columns that `answers` and `truth` made."""


class Entities(WordProblem):
    """Words in a row that are of one type, among others that are of none."""

    name = "entities"
    counted = "entities"
    metrics: ClassVar[Any] = entities
    selectable = ("entity_f1", "entity_macro_f1")

    def tags(self, labels: Sequence[str]) -> list[str]:
        return ["O", *(f"{letter}-{label}" for label in labels for letter in "BI")]

    def encoded(self, target: Mapping[str, Any], words: int) -> Tags:
        found = np.zeros(words, dtype=np.int64)
        for first, last, label in zip(target["first"], target["last"], target["classes"], strict=True):
            found[first:last] = 2 + 2 * label
            found[first] = 1 + 2 * label
        return found

    def taught(self, tags: Tags, follows: npt.NDArray[np.bool_]) -> Tags:
        found = tags.copy()
        for word in np.flatnonzero(follows & (tags > 0))[
            ::-1
        ].tolist():  # an entity that begins inside a token takes it whole
            first = word - 1
            while follows[first]:
                first -= 1
            found[first] = tags[word] if tags[first] == 0 else tags[first]
        return found

    def decoded(self, logits: Array, offsets: Tags) -> Tags:
        """The best path among those in which I follows B or I of its type (Viterbi 1967)."""
        found, follows = np.zeros(len(logits), dtype=np.int64), _without_answer(logits, offsets)
        answering = np.flatnonzero(~follows)
        rows = np.searchsorted(answering, offsets)  # where the answers of each row lie among all
        lengths = np.diff(rows)
        order = np.argsort(lengths, kind="stable")
        cells = np.maximum(np.cumsum(lengths[order]), 1) // (MOST_CELLS // logits.shape[1] + 1)
        for bucket in np.split(order, np.flatnonzero(np.diff(cells)) + 1):
            longest = int(lengths[bucket].max(initial=0))
            if not longest:
                continue
            inside = np.arange(longest) < lengths[bucket][:, None]
            held = np.zeros((len(bucket), longest, logits.shape[1]), dtype=np.float32)
            words = answering[(rows[bucket][:, None] + np.arange(longest))[inside]]
            held[inside] = logits[words]
            found[words] = _best_paths(held, lengths[bucket])[inside]
        for word in np.flatnonzero(follows).tolist():
            before = found[word - 1]
            found[word] = before + 1 if before % 2 == 1 else before
        return found

    def counts(self, truth: Sequence[Tags], found: Sequence[Tags], tags: int, unknown: Tags) -> Array:
        one, other = ([self.objects(row) for row in rows] for rows in (truth, found))
        counts = entities.counted(one, other, (tags - 1) // 2 + 1)
        counts[:, -1, 0] = unknown
        return counts

    def objects(self, tags: Tags) -> Row:
        begins = np.flatnonzero(tags % 2 == 1)
        inside = (tags > 0) & (tags % 2 == 0)
        found = []
        for first in begins.tolist():
            rest = np.flatnonzero(~inside[first + 1 :])
            last = first + 1 + (int(rest[0]) if len(rest) else len(tags) - first - 1)
            found.append((first, last, int(tags[first] - 1) // 2))
        return found

    def answers(
        self, cells: Sequence[Cell], found: Sequence[Tags], logits: Sequence[Array], labels: Sequence[str]
    ) -> dict[str, pa.Array]:
        """`entities`: where each lies in the text (characters, the end exclusive), what it is, and how sure that is: the mean
        over its words of what its tags were given."""
        rows = []
        for (text, words), tags, row in zip(cells, found, logits, strict=True):
            objects = self.objects(tags)
            spans = [_spelled(one, words, labels) for one in objects]
            rows.append(
                [
                    span | {"text": text[span["start"] : span["end"]], "score": _chance(row, one)}
                    for span, one in zip(spans, objects, strict=True)
                ]
            )
        said = [[f"{one['text']} ({one['label']})" for one in row] for row in rows]
        return {
            "prediction": pa.array(said, pa.list_(pa.string())),
            "entities": pa.array(rows, pa.list_(pa.struct([*SPAN, ("text", pa.string()), ("score", pa.float64())]))),
        }

    def truth(self, cells: Sequence[Cell], targets: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> pa.Array:
        rows = [
            [
                {"start": words[2 * first], "end": words[2 * last - 1], "label": name}
                for first, last, name in named(target, labels)
            ]
            for target, (_, words) in zip(targets, cells, strict=True)
        ]
        return pa.array(rows, pa.list_(pa.struct(SPAN)))

    def counts_again(self, table: pa.Table, labels: Sequence[str]) -> Array:
        index = {label: number for number, label in enumerate(labels)}
        one, other = (
            [
                [(span["start"], span["end"], index.get(span["label"], len(labels))) for span in row]
                for row in table.column(name).to_pylist()
            ]
            for name in ("truth", "entities")
        )
        return entities.counted(one, other, len(labels) + 1)


def _without_answer(logits: Array, offsets: Tags) -> npt.NDArray[np.bool_]:
    """(words,) which words go on as the word before them; the first of a row never does."""
    found: npt.NDArray[np.bool_] = np.asarray(~logits.any(axis=1))
    found[offsets[:-1][np.diff(offsets) > 0]] = False
    return found


def _best_paths(logits: Array, lengths: Tags) -> Tags:
    """(rows, words) the best path of each row, from (rows, words, tags), of which the first `lengths` of each row count."""
    rows, longest, tags = logits.shape
    inside = np.arange(2, tags, 2)
    allowed = np.zeros((tags, tags), dtype=np.float32)  # from, to
    allowed[:, inside] = NEVER
    allowed[inside, inside] = allowed[inside - 1, inside] = 0
    start = np.zeros(tags, dtype=np.float32)
    start[inside] = NEVER
    score = logits[:, 0] + start
    came = np.zeros((longest, rows, tags), dtype=np.int16)
    ended = np.zeros((rows, tags), dtype=np.float32)
    for word in range(longest):
        if word:
            ways = score[:, :, None] + allowed
            came[word] = ways.argmax(axis=1)
            score = ways.max(axis=1) + logits[:, word]
        score = score - score.max(axis=1, keepdims=True)  # sums over long texts would lose the last digits
        ended[lengths - 1 == word] = score[lengths - 1 == word]
    found = np.zeros((rows, longest), dtype=np.int64)
    last = ended.argmax(axis=1)
    for word in range(longest - 1, -1, -1):
        found[:, word] = last
        earlier = came[word, np.arange(rows), last]
        last = np.where(word < lengths, earlier, last)
    return found


def _chance(logits: Array, entity: tuple[int, int, int]) -> float:
    """How sure a network is of an entity, by the logits (words, tags) of its text."""
    first, last, label = entity
    shares = logits[first:last].astype(np.float64)
    shares = np.exp(shares - shares.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    own = np.append(shares[:1, 1 + 2 * label], shares[1:, 2 + 2 * label])
    return float(own[logits[first:last].any(axis=1)].mean())


def named(target: Mapping[str, Any], labels: Sequence[str]) -> list[tuple[int, int, str]]:
    """First word, word after the last, and name of all that a target holds, in its order."""
    known = zip(target["first"], target["last"], (labels[label] for label in target["classes"]), strict=True)
    return sorted([*known, *((one["first"], one["last"], one["label"]) for one in target["unknown"])])


def _spelled(entity: tuple[int, int, int], words: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """An entity by characters."""
    first, last, label = entity
    return {"start": words[2 * first], "end": words[2 * last - 1], "label": labels[label]}


class WordTags(WordProblem):
    """A tag of each word, as of its part of speech."""

    name = "tags"
    counted = "words"
    metrics: ClassVar[Any] = tagging
    selectable = ("token_accuracy", "macro_f1")

    def tags(self, labels: Sequence[str]) -> list[str]:
        return list(labels)

    def encoded(self, target: Mapping[str, Any], words: int) -> Tags:
        found = np.full(words, UNKNOWN, dtype=np.int64)
        found[target["first"]] = target["classes"]
        return found

    def taught(self, tags: Tags, follows: npt.NDArray[np.bool_]) -> Tags:
        return tags

    def decoded(self, logits: Array, offsets: Tags) -> Tags:
        answering = np.where(_without_answer(logits, offsets), 0, np.arange(len(logits)))
        return np.asarray(logits.argmax(axis=1)[np.maximum.accumulate(answering)])

    def counts(self, truth: Sequence[Tags], found: Sequence[Tags], tags: int, unknown: Tags) -> Array:
        true = [np.where(row == UNKNOWN, tags, row) for row in truth]
        return tagging.counted(true, found, tags + 1)  # type: ignore[arg-type]  # arrays are sequences

    def objects(self, tags: Tags) -> Row:
        return [(place, place + 1, tag) for place, tag in enumerate(tags.tolist()) if tag != UNKNOWN]

    def answers(
        self, cells: Sequence[Cell], found: Sequence[Tags], logits: Sequence[Array], labels: Sequence[str]
    ) -> dict[str, pa.Array]:
        """`tags`, one a word, and `words`: where each lies in the text (characters, the end exclusive)."""
        texts = [[text[words[at] : words[at + 1]] for at in range(0, len(words), 2)] for text, words in cells]
        named = [[labels[tag] for tag in tags] for tags in found]
        said = [" ".join(map("/".join, zip(*pair, strict=True))) for pair in zip(texts, named, strict=True)]
        places = [
            [{"start": words[2 * at], "end": words[2 * at + 1], "text": one} for at, one in enumerate(own)]
            for own, (_, words) in zip(texts, cells, strict=True)
        ]
        kind = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("text", pa.string())])
        return {
            "prediction": pa.array(said),
            "tags": pa.array(named, pa.list_(pa.string())),
            "words": pa.array(places, pa.list_(kind)),
        }

    def truth(self, cells: Sequence[Cell], targets: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> pa.Array:
        return pa.array([[name for _, _, name in named(target, labels)] for target in targets], pa.list_(pa.string()))

    def counts_again(self, table: pa.Table, labels: Sequence[str]) -> Array:
        index = {label: number for number, label in enumerate(labels)}
        one, other = (
            [[index.get(tag, len(labels)) for tag in row] for row in table.column(name).to_pylist()]
            for name in ("truth", "tags")
        )
        return tagging.counted(one, other, len(labels) + 1)


WORD_PROBLEMS: Mapping[str, type[WordProblem]] = {one.name: one for one in (Entities, WordTags)}
