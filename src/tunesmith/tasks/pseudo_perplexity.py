"""masked-lm as reference data ask it: each token by itself, from all those around it."""

from __future__ import annotations

from typing import Annotated

import pyarrow as pa
import transformers
from pydantic import Field

from tunesmith.contracts import Model
from tunesmith.data.asked import Asked
from tunesmith.errors import DataError, ModelError
from tunesmith.metrics.perplexity import LONGER, NO_TOKEN
from tunesmith.models.asking import masked_tokens
from tunesmith.tasks.language import Language, LanguageSettings


class PseudoPerplexity(Language):
    """Pseudo-perplexity (Salazar et al. 2020, section 2): tokens are hidden one at a time, a forward pass for each."""

    name = "masked-lm"
    primary_metric = "pseudo_perplexity"
    network = transformers.AutoModelForMaskedLM

    class Settings(LanguageSettings):
        """Settings under `task:`."""

        places: Annotated[int, Field(gt=0)] = 16
        """Tokens hidden in each window; where it has more, they are drawn and stand for all."""

    def encode(self, rows: pa.Table, model: Model) -> Asked:
        if model.processor.mask_token_id is None:
            raise ModelError(f"The tokenizer of {model.source} has no mask token.", "Use task: causal-lm.")
        found = masked_tokens(model.processor, rows, model.limit, self.settings.places)
        if not len(found):
            raise DataError(NO_TOKEN, LONGER)
        return found
