"""A network of the user's own that gives each image a vector: what enters the linear layer that it ends in, or, where it ends
in none, what it puts out. What is saved has the names that the user's own module gives its weights; prototypes lie beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from tunesmith import seeds
from tunesmith.contracts import Loading, Model
from tunesmith.errors import ModelError
from tunesmith.models.embedder import BACKBONE, POOLED, PROTOTYPES, Embedder, known_of, save_prototypes
from tunesmith.models.load_images import insist_for_images
from tunesmith.models.user_network import (
    NOTES,
    WEIGHTS,
    assembled,
    built,
    copies,
    example_of,
    fill,
    last_linear,
    said,
)  # fmt: skip
from tunesmith.settings import UserModel, check


class UserBackbone(nn.Module):
    """The user's network, giving vectors as transformers' networks give them."""

    def __init__(self, network: nn.Module, layer: str | None, channels: int) -> None:
        """`layer`: the linear one that it ended in, which is left away; None where the network ends in vectors."""
        super().__init__()
        self.network, self.layer = network, layer
        self.config: Any = transformers.PretrainedConfig()
        self.config.num_channels = channels

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """(rows, channels, height, width) to `pooler_output`, (rows, width)."""
        return SimpleNamespace(pooler_output=self.network(pixel_values))


def load_user_embedder(
    source: UserModel,
    identities: Sequence[str],
    *,
    seed: int,
    loading: Loading = Loading(),  # noqa: B008 - frozen
) -> Model:
    """The network that `source` describes, in fp32, with a new prototype for each of `identities`.

    Args:
        seed: draws the prototypes, and all weights where `loading` wants them fresh.

    Raises:
        ModelError: it cannot be built, its weights do not fit, or it gives no vectors.
    """
    insist_for_images(str(source), loading)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "head"))
        network = built(source.python)
        if source.weights is not None and not loading.fresh:
            fill(network, source.weights, source)
        layer, ends = last_linear(network, example_of(source)["pixel_values"], source)
        if layer is None or not ends:
            return _model(network, None, source, identities)
        network.set_submodule(layer, nn.Identity())
        return _model(network, layer, source, identities)


def write(model: Model, folder: Path) -> None:
    """The weights under the names of the user's own module, how that is made, and the prototypes."""
    module, source = model.module, model.source
    assert isinstance(module, Embedder)
    assert isinstance(source, UserModel)
    save_file(copies(module.backbone.network), folder / WEIGHTS, metadata={"format": "pt"})
    names = module.config.id2label
    notes = {
        "python": source.python,
        "left_away": module.backbone.layer,
        "labels": [names[index] for index in sorted(names)],
        "source": source.model_dump(mode="json"),
    }
    (folder / NOTES).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
    save_prototypes(model, folder)


def reload_user_embedder(folder: Path) -> Model:
    """The network that `write` left in `folder`, in fp32 and eval mode.

    Raises:
        ModelError: its module cannot be built here, or the weights do not fit it.
    """
    notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    source = check(UserModel, notes["source"], str(folder / NOTES))
    network = built(source.python)
    if notes["left_away"] is not None:
        network.set_submodule(notes["left_away"], nn.Identity())
    fill(network, str(folder / WEIGHTS), source)
    model = _model(network, notes["left_away"], source, notes["labels"])
    module: Any = model.module
    module.head.load_state_dict({"weight": load_file(folder / PROTOTYPES)["prototypes"]})
    module.known = known_of(folder)
    model.module.eval()
    return model


def loading_code(model: Model, folder: str) -> str:
    """The lines of Python, for the model card, that compare two images with the saved network."""
    module, source = model.module, model.source
    assert isinstance(module, Embedder)
    assert isinstance(source, UserModel)
    place, _, function = source.python.partition(":")
    layer = module.backbone.layer
    away = "" if layer is None else f'network.set_submodule("{layer}", torch.nn.Identity())\n'
    grey = "" if source.channels != 1 else '.convert("L")'
    return (
        f"import torch\nfrom {place} import {function}\nfrom safetensors.torch import load_file\n"
        "from transformers import AutoImageProcessor\nfrom transformers.image_utils import load_image\n\n"
        f"network = {function}()\n{away}"
        f'network.load_state_dict(load_file("{folder}/{WEIGHTS}"))\n'
        f'processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil")\n'
        f'images = [load_image(name){grey} for name in ("one.jpg", "other.jpg")]\n'
        'one, other = network.eval()(processor(images, return_tensors="pt")["pixel_values"])\n'
        "print(torch.nn.functional.cosine_similarity(one, other, dim=0).item())"
    )


OPEN = """
import base64, importlib, io, json, sys, torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor
folder, rows = sys.argv[1], json.load(sys.stdin)
with open(f"{folder}/network.json", encoding="utf-8") as file:
    notes = json.load(file)
place, _, function = notes["python"].partition(":")
model = getattr(importlib.import_module(place), function)()
if notes["left_away"] is not None:
    model.set_submodule(notes["left_away"], torch.nn.Identity())
model.load_state_dict(load_file(f"{folder}/model.safetensors"))
images = [Image.open(io.BytesIO(base64.b64decode(row[0]))) for row in rows]
batch = AutoImageProcessor.from_pretrained(folder, backend="pil")(images, return_tensors="pt")
with torch.no_grad():
    vectors = torch.nn.functional.normalize(model.eval()(batch["pixel_values"]), dim=1)
cosines = vectors @ load_file(folder + "/prototypes.safetensors")["prototypes"].T
print(json.dumps(torch.cat([cosines, vectors], dim=1).tolist()))
"""
"""What a fresh process does to open a saved network of this kind."""


def _model(network: nn.Module, layer: str | None, source: UserModel, identities: Sequence[str]) -> Model:
    width = said(network, example_of(source)["pixel_values"], source).shape[1]
    if width < 2:
        raise ModelError(f"What {source.python} builds gives one number an image, and no vector.")
    module = Embedder(UserBackbone(network, layer, source.channels), POOLED, width, identities)
    # The network itself is the backbone, so that its weights have the names that they have in a classifier.
    return assembled(module, f"{BACKBONE}.network", source)
