"""A network of the user's own: any torch module that turns pixels into logits, made by a function that the settings name.

Its last linear layer is set apart, so that it has a backbone and a head as other networks do; everything else works on
stages, which are found by execution. What is saved has the names that the user's own module gives its weights.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from tunesmith import seeds
from tunesmith.contracts import Loading, Model
from tunesmith.data.pixels import cost
from tunesmith.errors import ModelError
from tunesmith.models.blocks import find_blocks
from tunesmith.models.forward import evaluated
from tunesmith.models.heads import make_exact
from tunesmith.models.layout import laid_out
from tunesmith.models.load import PROBLEM_TYPES, set_labels
from tunesmith.models.load_images import insist_for_images
from tunesmith.models.pooling import OWN
from tunesmith.models.stages import find_stages
from tunesmith.run import path_of
from tunesmith.settings import UserModel, check

NOTES = "network.json"
"""Beside the saved weights: how the network is built, and which layer of it was made anew."""
WEIGHTS = "model.safetensors"
BACKBONE, HEAD = "backbone", "head"
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SAME = 1e-4
"""Share of the logits' size by which the network taken apart may differ from the network whole."""


class UserNetwork(nn.Module):
    """The user's network with its last linear layer apart."""

    def __init__(self, backbone: nn.Module, head: nn.Linear, layer: str, config: Any) -> None:
        """`backbone`: the network without the layer that it calls `layer`, of which `head` takes the place."""
        super().__init__()
        self.backbone, self.head = backbone, head
        self.layer, self.config = layer, config

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        """(rows, channels, height, width) to logits (rows, outputs)."""
        return ImageClassifierOutput(logits=self.head(self.backbone(pixel_values)))

    def as_built(self) -> dict[str, torch.Tensor]:
        """Weights and buffers under the names that they have in the user's own module."""
        kept = copies(self.backbone)
        return kept | {f"{self.layer}.{name}": one.detach().cpu() for name, one in self.head.state_dict().items()}


def load_user_network(
    source: UserModel,
    labels: Sequence[str],
    problem: str,
    *,
    seed: int,
    loading: Loading = Loading(),  # noqa: B008
) -> Model:
    """The network that `source` describes, in fp32, with a new head.

    Args:
        labels: class names; empty for regression.
        problem: "single-label", "multi-label" or "regression".
        seed: draws the head's first weights, and all of them where `loading` wants them fresh.

    Raises:
        ModelError: it cannot be built, its weights do not fit, or it does not end in a linear layer.
    """
    insist_for_images(str(source), loading)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "head"))
        network = built(source.python)
        if source.weights is not None and not loading.fresh:
            fill(network, source.weights, source)
        return _model(network, source, labels, problem)


def write(model: Model, folder: Path) -> None:
    """The weights, under the names that the user's own module gives them, and how that module is made."""
    module, source = model.module, model.source
    assert isinstance(module, UserNetwork)
    assert isinstance(source, UserModel)
    save_file(module.as_built(), folder / WEIGHTS, metadata={"format": "pt"})
    bias = module.head.bias is not None
    notes = {
        "python": source.python,
        "layer": module.layer,
        "width": module.head.in_features,
        "outputs": module.head.out_features,
        "bias": bias,
        "labels": [module.config.id2label[index] for index in sorted(module.config.id2label)],
        "problem": {value: key for key, value in PROBLEM_TYPES.items()}[module.config.problem_type],
        "source": source.model_dump(mode="json"),
    }
    (folder / NOTES).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


def reload_user_network(folder: Path) -> Model:
    """The model that `write` left in `folder`, in fp32 and eval mode.

    Raises:
        ModelError: its module cannot be built here, or the weights do not fit it.
    """
    notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    source = check(UserModel, notes["source"], str(folder / NOTES))
    network = built(source.python)
    network.set_submodule(notes["layer"], nn.Linear(notes["width"], notes["outputs"], bias=notes["bias"]))
    fill(network, str(folder / WEIGHTS), source)
    labels = [] if notes["problem"] == "regression" else notes["labels"]
    model = _model(network, source, labels, notes["problem"])
    model.module.eval()
    make_exact(model)
    return model


