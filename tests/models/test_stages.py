"""Every architecture splits into stages, and each head is read and solved rightly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tiny import ARCHITECTURES, DECODERS, WORDS, write_model
from tunesmith.models.heads import last_layer
from tunesmith.models.load import load_classifier
from tunesmith.models.tokenize import Reading, tokenize


@pytest.fixture(params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, write_model(tmp_path / request.param, request.param)


def test_each_parameter_lies_in_exactly_one_stage_in_depth_order(folder: tuple[str, Path]) -> None:
    name, where = folder
    model = load_classifier(str(where), ("a", "b", "c"), "single-label", seed=0)
    names = [parameter for stage in model.stages for parameter in stage.parameters]
    assert sorted(names) == sorted(name for name, _ in model.module.named_parameters())
    order = [stage.name for stage in model.stages]
    blocks = ["block 0"] if name == "albert" else ["block 0", "block 1"]  # ALBERT's blocks share one set of weights
    assert order[0] == "embeddings"
    assert [stage for stage in order if stage.startswith("block")] == blocks
    assert order[-1] == "head"
    assert sum(stage.size for stage in model.stages) == sum(p.numel() for p in model.module.parameters())


def test_freezing_all_below_a_block_leaves_no_gradient_there(folder: tuple[str, Path]) -> None:
    _, where = folder
    model = load_classifier(str(where), ("a", "b", "c"), "single-label", seed=0)
    parameters = dict(model.module.named_parameters())
    frozen = {name for stage in model.stages if stage.name in ("embeddings", "block 0") for name in stage.parameters}
    for name in frozen:
        parameters[name].requires_grad_(False)
    ids = torch.tensor([[7, 8, 9, 10]])
    logits = model.module(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    logits.sum().backward()
    assert all(parameters[name].grad is None for name in frozen)
    assert last_layer(model).weight.grad is not None


def test_padding_changes_no_answer(folder: tuple[str, Path]) -> None:
    """Padding token and, for decoders, the choice of the last token are right."""
    _, where = folder
    model = load_classifier(str(where), ("a", "b", "c"), "single-label", seed=0)
    texts = [" ".join(WORDS[:length]) for length in (3, 9, 5)]
    tokens = tokenize(model.processor, pa.table({"input": texts}), None, Reading(model.limit))
    model.module.eval()

    def answer(rows: list[int]) -> torch.Tensor:
        ids, mask, _ = tokens.padded(np.array(rows), model.processor.pad_token_id)
        with torch.no_grad():
            return model.module(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits

    together = answer([0, 1, 2])
    for row in range(3):
        torch.testing.assert_close(together[row], answer([row])[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_without_padding_token_is_given_one(name: str, tmp_path: Path) -> None:
    model = load_classifier(str(write_model(tmp_path / name, name)), ("a", "b"), "single-label", seed=0)
    assert model.processor.pad_token is not None
    assert model.module.config.pad_token_id == model.processor.pad_token_id


def test_roberta_loses_the_positions_up_to_its_padding(tmp_path: Path) -> None:
    model = load_classifier(str(write_model(tmp_path / "roberta", "roberta")), ("a", "b"), "single-label", seed=0)
    assert model.limit == 64
