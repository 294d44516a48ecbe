"""What nobody reads is not computed, and nothing else changes: logits and gradients stay the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tiny import ARCHITECTURES, WORDS, write_model
from tunesmith.models.load import load_classifier
from tunesmith.models.tokenize import Reading, tokenize
from tunesmith.models.unread import unread_skipped

READS_FIRST = {"bert", "roberta", "distilbert", "electra", "xlm-roberta", "mpnet", "deberta-v2"}
"""Their heads look at the first token, and their last block has a place after its attention."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_and_gradients_stay_the_same(architecture: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / architecture, architecture)
    model = load_classifier(str(folder), ("a", "b", "c"), "single-label", seed=0)
    texts = [" ".join(WORDS[:length]) for length in (3, 9, 5)]
    tokens = tokenize(model.processor, pa.table({"input": texts}), None, Reading(model.limit))
    ids, mask, _ = tokens.padded(np.arange(3), model.processor.pad_token_id)
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    model.module.eval()

    def gradients() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.module.zero_grad()
        logits = model.module(**batch).logits
        logits.square().sum().backward()
        found = {name: p.grad.clone() for name, p in model.module.named_parameters() if p.grad is not None}
        return logits.detach(), found

    whole, expected = gradients()
    with unread_skipped(model, batch) as skipped:
        logits, found = gradients()
    assert skipped == (architecture in READS_FIRST)
    assert torch.allclose(logits, whole, atol=1e-5)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)
    again, _ = gradients()
    assert torch.equal(again, whole)
