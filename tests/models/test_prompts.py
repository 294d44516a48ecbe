"""Virtual tokens compute what their papers say, are what PEFT opens, and are refused where that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

from tiny import ARCHITECTURES, DECODERS, write_model
from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError
from tunesmith.models import adapters, prompts, save
from tunesmith.models.activations import pooled, watched
from tunesmith.models.load import load_classifier
from tunesmith.models.reload import reload
from tunesmith.models.stages import FINAL
from tunesmith.plans import Adapter, AdapterKind

PREFIXED = ("bert", "roberta", "electra", "xlm-roberta", *DECODERS)


def loaded(folder: Path) -> Model:
    model = load_classifier(str(folder), ("a", "b"), "single-label", seed=0, loading=Loading(reserved=5))
    model.module.eval()
    return model


def prompted(model: Model, kind: AdapterKind) -> Model:
    adapter = Adapter(kind, ("embeddings",), merge=False, tokens=5)
    return adapters.inject(model, adapter, 0)


def ragged(model: Model) -> dict[str, torch.Tensor]:
    """Two rows, the second with two tokens of padding on the right."""
    pad = model.processor.pad_token_id
    ids = torch.tensor([[9, 10, 11, 12, 13], [14, 15, 16, pad, pad]])
    return {"input_ids": ids, "attention_mask": torch.tensor([[1] * 5, [1] * 3 + [0] * 2])}


def logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_prompt_is_vectors_before_those_of_the_text(tmp_path: Path, architecture: str) -> None:
    """Lester et al. 2021, section 3: [P; X]; the decoder's head reads the text's last token, wherever padding is."""
    model = loaded(write_model(tmp_path / "model", architecture))
    batch = ragged(model)
    plain: Any = loaded(tmp_path / "model").module
    model = prompted(model, "prompt")
    prompt = prompts.of(model)
    assert prompt is not None
    found = logits(model.module, batch)
    for row, length in enumerate((5, 3)):
        words = plain.get_input_embeddings()(batch["input_ids"][row : row + 1, :length])
        vectors = torch.cat([prompt.weight[None], words], dim=1)
        mask = torch.ones(1, 5 + length, dtype=torch.long)
        with torch.no_grad():
            expected = plain(inputs_embeds=vectors, attention_mask=mask).logits[0]
        assert torch.allclose(found[row], expected, atol=1e-5)


def test_a_prefix_is_keys_and_values_before_those_of_the_text(tmp_path: Path) -> None:
    """Li & Liang 2021, section 4: attention of the first block, by hand, with the prefix before its keys and values."""
    model = prompted(loaded(write_model(tmp_path / "model")), "prefix")
    prompt = prompts.of(model)
    assert prompt is not None
    assert prompt.weight.shape == (5, 2 * 2 * 2 * 16)
    caught: dict[str, torch.Tensor] = {}
    attention: Any = model.module.get_submodule("bert.encoder.layer.0.attention.self")
    attention.register_forward_hook(lambda _, args, output: caught.update(x=args[0], found=output[0]))
    logits(model.module, {name: one[:1] for name, one in ragged(model).items()})
    x = caught["x"]
    prefix = prompt.weight.view(5, 2, 2, 2, 16)  # tokens, blocks, key or value, heads, width

    def heads(layer: Any) -> torch.Tensor:
        return layer(x).view(5, 2, 16)  # type: ignore[no-any-return]

    with torch.no_grad():
        keys = torch.cat([prefix[:, 0, 0], heads(attention.key)])
        values = torch.cat([prefix[:, 0, 1], heads(attention.value)])
        shares = torch.einsum("qhd,khd->hqk", heads(attention.query), keys).div(4).softmax(-1)
        expected = torch.einsum("hqk,khd->qhd", shares, values).reshape(5, 32)
    assert torch.allclose(caught["found"][0], expected, atol=1e-5)


def test_a_fresh_prefix_is_as_if_its_words_stood_before_the_text(tmp_path: Path) -> None:
    """Of a decoder, whose words do not see what follows."""
    model = loaded(write_model(tmp_path / "model", "gpt2"))
    batch = {name: one[:1] for name, one in ragged(model).items()}
    ids = torch.cat([prompts._words(model, 5, 0)[None], batch["input_ids"]], dim=1)
    expected = logits(model.module, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert torch.allclose(logits(prompted(model, "prefix").module, batch), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [*[("prompt", one) for one in ARCHITECTURES], *[("prefix", one) for one in PREFIXED]],
)
def test_what_is_saved_is_the_same_network_in_peft_and_here(
    tmp_path: Path, kind: AdapterKind, architecture: str
) -> None:
    model = loaded(write_model(tmp_path / "base", architecture))
    batch = ragged(model)
    before = logits(model.module, batch)
    model = prompted(model, kind)
    prompt = prompts.of(model)
    assert prompt is not None
    with torch.no_grad():
        prompt.weight.add_(0.3 * torch.randn(prompt.weight.shape))
    found = logits(model.module, batch)
    assert (found - before).abs().max() > 1e-4
    with prompts.bare(model):
        assert torch.equal(logits(model.module, batch), before)
    embeddings = next(stage for stage in model.stages if stage.name == "embeddings")
    assert [member.name for member in embeddings.chosen("adapter")] == [f"{model.backbone}.prompt_encoder.weight"]
    names = [name for stage in model.stages for name in stage.parameters]
    assert sorted(names) == sorted(name for name, _ in model.module.named_parameters())
    save.save(model, tmp_path / "saved")
    opened = peft.AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path / "saved"), num_labels=2).eval()
    for row, length in enumerate((5, 3)):
        one = {name: values[row : row + 1, :length] for name, values in batch.items()}
        assert torch.allclose(logits(opened, one)[0], found[row], atol=1e-5)
    assert torch.allclose(logits(reload(tmp_path / "saved").module, batch), found, atol=1e-5)


@pytest.mark.parametrize("architecture", [one for one in ARCHITECTURES if one not in PREFIXED])
def test_a_prefix_is_refused_where_a_network_takes_none(tmp_path: Path, architecture: str) -> None:
    with pytest.raises(ModelError, match="takes no past_key_values"):
        prompted(loaded(write_model(tmp_path / "model", architecture)), "prefix")


def test_a_prefix_is_refused_where_peft_would_read_another_head(tmp_path: Path) -> None:
    """PEFT puts the layer `classifier` on the pooler's output, whatever the class does between them."""
    model = loaded(write_model(tmp_path / "model"))
    prompted(loaded(tmp_path / "model"), "prefix")
    model.module.dropout.register_forward_hook(lambda _, __, output: output + 1)  # type: ignore[union-attr,operator]
    with pytest.raises(ModelError, match="PEFT would read its head in another way"):
        prompted(model, "prefix")


def test_the_text_leaves_room_for_virtual_tokens(tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "model", "roberta"))
    limits = [
        load_classifier(folder, ("a", "b"), "single-label", seed=0, loading=Loading(reserved=reserved)).limit
        for reserved in (0, 20)
    ]
    assert limits == [64, 45]
    model = prompted(loaded(tmp_path / "model"), "prompt")
    ids = torch.from_numpy(np.full((1, model.limit), 9))
    assert torch.isfinite(logits(model.module, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})).all()


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_a_rows_pooled_features_do_not_depend_on_the_rows_beside_it(tmp_path: Path, kind: AdapterKind) -> None:
    """Neither virtual tokens nor padding are averaged."""
    model = prompted(loaded(write_model(tmp_path / "model")), kind)
    batch = ragged(model)
    alone = {name: tensor[1:, :3] for name, tensor in batch.items()}
    found = []
    for given in (batch, alone):
        with torch.no_grad(), watched(model, [FINAL]) as seen:
            model.module(**given)
        found.append(pooled(seen[FINAL], given)[-1])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)
