"""A pre-trained backbone that gives each image a vector, and a prototype for each identity that it is taught.

The vector is what transformers' AutoModel gives: its pooled output where that is trained, otherwise the class token, or the
mean over places. So the saved backbone alone is the model; prototypes lie beside it. Of a network that reads text too, such
as CLIP, the backbone is the vision tower.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from tunesmith import seeds
from tunesmith.contracts import Array, Loading, Model
from tunesmith.errors import ModelError
from tunesmith.models import sources
from tunesmith.models.heads import Cosine
from tunesmith.models.image_size import fitted, set_size
from tunesmith.models.load import attention, clear_errors, quiet, set_labels
from tunesmith.models.load_images import channels_of, insist_for_images, processor_of, taken_apart
from tunesmith.models.pixels import find_reading

KIND = transformers.AutoModel
BACKBONE = "backbone"
POOLED, FIRST, TOKENS, MEAN = "pooled", "first", "tokens", "mean"
"""The last two are means: over (rows, places, width), and over (rows, width, height, width)."""
CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
"""What transformers calls the vector that is put before the places of an image; few networks have none and no pooler."""
PROTOTYPES = "prototypes.safetensors"
"""In the folder of a saved model: a vector of length 1 for each identity that it was taught, in the order of its labels; and,
as metadata, how similar an image must be to the nearest to count as one of them."""
KNOWN = "known_above"
POOLER = "pooler."
SAME = 1e-4
"""By which vectors of one image may differ from pass to pass, as a share of their largest number."""


class Embedder(nn.Module):
    """A backbone, how its output becomes a vector, and prototypes."""

    base_model_prefix = BACKBONE  # PEFT asks for it, as of transformers' own

    def __init__(self, backbone: Any, how: str, width: int, identities: Sequence[str]) -> None:
        super().__init__()
        self.backbone = backbone
        self.how = how
        self.known: float | None = None
        """The similarity to the nearest prototype above which an image counts as of its identity, where it is set."""
        self.head = Cosine(width, len(identities), bias=False)
        self.config = copy.copy(backbone.config)
        set_labels(self.config, identities, "single-label")

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """`logits`: (rows, identities + width), the cosines to the prototypes and the vector, which is of length 1."""
        return SimpleNamespace(logits=self.head(vector_of(self.backbone(pixel_values=pixel_values), self.how)))


def vector_of(output: Any, how: str) -> torch.Tensor:
    """(rows, width), not yet of length 1, from what a backbone puts out."""
    if how == POOLED:
        return output.pooler_output.flatten(1)  # type: ignore[no-any-return]
    hidden = output.last_hidden_state
    if how == FIRST:
        return hidden[:, 0]  # type: ignore[no-any-return]
    if how == TOKENS:
        return hidden.mean(dim=1)  # type: ignore[no-any-return]
    return hidden.flatten(2).mean(dim=2)  # type: ignore[no-any-return]


def load_embedder(
    source: str,
    identities: Sequence[str],
    *,
    seed: int,
    loading: Loading = Loading(),  # noqa: B008 - frozen
    remote_code: bool = False,
    side: int | None = None,
) -> Model:
    """The bare network of the model's architecture, in fp32, with a new prototype for each of `identities`.

    Args:
        source: folder or Hub id.
        seed: draws the new weights.
        loading: new weights throughout, perhaps.
        side: pixels of the square images that it is to read; as many as its processor says when it is None.

    Raises:
        ModelError: nothing usable there, a model that reads no images, or draws something at random as it does, or weights
            that do not fit the architecture.
    """
    insist_for_images(source, loading)
    folder = sources.locate(source)
    with quiet(), clear_errors(source):
        config = _of_images(transformers.AutoConfig.from_pretrained(folder, trust_remote_code=remote_code), source)
        processor = processor_of(folder, remote_code)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(seed, "head"))
            backbone, pooler = _backbone(folder, config, source, loading, remote_code)
            if side is not None:
                set_size(processor, side, channels_of(config))
                backbone = fitted(backbone, (side, side), channels_of(config))
            how, width = _how(backbone, processor, pooled=pooler, source=source)
            module = Embedder(backbone, how, width, identities)
        model = taken_apart(module, processor, source, remote_code, KIND, backbone=BACKBONE)
    # Its files hold no prototypes, nor does what PEFT keeps beside them.
    return dataclasses.replace(model, folder=folder, resized=True)


def reload_embedder(folder: Path, *, remote_code: bool = False) -> Model:
    """The network that `write` wrote to `folder`, in fp32 and eval mode.

    Raises:
        ModelError: the folder does not hold such a network.
    """
    where = str(folder)
    with quiet(), clear_errors(where):
        backbone = KIND.from_pretrained(
            where,
            attn_implementation=attention(),
            use_safetensors=True,
            dtype=torch.float32,
            trust_remote_code=remote_code,
        )
        config = backbone.config
        prototypes = load_file(folder / PROTOTYPES)["prototypes"]
        names = [config.id2label[index] for index in range(len(prototypes))]
        module = Embedder(backbone, config.embedding, prototypes.shape[1], names)
        module.head.load_state_dict({"weight": prototypes})
        module.known = known_of(folder)
        processor = processor_of(where, remote_code)
        model = taken_apart(module.float(), processor, where, remote_code, KIND, backbone=BACKBONE)
    model.module.eval()
    return model


def write(model: Model, folder: Path) -> None:
    """The backbone as AutoModel opens it, with the names of identities, and the prototypes beside it."""
    module = model.module
    assert isinstance(module, Embedder)
    config = module.backbone.config
    config.num_labels, config.id2label, config.label2id = (
        module.config.num_labels, module.config.id2label, module.config.label2id,
    )  # fmt: skip
    config.embedding = module.how
    module.backbone.save_pretrained(folder)
    save_prototypes(model, folder)


def save_prototypes(model: Model, folder: Path) -> None:
    """What `model` was taught, and how similar an image must be to count as one of that."""
    module = model.module
    assert isinstance(module, Embedder)
    noted = {} if module.known is None else {KNOWN: repr(module.known)}
    save_file({"prototypes": torch.from_numpy(prototypes_of(model))}, folder / PROTOTYPES, noted)


def known_of(folder: Path) -> float | None:
    """How similar an image must be to the nearest prototype in `folder` to count as of its identity; None where that is not
    set."""
    with safe_open(folder / PROTOTYPES, framework="pt") as file:
        known = (file.metadata() or {}).get(KNOWN)
    return None if known is None else float(known)


def prototypes_of(model: Model) -> Array:
    """(identities, width), fp32, of length 1."""
    module = model.module
    assert isinstance(module, Embedder)
    return np.asarray(functional.normalize(module.head.weight.detach().float(), dim=1).cpu())


OPEN = """
import base64, io, json, sys, torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel
folder, trusted, rows = sys.argv[1], bool(sys.argv[2]), json.load(sys.stdin)
model = AutoModel.from_pretrained(folder, trust_remote_code=trusted).eval()
images = [Image.open(io.BytesIO(base64.b64decode(row[0]))) for row in rows]
batch = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=trusted)(images, return_tensors="pt")
with torch.no_grad():
    output, how = model(**batch), model.config.embedding
