"""Networks of the user's own: taken apart, frozen, trained, saved under their own names, and opened without Tunesmith."""

from __future__ import annotations

import contextlib
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

import tunesmith
from tiny import write_identities, write_images
from tunesmith.contracts import Loading
from tunesmith.errors import ModelError, SettingsError
from tunesmith.models import user_embedder
from tunesmith.models.user_embedder import load_user_embedder
from tunesmith.models.user_network import load_user_network
from tunesmith.settings import UserModel

NETS = (Path(__file__).parents[1] / "nets.py").read_text(encoding="utf-8")


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of networks in the folder that one is in; its name."""
    name = f"nets_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def loaded(nets: str, function: str, **more: Any) -> Any:
    source = UserModel(python=f"{nets}:{function}", size=16, **more)
    return load_user_network(source, ("a", "b", "c"), "single-label", seed=0)


def test_stages_are_what_is_called_one_after_the_other(nets: str) -> None:
    model = loaded(nets, "small")
    assert model.blocks == tuple(f"backbone.layer{layer}.{place}" for layer in (1, 2, 3) for place in (0, 1))
    assert [stage.name for stage in model.stages] == ["embeddings", *[f"block {place}" for place in range(6)], "head"]
    assert {one.name for one in model.stages[0].members} == {
        "backbone.conv1.weight",
        "backbone.bn1.weight",
        "backbone.bn1.bias",
    }
    assert sum(stage.size for stage in model.stages) == sum(one.numel() for one in model.module.parameters())
    assert loaded(nets, "plain").blocks == ("backbone.0", "backbone.2")
    wrapped = loaded(nets, "Wrapped")
    assert wrapped.blocks[:2] == ("backbone.body.layer1.0", "backbone.body.layer1.1")
    assert wrapped.module.layer == "classifier.2"
    assert wrapped.module.head.bias is None


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        ("soft", "does something after its last linear layer"),
        ("Widening", "does something after its last linear layer"),
        ("maps", "no linear layer that could be its head|a tensor of 4 dimensions"),
        ("pair", "a tuple, and not numbers by row"),
        ("needs", "cannot be called without arguments"),
        ("number", "returns a int, and no torch module"),
        ("absent", "which the module .* does not have"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(nets: str, function: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        loaded(nets, function)


def test_wrong_names_and_sizes_are_told_in_a_sentence(nets: str) -> None:
    for python, complaint in (
        ("nets", "Name module"),
        ("no_such:f", "cannot be imported"),
        (":f", "Name module"),
    ):
        with pytest.raises(ModelError, match=complaint):
            load_user_network(UserModel(python=python), ("a",), "single-label", seed=0)
    with pytest.raises(ModelError, match=r"cannot read pixels of the shape 1 × 3 × 20 × 20"):
        load_user_network(UserModel(python=f"{nets}:plain", size=20), ("a", "b"), "single-label", seed=0)
    with pytest.raises(SettingsError, match="mean needs 3 numbers"):
        tunesmith.check({"data": "x", "model": {"python": "a:b", "mean": [0.5]}})
    with pytest.raises(SettingsError, match="did you mean 'weights'"):
        tunesmith.check({"data": "x", "model": {"python": "a:b", "weigths": "w.pt"}})


def test_weights_of_every_usual_form_are_read_and_others_refused(nets: str, tmp_path: Path) -> None:
    import importlib  # noqa: PLC0415

    network = importlib.import_module(nets).small()
    state = network.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pt")
    torch.save({"state_dict": {f"module.{name}": one for name, one in state.items()}, "epoch": 3}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pt", "w.pth"):
        model = loaded(nets, "small", weights=str(tmp_path / name))
        assert torch.equal(model.module.backbone.conv1.weight, network.conv1.weight)
    (tmp_path / "no.pt").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"conv1.weight": state["conv1.weight"]}, tmp_path / "few.pt")
    for name, complaint in (
        ("gone.pt", "no file of weights"), ("no.pt", "cannot be read|hold more than tensors"), ("list.pt", "no state dict"),
        ("few.pt", "do not fit what .* tensors are missing"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=complaint):
            loaded(nets, "small", weights=str(tmp_path / name))


def given(nets: str, folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "model": {"python": f"{nets}:small", "size": 16},
        "data": str(write_images(folder / "images", 90)),
        "train": {"epochs": 3, "batch_size": 16, "learning_rate": 3e-3, "precision": "fp32"},
        "evaluate": {"resamples": 100},
    } | more


def test_whether_its_convolutions_normalise_decides_what_they_bear(nets: str, tmp_path: Path) -> None:
    more = {"train": {"precision": "fp32"}, "data": str(write_images(tmp_path / "many", 450))}  # enough for a test
    small, fresh, few = (
        tunesmith.plan(given(nets, tmp_path, method=method, **more)) for method in ("full", "scratch", "norm-only")
    )
    plain = tunesmith.plan(given(nets, tmp_path, method="full", model={"python": f"{nets}:plain", "size": 16}, **more))
    assert small["patience"] == small["phases"][-1]["epochs"] // 2
    assert "range_test" not in small
    assert any("made of convolutions" in reason for reason in small["reasons"])
    assert plain["patience"] < plain["phases"][-1]["epochs"] // 2
    assert "range_test" in plain
    assert not any("made of convolutions" in reason for reason in plain["reasons"])
    assert fresh["patience"] == fresh["phases"][-1]["epochs"]
    assert all(
        "range_test" in one and not any("No range" in reason for reason in one["reasons"]) for one in (fresh, few)
    )


@pytest.mark.reopens
def test_a_run_leaves_a_state_dict_that_the_users_own_module_takes(nets: str, tmp_path: Path) -> None:
    done = tunesmith.finetune(given(nets, tmp_path, method="full"), run=tmp_path / "run")
    report = json.loads(done.report.read_text())
    assert report["model"]["name"] == f"{nets}:small"
    assert report["model"]["loader"] == "state-dict"
    card = (done.model / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    file = next((tmp_path / "images").rglob("*.png"))
    names: dict[str, Any] = {}
    exec(code.replace("your image.jpg", str(file)), names)
    predictor = tunesmith.load(done.folder)
    batch = predictor.task.encode(predictor.read([str(file)], tmp_path).rows, predictor.model)
    with torch.no_grad():
        inputs = predictor.task.inputs(batch, np.arange(1), predictor.model)
        own = predictor.model.module.eval()(**inputs).logits[0].numpy()
    np.testing.assert_allclose(names["logits"], own, atol=1e-4)
    assert {"conv1.weight", "layer1.0.bn1.running_mean", "linear.weight"} <= load_file(
        done.model / "model.safetensors"
    ).keys()


@pytest.mark.parametrize("method", ["auto", "probe", {"name": "partial", "last": 2}, "gradual", "bitfit", "scratch"])
def test_every_kind_of_method_works_on_it(nets: str, tmp_path: Path, method: Any) -> None:
    done = tunesmith.finetune(given(nets, tmp_path, method=method), run=tmp_path / "run")
    report = json.loads(done.report.read_text())
    assert report["status"] == "finished"
    found = tunesmith.load(done.folder).predict([str(next((tmp_path / "images").rglob("*.png")))])
    assert found[0]["prediction"] in report["labels"]


def test_its_own_head_measures_what_it_kept_where_its_labels_are_told(nets: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "more", 300)
    labels = sorted(path.name for path in images.iterdir() if path.is_dir())
    import importlib  # noqa: PLC0415

    network = importlib.import_module(nets).ResNet(2, 8, len(labels))
    (tmp_path / f"{nets}.py").write_text(NETS + f"\n\ndef labelled():\n    return ResNet(2, 8, {len(labels)})\n")
    importlib.reload(importlib.import_module(nets))
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    model = {"python": f"{nets}:labelled", "size": 16, "weights": str(tmp_path / "w.safetensors"), "labels": labels}
    evaluate = {"resamples": 100, "retention": [{"name": "before", "data": str(images)}]}
    done = tunesmith.finetune(
        given(nets, tmp_path, model=model, method="probe", evaluate=evaluate), run=tmp_path / "run"
    )
    kept = json.loads(done.report.read_text())["retention"][0]
    assert kept["head"] == "own"
    assert kept["kept"] == pytest.approx(1.0)


def test_text_has_no_such_networks(tiny_model: Path, rows: Path) -> None:
    with pytest.raises(ModelError, match="builds networks that read images"):
        tunesmith.plan({"data": str(rows), "model": {"python": "a:b"}})


def test_the_network_apart_is_the_network_whole(nets: str) -> None:
    import importlib  # noqa: PLC0415

    torch.manual_seed(1)
    network: nn.Module = importlib.import_module(nets).small()
    save_file(network.state_dict(), "w.safetensors")
    source = UserModel(python=f"{nets}:small", size=16, weights="w.safetensors")
    model = load_user_network(source, tuple("abcdefghij"), "single-label", seed=0)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        found = model.module.eval()(pixels).logits
        torch.testing.assert_close(functional.softmax(found, 1), functional.softmax(network.eval()(pixels), 1))


def vectors(nets: str, folder: Path, function: str = "small", **more: Any) -> dict[str, Any]:
    return {
        "task": "image-similarity",
        "model": {"python": f"{nets}:{function}", "size": 16},
        "data": str(write_identities(folder / "things", 16, 6)),
        "method": "full",
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"},
        "evaluate": {"resamples": 100},
    } | more


@pytest.mark.reopens
def test_it_gives_vectors_that_are_compared(nets: str, tmp_path: Path) -> None:
    done = tunesmith.finetune(vectors(nets, tmp_path), run=tmp_path / "run")
    report = json.loads(done.report.read_text())
    assert report["model"]["loader"] == "state-dict"
    assert {"recall_at_1", "auroc"} <= set(report["metrics"]["test"])
    assert not any(name.startswith("linear.") for name in load_file(done.model / "model.safetensors"))
    files = sorted((tmp_path / "things").rglob("*.png"))[:2]
    code = (done.model / "README.md").read_text().split("```python\n")[1].split("```")[0]
    for name, file in zip(("one.jpg", "other.jpg"), files, strict=True):
        code = code.replace(f'"{name}"', repr(str(file)))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    found = tunesmith.load(done.folder).predict([str(file) for file in files])
    one, other = (np.array(row["embedding"]) for row in found)
    assert float(said.getvalue()) == pytest.approx(float(one @ other), abs=1e-3)
    assert found[0]["prediction"] in {file.parent.name for file in (tmp_path / "things").rglob("*.png")}


@pytest.mark.parametrize(
    "more", [{"method": "probe"}, {"method": "scratch"}, {"task": {"name": "image-similarity", "loss": "triplet"}}]
)
def test_vectors_of_it_can_be_had_in_every_way(nets: str, tmp_path: Path, more: dict[str, Any]) -> None:
    done = tunesmith.finetune(vectors(nets, tmp_path, **more), run=tmp_path / "run")
    assert json.loads(done.report.read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("function", "width"), [("headless", 32), ("Unit", 10), ("Necked", 10), ("Squeezing", 12), ("Widening", 5)]
)
def test_a_network_that_ends_in_no_linear_layer_gives_its_vectors_itself(
    function: str, width: int, nets: str, tmp_path: Path
) -> None:
    source = UserModel(python=f"{nets}:{function}", size=16)
    model = load_user_embedder(source, ["a", "b"], seed=0)
    assert model.module.backbone.layer is None
    with torch.no_grad():
        found = model.module.eval()(**model.example).logits
    assert found.shape == (1, 2 + width)
    assert float(found[:, 2:].norm()) == pytest.approx(1, abs=1e-5)
    (tmp_path / "model").mkdir()
    user_embedder.write(model, tmp_path / "model")
    again = user_embedder.reload_user_embedder(tmp_path / "model")
    with torch.no_grad():
        assert torch.allclose(again.module(**model.example).logits, found, atol=1e-6)
    sized = vectors(nets, tmp_path, task={"name": "image-similarity", "image_size": 32})
    with pytest.raises(SettingsError, match=r"Set model\.size"):
        tunesmith.plan(sized)


def test_its_vectors_are_held_replayed_and_measured_like_those_of_others(nets: str, tmp_path: Path) -> None:
    """Guards read what the backbone gives, and a reference of another task borrows it."""
    labelled = {"name": "kinds", "task": "image-classification", "data": str(write_images(tmp_path / "images", 60))}
    same = {"name": "things", "data": str(write_identities(tmp_path / "others", 12, 5))}
    train = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32", "distil": 0.5, "replay": 0.3}
    given = vectors(nets, tmp_path, train=train, evaluate={"resamples": 100, "retention": [labelled, same]})
    report = json.loads(tunesmith.finetune(given, run=tmp_path / "run").report.read_text())
    assert {entry["name"] for entry in report["retention"]} == {"kinds", "things"}


@pytest.mark.parametrize("task", ["image-classification", "image-similarity"])
def test_a_part_of_two_names_is_saved_under_both(task: str, nets: str, tmp_path: Path) -> None:
    given_ = (given if task == "image-classification" else vectors)(nets, tmp_path)
    given_ |= {"model": {"python": f"{nets}:Twice", "size": 16}, "method": "probe"}
    done = tunesmith.finetune(given_, run=tmp_path / "run")
    names = load_file(done.model / "model.safetensors").keys()
    assert {"body.layer1.0.conv1.weight", "again.0.conv1.weight"} <= names
    assert tunesmith.load(done.folder).model.module is not None


@pytest.mark.parametrize("load", [load_user_embedder, partial(load_user_network, problem="single-label")])
def test_what_only_texts_have_is_refused(load: Any, nets: str) -> None:
    source = UserModel(python=f"{nets}:small", size=16)
    for loading in (Loading(four_bit=True), Loading(reserved=8)):
        with pytest.raises(ModelError, match="are for models that read text"):
            load(source, ("a", "b"), seed=0, loading=loading)
