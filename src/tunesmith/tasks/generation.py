"""How texts are written: settings, and the network's own configuration, by which transformers writes the same."""

from __future__ import annotations

from typing import Annotated, Any, cast

import numpy as np
import transformers
from pydantic import Field

from tunesmith.contracts import Array, Model
from tunesmith.errors import SettingsError
from tunesmith.models.load_seq2seq import longest_output
from tunesmith.models.two_sides import Writer
from tunesmith.settings import Auto, Strict

WRITTEN = (16, 256)
"""Tokens that are written, at least and at most, where the texts that are learned decide."""
MOST_TEXTS = 0.95
"""Of them so many are no longer than what is written."""


def usual_length(lengths: Array) -> int:
    """Tokens that are written, at most, where nobody says so.

    Args:
        lengths: (texts,) tokens of those that are learned; there may be none.
    """
    low, high = WRITTEN
    return int(np.clip(np.quantile(lengths, MOST_TEXTS), low, high)) if len(lengths) else low


class Generation(Strict):
    """How texts are written; the saved model writes the same way."""

    num_beams: Annotated[int, Field(ge=1)] = 4
    """Beginnings that are gone on with side by side; 1 takes the likeliest token at each step."""
    length_penalty: float = 1.0
    """Above 0 long texts are favoured, below 0 short ones; with several beams alone."""
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] = 0
    """No sequence of so many tokens is written twice; 0 allows all."""
    max_new_tokens: Auto | Annotated[int, Field(gt=0)] = "auto"
    """Tokens that are written, at most; by the lengths of the training targets when it is `auto`."""

    def told(self, most: int) -> str:
        """The same as a sentence; `most` tokens are written at most."""
        beams = f"{self.num_beams} beams" if self.num_beams > 1 else "the likeliest token at each step"
        again = f", no {self.no_repeat_ngram_size} tokens twice" if self.no_repeat_ngram_size else ""
        return f"At the end texts are written with {beams}, at most {most} tokens{again} (task.generation)."


def write_as(model: Model, writer: Writer, wanted: Generation, usual: int) -> int:
    """Let `model` write as is `wanted`, and how many tokens that is at most: `usual` where this is left open.

    Raises:
        SettingsError: more than the network can write.
    """
    network, known = cast(Any, model.module), longest_output(model) - 1
    if wanted.max_new_tokens != "auto" and wanted.max_new_tokens > known:
        raise SettingsError(
            f"task.generation.max_new_tokens is {wanted.max_new_tokens:,}, but {model.source} writes {known:,} tokens.",
            f"Set it to {known} or less.",
        )
    most = min(usual, known) if wanted.max_new_tokens == "auto" else wanted.max_new_tokens
    own, several = network.generation_config, wanted.num_beams > 1
    network.generation_config = transformers.GenerationConfig(
        max_new_tokens=most,
        num_beams=wanted.num_beams,
        length_penalty=wanted.length_penalty if several else None,
        early_stopping=True if several else None,
        no_repeat_ngram_size=wanted.no_repeat_ngram_size or None,
        decoder_start_token_id=writer.begin,
        forced_bos_token_id=writer.before[0] if writer.before else None,
        bos_token_id=own.bos_token_id,
        eos_token_id=list(writer.ends) if len(writer.ends) > 1 else writer.ends[0],
        pad_token_id=model.processor.pad_token_id,
        bad_words_ids=own.bad_words_ids,
    )
    return most
