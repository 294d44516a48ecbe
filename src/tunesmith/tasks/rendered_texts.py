"""Texts made of other texts, as people read them, and what is held against them: the first words of the source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.contracts import Array
from tunesmith.data.asked import NOTHING
from tunesmith.data.source_target import SourceTarget
from tunesmith.metrics import perplexity
from tunesmith.models.two_sides import Writer
from tunesmith.models.writing import NONE
from tunesmith.tasks.written_outcomes import CHARACTERS, FIRST, LEARNED, SAMPLES, TOKENS, UNWRITTEN, texts


def references_of(rows: pa.Table) -> list[list[str]] | None:
    """What could be written for each row; None where nobody says."""
    if "target" not in rows.column_names:
        return None
    return [target["texts"] for target in rows.column("target").to_pylist()]


def losses_by_frequency(train: SourceTarget, examples: SourceTarget, vocabulary: int) -> Array:
    """(rows,) the loss of telling each token by how often it is learned in `train`, whatever comes before it."""
    told = train.target.wanted
    losses = perplexity.by_frequency(told[told != NOTHING], vocabulary)
    piece, wanted = examples.wanted_of(np.arange(len(examples)))
    return np.bincount(piece, weights=losses[wanted], minlength=len(examples))


def leads(writer: Writer, train: SourceTarget, examples: SourceTarget, most: int) -> Array:
    """(rows, `most`) the first words of each source, as many as the targets of `train` have in the middle, as tokens."""
    lengths = [len(one[0].split()) for one in train.references or []]
    words = max(1, int(np.median(lengths))) if lengths else 1
    firsts = [" ".join(text.split()[:words]) for text in examples.texts.to_pylist()]
    found = np.full((len(firsts), most), NONE, dtype=np.int64)
    for row, tokens in enumerate(writer.tokens(firsts, bare=True)):
        found[row, : len(tokens)] = tokens[:most]
    return found


def described(examples: SourceTarget, outcomes: Array, tokenizer: Any) -> dict[str, Any]:
    """What was written, in numbers: rows, the share of texts that came to an end, and words beside those of the targets."""
    chosen = np.flatnonzero(outcomes[:, FIRST] != UNWRITTEN)
    tokens = outcomes[chosen, FIRST:]
    said = texts(outcomes[chosen], tokenizer)
    known = examples.references or []
    words = [len((text or "").split()) for text in said]
    wanted = [np.mean([len(one.split()) for one in known[row]]) for row in chosen.tolist()] if known else []
    return {
        "rows": len(chosen),
        "ended": float((tokens == NONE).any(axis=1).mean()),
        "max_new_tokens": tokens.shape[1],
        "words": float(np.mean(words)),
        "target_words": float(np.mean(wanted)) if wanted else None,
    }


def samples(rows: pa.Table, examples: SourceTarget, said: Mapping[str, Array], tokenizer: Any) -> list[dict[str, Any]]:
    """The first rows for which all of `said` wrote: `id`, `prompt`, `truth`, and `said` by name."""
    told = {name: texts(found, tokenizer) for name, found in said.items()}
    shown = [row for row in range(examples.rows) if all(one[row] is not None for one in told.values())][:SAMPLES]
    names, sources, known = rows.column("id").to_pylist(), rows.column("input").to_pylist(), examples.references or []
    return [
        {
            "id": names[row],
            "prompt": sources[row][:CHARACTERS],
            "truth": known[row][0],
            "said": {name: one[row] for name, one in told.items()},
        }
        for row in shown
    ]


def learned(rows: pa.Table, examples: SourceTarget, tokenizer: Any) -> list[dict[str, Any]]:
    """A few rows in their tokens, those of the source first, each with whether it is learned."""
    found = []
    for row, name in enumerate(rows.slice(0, LEARNED).column("id").to_pylist()):
        tokens: list[list[Any]] = []
        for side, told in ((examples.source, None), (examples.target, examples.target.wanted)):
            place = slice(int(side.offsets[row]), int(min(side.offsets[row + 1], side.offsets[row] + TOKENS)))
            flags = np.zeros(place.stop - place.start, dtype=bool) if told is None else told[place] != NOTHING
            pieces = [tokenizer.decode([token]) for token in side.ids[place].tolist()]
            tokens += [[text, bool(flag)] for text, flag in zip(pieces, flags, strict=True)]
        found.append({"id": name, "tokens": tokens})
    return found
