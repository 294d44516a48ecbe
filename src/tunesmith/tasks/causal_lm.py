"""causal-lm: a network that tells each token from those before it."""

from __future__ import annotations

import pyarrow as pa
import transformers

from tunesmith.contracts import Model
from tunesmith.data.asked import Asked
from tunesmith.models.asking import next_tokens
from tunesmith.tasks.language import Language, LanguageSettings


class CausalLm(Language):
    """Perplexity of texts, read in windows that overlap, so that tokens have others before them."""

    name = "causal-lm"
    primary_metric = "perplexity"
    network = transformers.AutoModelForCausalLM

    class Settings(LanguageSettings):
        """Settings under `task:`."""

    def encode(self, rows: pa.Table, model: Model) -> Asked:
        return next_tokens(model.processor, rows, model.limit)