pooled, hidden = how == "pooled" and output.pooler_output.flatten(1), output.last_hidden_state
means = hidden.mean(dim=1) if how == "tokens" else hidden.flatten(2).mean(dim=2)
vectors = pooled if how == "pooled" else hidden[:, 0] if how == "first" else means
vectors = torch.nn.functional.normalize(vectors, dim=1)
cosines = vectors @ load_file(folder + "/prototypes.safetensors")["prototypes"].T
print(json.dumps(torch.cat([cosines, vectors], dim=1).tolist()))
"""
"""Opens a saved model without Tunesmith."""


def loading_code(model: Model, folder: str) -> str:
    """The lines of Python, for the model card, that compare two images with the saved network."""
    module = model.module
    assert isinstance(module, Embedder)
    trusted = ", trust_remote_code=True" if model.remote_code else ""
    taken = {
        POOLED: "output.pooler_output.flatten(1)",
        FIRST: "output.last_hidden_state[:, 0]",
        TOKENS: "output.last_hidden_state.mean(dim=1)",
        MEAN: "output.last_hidden_state.flatten(2).mean(dim=2)",
    }[module.how]
    return (
        "from torch.nn.functional import cosine_similarity\n"
        "from transformers import AutoImageProcessor, AutoModel\n"
        "from transformers.image_utils import load_image\n\n"
        f'model = AutoModel.from_pretrained("{folder}"{trusted}).eval()\n'
        f'processor = AutoImageProcessor.from_pretrained("{folder}", backend="pil"{trusted})\n'
        'images = [load_image("one.jpg"), load_image("other.jpg")]\n'
        'output = model(**processor(images, return_tensors="pt"))\n'
        f"one, other = {taken}\n"
        "print(cosine_similarity(one, other, dim=0).item())"
    )


def _of_images(config: Any, source: str) -> Any:
    """The configuration of what reads images alone, and all that they show: of CLIP and its kind the vision tower's.

    Raises:
        ModelError: transformers opens no such tower by itself.
    """
    if "mask_ratio" in config.to_dict():
        config.mask_ratio = (
            0.0  # of masked autoencoders, which otherwise read a quarter of the image, another at each pass
        )
    if "vision_config" not in config.sub_configs:
        return config
    if type(config.vision_config) not in transformers.MODEL_MAPPING:
        raise ModelError(
            f"The model {source} ({config.model_type}) reads more than images, and transformers' AutoModel does not open its "
            f"vision tower ({config.vision_config.model_type}) by itself.",
            "Give a checkpoint that reads images alone, or a CLIP or SigLIP (--model).",
        )
    return config.vision_config


def _backbone(folder: str, config: Any, source: str, loading: Loading, remote_code: bool) -> tuple[Any, bool]:
    """The bare network, and whether its pooler, where it has one with weights, is trained.

    Raises:
        ModelError: other weights are missing.
    """
    more = {"attn_implementation": attention(), "trust_remote_code": remote_code}
    if loading.fresh:
        return KIND.from_config(config, **more).float(), True
    module, info = KIND.from_pretrained(
        folder, config=config, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **more
    )
    missing = sorted(name for name in info["missing_keys"] if not name.endswith("num_batches_tracked"))
    if absent := [name for name in missing if not name.startswith(POOLER)]:
        raise ModelError(
            f"The weights of {source} do not fit {type(module).__name__}: {len(absent)} tensors are missing ({absent[0]} …).",
            "Check that config.json and the weights belong together.",
        )
    return module.float(), not missing


def _how(backbone: Any, processor: Any, *, pooled: bool, source: str) -> tuple[str, int]:
    """How the output of `backbone` becomes a vector, and how wide that is.

    Raises:
        ModelError: it gives none from pixels alone, or another one at each pass.
    """
    shape = find_reading(processor, channels_of(backbone.config)).shape
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            outputs = [backbone.eval()(pixel_values=image) for _ in range(2)]
    except TypeError as error:
        raise ModelError(f"The model {source} wants more than pixels: {error}.", "Give another (--model).") from error
    hidden = getattr(outputs[0], "last_hidden_state", None)
    if pooled and getattr(outputs[0], "pooler_output", None) is not None:
        how = POOLED
    elif hidden is None:
        raise ModelError(
            f"The model {source} gives neither a vector nor places of an image.", "Give another (--model)."
        )
    elif hidden.ndim == 3:
        names = {name.rpartition(".")[2] for name, _ in backbone.named_parameters()}
        how = TOKENS if names.isdisjoint(CLASS_TOKENS) else FIRST
    else:
        how = MEAN
    if not pooled and hasattr(backbone, "pooler"):
        backbone.pooler = None
    first, second = (vector_of(output, how) for output in outputs)
    if first.shape != second.shape or float((first - second).abs().max()) > SAME * float(first.abs().max()):
        raise ModelError(
            f"The model {source} draws something at random as it reads: the same image gives another vector at each pass.",
            "Give another (--model).",
        )
    return how, int(first.shape[1])
