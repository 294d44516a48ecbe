"""Adapters change nothing at first, compute what their papers say, and fold into the weights without a change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import tunesmith
from tiny import ARCHITECTURES, write_model
from tunesmith.contracts import Model
from tunesmith.models import adapters, save
from tunesmith.models.load import load_classifier, tiny_batch
from tunesmith.plans import Adapter, AdapterKind, RankBudget

KINDS: tuple[AdapterKind, ...] = ("lora", "dora", "rslora", "pissa", "ia3", "adalora", "vera")


def adapter(kind: AdapterKind, blocks: tuple[str, ...], **more: Any) -> Adapter:
    return Adapter(kind, blocks, rank=4, budget=RankBudget(6) if kind == "adalora" else None, **more)


def adapted(folder: Path, kind: AdapterKind) -> Model:
    """A network of which every block has adapters that change something."""
    model = load_classifier(str(folder), ("a", "b"), "single-label", seed=0)
    blocks = tuple(stage.name for stage in model.stages if stage.name.startswith("block "))
    model = adapters.inject(model, adapter(kind, blocks, merge=False), 0)
    parameters = dict(model.module.named_parameters())
    torch.manual_seed(0)
    with torch.no_grad():
        for member in (member for stage in model.stages for member in stage.members if member.adapter):
            parameters[member.name].add_(0.5 * torch.randn(parameters[member.name].shape))
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_injected_changes_nothing_and_merged_is_the_trained_one(
    tmp_path: Path, architecture: str, kind: AdapterKind
) -> None:
    folder = write_model(tmp_path / architecture, architecture)
    model = load_classifier(str(folder), ("a", "b"), "single-label", seed=0)
    batch = model.example
    model.module.eval()
    names = {name for name, _ in model.module.named_parameters()}

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return model.module(**batch).logits  # type: ignore[no-any-return]

    before = logits()
    blocks = tuple(stage.name for stage in model.stages if stage.name.startswith("block "))
    model = adapters.inject(model, adapter(kind, blocks), 0)
    assert torch.allclose(logits(), before, atol=1e-4)
    added = [member for stage in model.stages for member in stage.members if member.adapter]
    assert added
    assert {stage.name for stage in model.stages if stage.chosen("adapter")} == set(blocks)
    parameters = dict(model.module.named_parameters())
    with torch.no_grad():
        for member in added:
            parameters[member.name].add_(0.5 * torch.randn(parameters[member.name].shape))
    moved = logits()
    assert (moved - before).abs().max() > 1e-6
    model = adapters.merge(model)
    assert {name for name, _ in model.module.named_parameters()} == names
    assert torch.allclose(logits(), moved, atol=1e-5)


def test_lora_is_its_equation(tmp_path: Path) -> None:
    """Hu et al. 2021, equation 3: W x + (alpha / rank) B A x."""
    model = load_classifier(str(write_model(tmp_path / "model")), ("a", "b"), "single-label", seed=0)
    layer: Any = model.module.get_submodule("bert.encoder.layer.1.intermediate.dense")
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    model = adapters.inject(model, Adapter("lora", ("block 1",), rank=4, alpha=8), 0)
    assert not any(".0." in name and "lora" in name for name, _ in model.module.named_parameters())
    layer = model.module.get_submodule("bert.encoder.layer.1.intermediate.dense")
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert down.shape == (4, 32)
    assert not up.any()
    with torch.no_grad():
        up.normal_()
    x = torch.randn(3, 32)
    assert torch.allclose(layer(x), x @ weight.T + bias + (8 / 4) * (x @ down.T @ up.T), atol=1e-5)


def test_vera_is_its_equation_with_projections_that_all_layers_share(tmp_path: Path) -> None:
    """Kopiczko et al. 2024, equation 2: W x + b ⊙ B (d ⊙ A x), with the first columns and rows where a layer is smaller."""
    folder = write_model(tmp_path / "model")
    plain: Any = load_classifier(str(folder), ("a", "b"), "single-label", seed=0).module
    model = adapted(folder, "vera")
    one: Any = model.module.get_submodule("bert.encoder.layer.0.intermediate.dense")  # 32 to 64
    other: Any = model.module.get_submodule("bert.encoder.layer.1.output.dense")  # 64 to 32
    down, up = one.vera_A["default"], one.vera_B["default"]
    assert down.shape == (4, 64)
    assert up.shape == (64, 4)
    assert other.vera_A["default"].data_ptr() == down.data_ptr()
    for layer, name in ((one, "layer.0.intermediate"), (other, "layer.1.output")):
        base = plain.get_submodule(f"bert.encoder.{name}.dense")
        x = torch.randn(3, base.in_features)
        b, d = layer.vera_lambda_b["default"], layer.vera_lambda_d["default"]
        change = b * (d * (x @ down[:, : base.in_features].T) @ up[: base.out_features].T)
        assert torch.allclose(layer(x), base(x) + change, atol=1e-5)
    names = [name for stage in model.stages for name in stage.parameters]
    assert sorted(names) == sorted(name for name, _ in model.module.named_parameters())
    assert not [name for name in names if "vera_A" in name or "vera_B" in name]  # nothing there that could train


@pytest.mark.parametrize("kind", ["dora", "rslora", "pissa", "ia3", "adalora", "vera"])
@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_every_kind_kept_apart_is_the_same_network_in_peft(
    tmp_path: Path, architecture: str, kind: AdapterKind
) -> None:
    model = adapted(write_model(tmp_path / "base", architecture), kind)
    save.save(model, tmp_path / "saved")
    opened = peft.AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path / "saved"), num_labels=2).eval()
    batch = tiny_batch(model.module.config)
    with torch.no_grad():
        assert torch.allclose(opened(**batch).logits, model.module.eval()(**batch).logits, atol=1e-4)


@pytest.mark.parametrize("architecture", ["distilbert", "gpt2"])
def test_adapters_kept_apart_open_with_peft(settings: dict[str, Any], tmp_path: Path, architecture: str) -> None:
    """The run itself opens the folder in a fresh process; here the card's code and predict do too."""
    settings |= {
        "model": str(write_model(tmp_path / "model", architecture)),
        "method": {"name": "lora", "merge": False},
    }
    place = tunesmith.finetune(settings, run=tmp_path / "run")
    assert json.loads(place.report.read_text())["model"]["loader"] == "peft"
    assert (place.model / "adapter_model.safetensors").stat().st_size < 200_000
    assert not (place.model / "model.safetensors").exists()
    code = (place.model / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = code.replace("your text", "word1 word2 word3")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert tunesmith.load(place.folder).predict(["word1 word2 word3"])[0]["prediction"] in done.stdout


def test_a_pooler_that_the_base_lacks_goes_with_the_adapters(settings: dict[str, Any], tmp_path: Path) -> None:
    """The loader would draw another one, and the model in `model/` would not be the trained one."""
    import transformers  # noqa: PLC0415

    folder = write_model(tmp_path / "model")
    bare = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)
    bare.save_pretrained(folder)
    given = settings | {"model": str(folder), "method": {"name": "lora", "merge": False}}
    place = tunesmith.finetune(given, run=tmp_path / "run")
    assert tunesmith.load(place.folder).predict(["word1"])[0]["prediction"] in ("good", "bad")