def loading_code(model: Model, folder: str) -> str:
    """The lines of Python, for the model card, that build the network and fill it; `logits` is what they end with."""
    module, source = model.module, model.source
    assert isinstance(module, UserNetwork)
    assert isinstance(source, UserModel)
    place, _, function = source.python.partition(":")
    head = f"{module.head.in_features}, {module.head.out_features}"
    head += "" if module.head.bias is not None else ", bias=False"
    grey = "" if source.channels != 1 else '.convert("L")'
    return (
        f"import torch\nfrom {place} import {function}\nfrom safetensors.torch import load_file\n"
        "from transformers import AutoImageProcessor\nfrom transformers.image_utils import load_image\n\n"
        f"network = {function}()\n"
        f'network.set_submodule("{module.layer}", torch.nn.Linear({head}))\n'
        f'network.load_state_dict(load_file("{folder}/{WEIGHTS}"))\n'
        f'processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil")\n'
        f'image = processor(load_image("your image.jpg"){grey}, return_tensors="pt")["pixel_values"]\n'
        "logits = network.eval()(image)[0].detach().numpy()\n"
    )


OPENS = "load_state_dict"
"""What opens it, where transformers has no class that does."""
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
model.set_submodule(notes["layer"], torch.nn.Linear(notes["width"], notes["outputs"], bias=notes["bias"]))
model.load_state_dict(load_file(f"{folder}/model.safetensors"))
images = [Image.open(io.BytesIO(base64.b64decode(row[0]))) for row in rows]
batch = AutoImageProcessor.from_pretrained(folder, backend="pil")(images, return_tensors="pt")
with torch.no_grad():
    print(json.dumps(model.eval()(batch["pixel_values"]).tolist()))