def test_adapters_have_the_dropout_of_their_method(settings: dict[str, Any], tmp_path: Path) -> None:
    from tunesmith.models.dropout import set_dropout  # noqa: PLC0415

    model = load_classifier(str(write_model(tmp_path / "model")), ("a", "b"), "single-label", seed=0)
    model = adapters.inject(model, Adapter("lora", ("block 1",), dropout=0.3), 0)
    set_dropout(model.module, 0.0)
    rates = {name: child.p for name, child in model.module.named_modules() if isinstance(child, torch.nn.Dropout)}
    assert {rate for name, rate in rates.items() if "lora_dropout" in name} == {0.3}
    assert {rate for name, rate in rates.items() if "lora_dropout" not in name} == {0.0}


def test_lora_plus_gives_b_the_higher_rate(settings: dict[str, Any], tmp_path: Path) -> None:
    from tunesmith import prepare  # noqa: PLC0415
    from tunesmith import settings as settings_  # noqa: PLC0415
    from tunesmith.models.freezing import apply_phase  # noqa: PLC0415
    from tunesmith.train import optimiser  # noqa: PLC0415

    ready = prepare.prepare(
        settings_.parse(settings | {"method": "lora+"}), tmp_path / "cache", torch.device("cpu"), lambda _: None
    )
    phase = ready.frontier.candidates[0].phases[-1]
    apply_phase(ready.model.module, ready.model.stages, phase)
    groups = optimiser.build(ready.model.module, ready.model.stages, phase).param_groups
    parameters = dict(ready.model.module.named_parameters())
    rates = {id(parameter): group["full"] for group in groups for parameter in group["params"]}
    for name, parameter in parameters.items():
        if ".lora_B." in name:
            assert rates[id(parameter)] == pytest.approx(16 * rates[id(parameters[name.replace("lora_B", "lora_A")])])