"""
"""What a fresh process does to open a saved network of this kind."""


def built(python: str) -> nn.Module:
    """What the function `python` ("package.module:function") returns, in fp32.

    Raises:
        ModelError: there is no such function, it wants arguments, or returns no module.
    """
    place, colon, function = python.partition(":")
    if not place or not colon or not function.isidentifier():
        raise ModelError(f"model.python is {python!r}.", 'Name module and function, as in "nets.house:build".')
    if os.getcwd() not in sys.path:  # a command, unlike `python -m`, does not look into the folder that it runs in
        sys.path.append(os.getcwd())
    try:
        make = getattr(importlib.import_module(place), function)
    except AttributeError:
        raise ModelError(f"model.python names {function!r}, which the module {place} does not have.") from None
    except Exception as error:  # whatever the user's own code raises
        raise ModelError(
            f"model.python names the module {place}, which cannot be imported: {type(error).__name__}: {error}.",
            "Run in the folder that holds it, or install it.",
        ) from error
    try:
        network = make()
    except Exception as error:  # the same
        raise ModelError(
            f"{python} cannot be called without arguments: {type(error).__name__}: {error}.",
            "Give a function that needs none.",
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(f"{python} returns a {type(network).__name__}, and no torch module.")
    return network.float()


def fill(network: nn.Module, where: str, source: UserModel) -> None:
    """Put the weights of the file `where` into `network`.

    Raises:
        ModelError: the file is none of weights, or of others.
    """
    path = path_of(where)
    try:
        if path.suffix == ".safetensors":
            tensors: Any = load_file(path)
        else:  # of a pickle nothing but tensors and plain containers is read
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"There is no file of weights {where}.") from None
    except pickle.UnpicklingError:
        raise ModelError(
            f"The weights {where} hold more than tensors, such as a whole module, and a pickle can run any code.",
            "Save network.state_dict().",
        ) from None
    except Exception as error:  # a file of another kind makes torch.load raise nearly anything
        raise ModelError(f"The weights {where} cannot be read as a state dict ({type(error).__name__}).") from None
    tensors = tensors.get("state_dict", tensors) if isinstance(tensors, Mapping) else tensors
    if not isinstance(tensors, Mapping) or not all(isinstance(one, torch.Tensor) for one in tensors.values()):
        raise ModelError(f"The weights {where} are no state dict.", "Save network.state_dict().")
    if tensors and all(name.startswith("module.") for name in tensors):  # as DataParallel names them
        tensors = {name.removeprefix("module."): one for name, one in tensors.items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        wanted = network.state_dict().keys()
        missing, other = sorted(wanted - tensors.keys()), sorted(tensors.keys() - wanted)
        told = [f"{len(missing)} of {len(wanted)} tensors are missing ({missing[0]} …)"] if missing else []
        told += [f"{len(other)} are not its own ({other[0]} …)"] if other else []
        first = next((line.strip() for line in str(error).splitlines()[1:] if line.strip()), str(error))
        raise ModelError(
            f"The weights {where} do not fit what {source.python} builds: {' and '.join(told) or first}."
        ) from None


def _model(network: nn.Module, source: UserModel, labels: Sequence[str], problem: str) -> Model:
    example = example_of(source)
    config: Any = transformers.PretrainedConfig()
    set_labels(config, labels, problem)
    config.num_channels = source.channels
    return assembled(_apart(network, example["pixel_values"], config, source), BACKBONE, source)


def assembled(module: nn.Module, backbone: str, source: UserModel) -> Model:
    """`module`, which holds the network that `source` describes under the name `backbone`, with its stages found."""
    example = example_of(source)
    laid_out(module)
    blocks = find_blocks(module, backbone, example)
    return Model(
        module=module,
        processor=processor_for(source),
        stages=find_stages(module, backbone, blocks, example),
        blocks=blocks,
        source=source,
        folder="",
        limit=cost(*example["pixel_values"].shape[2:]),
        backbone=backbone,
        example=example,
        modality="image",
        pooling=OWN,
        opens=OPENS,
        resized=True,  # PEFT knows no such base
    )


def copies(module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights and buffers by name, each in memory of its own, as files want it of a part that stands under two names, too."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}


def _apart(network: nn.Module, example: torch.Tensor, config: Any, source: UserModel) -> UserNetwork:
    """`network` with its last linear layer set apart; a new one where there are other outputs."""
    layer, ends = last_linear(network, example, source)
    if layer is None:
        raise ModelError(f"What {source.python} builds has no linear layer that could be its head.")
    if not ends:
        raise ModelError(
            f"What {source.python} builds does something after its last linear layer ({layer}).",
            "Let it end in that layer, so that what it gives are logits.",
        )
    head = network.get_submodule(layer)
    assert isinstance(head, nn.Linear)
    network.set_submodule(layer, nn.Identity())
    if head.out_features != config.num_labels:
        head = nn.Linear(head.in_features, config.num_labels, bias=head.bias is not None)
    return UserNetwork(network, head, layer, config)


def last_linear(network: nn.Module, example: torch.Tensor, source: UserModel) -> tuple[str | None, bool]:
    """The name of the linear layer that is called last, None where there is none, and whether the network ends in it."""
    called: list[str] = []
    handles = [
        child.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, child in network.named_modules()
        if isinstance(child, nn.Linear) and name
    ]
    try:
        whole = said(network, example, source)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        return None, False
    layer = network.get_submodule(called[-1])
    network.set_submodule(called[-1], nn.Identity())
    try:
        with torch.no_grad():
            parted = layer(said(network, example, source))
    except (ModelError, RuntimeError):  # what follows wants what this layer puts out
        return called[-1], False
    finally:
        network.set_submodule(called[-1], layer)
    same = parted.shape == whole.shape
    return called[-1], same and float((parted - whole).abs().max()) <= SAME * max(1.0, float(whole.abs().max()))


def said(network: nn.Module, example: torch.Tensor, source: UserModel) -> torch.Tensor:
    """What `network` makes of `example`, (rows, numbers).

    Raises:
        ModelError: it cannot read it, or gives something else.
    """
    try:
        with evaluated(network), torch.no_grad():
            found: Any = network(example)
    except Exception as error:  # whatever the user's own code raises
        shape = " × ".join(map(str, example.shape))
        raise ModelError(
            f"What {source.python} builds cannot read pixels of the shape {shape}: {type(error).__name__}: {error}",
            "Set model.size and model.channels to what it reads.",
        ) from error
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        told = (
            f"a tensor of {found.ndim} dimensions" if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
        )
        raise ModelError(f"What {source.python} builds gives {told}, and not numbers by row, (rows, outputs).")
    return found


def example_of(source: UserModel) -> dict[str, torch.Tensor]:
    """An image of noise, as the network takes it."""
    shape = (1, source.channels, *_size(source))
    return {"pixel_values": torch.randn(shape, generator=torch.Generator().manual_seed(0))}


def processor_for(source: UserModel) -> Any:
    """What makes of images what the network takes."""
    height, width = _size(source)
    return transformers.ViTImageProcessorPil(
        size={"height": height, "width": width},
        resample=2,  # bilinear
        image_mean=source.mean or (IMAGENET_MEAN if source.channels == 3 else [0.5]),
        image_std=source.std or (IMAGENET_STD if source.channels == 3 else [0.5]),
    )


def _size(source: UserModel) -> tuple[int, int]:
    return source.size if isinstance(source.size, tuple) else (source.size, source.size)
