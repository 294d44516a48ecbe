"""Another size of images than a network was pre-trained on: its processor told, its position embeddings interpolated."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn import functional

from tunesmith.errors import ModelError
from tunesmith.models.pixels import find_reading

POSITIONS = "position_embeddings"


def set_size(processor: Any, side: int, channels: int) -> None:
    """Let `processor` make square images of `side` pixels, cropped as much of the image as before.

    Raises:
        ModelError: it does not.
    """
    size = processor.size or {}
    crop = getattr(processor, "crop_size", None)
    if getattr(processor, "do_center_crop", False) and crop:
        before = crop["height"]
        processor.crop_size = {"height": side, "width": side}
        processor.size = {key: round(value * side / before) for key, value in dict(size).items() if value}
    elif {"height", "width"} <= {key for key, value in dict(size).items() if value}:
        processor.size = {"height": side, "width": side}
    else:
        processor.size = {"shortest_edge": side}
    if find_reading(processor, channels).shape != (channels, side, side):
        raise ModelError(
            f"The image processor ({type(processor).__name__}) does not make square images of {side} pixels.",
            "Leave task.image_size away.",
        )


def fitted(module: Any, size: tuple[int, int], channels: int) -> Any:
    """`module` for images of `size`, (height, width): as it is where it takes them, otherwise with interpolated position
    embeddings, for which they must be square.

    Raises:
        ModelError: it takes images of its own size only, and not because of position embeddings.
    """
    if _takes(module, size, channels):
        return module
    config, (side, other) = copy.deepcopy(module.config), size
    if not hasattr(config, "image_size") or side != other:
        raise ModelError(
            f"{type(module).__name__} takes no images of {_told(size)} pixels.", "Set task.image_size to another."
        )
    config.image_size = side
    again = type(module)(config).to(next(module.parameters()))
    known, wanted = module.state_dict(), again.state_dict()
    for name, tensor in wanted.items():
        if known[name].shape == tensor.shape:
            tensor.copy_(known[name])
        elif name.endswith(POSITIONS) and tensor.ndim == 3:
            tensor.copy_(interpolated(known[name], tensor.shape[1]))
        elif known[name].is_floating_point():
            raise ModelError(
                f"{type(module).__name__} is made for images of one size: {name} cannot be interpolated.",
                "Leave task.image_size away.",
            )
    if not _takes(again, size, channels):
        raise ModelError(
            f"{type(module).__name__} takes no images of {_told(size)} pixels.",
            "Set task.image_size to a multiple of the patches' size.",
        )
    return again


def interpolated(positions: torch.Tensor, count: int) -> torch.Tensor:
    """Position embeddings of another number of patches, bicubic over the grid (Dosovitskiy et al. 2021, section 3.2).

    Args:
        positions: (1, tokens, width), those that stand for no patch first; the patches make a square.
        count: tokens that there are to be, as many of them for no patch.

    Raises:
        ModelError: patches make no square.
    """
    extra = next((extra for extra in range(4) if _root(positions.shape[1] - extra) and _root(count - extra)), None)
    if extra is None:
        raise ModelError("The position embeddings of the network are no square grid.", "Leave task.image_size away.")
    old, new = _root(positions.shape[1] - extra), _root(count - extra)
    grid = positions[:, extra:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    found = functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :extra], found.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _root(count: int) -> int:
    """The square root of a square number, otherwise 0."""
    side = round(max(count, 0) ** 0.5)
    return side if side * side == count else 0


def _told(size: tuple[int, int]) -> str:
    height, width = size
    return str(width) if height == width else f"{width} × {height}"


def _takes(module: Any, size: tuple[int, int], channels: int) -> bool:
    try:
        with torch.no_grad():
            module.eval()(pixel_values=torch.zeros((1, channels, *size)))
    except (ValueError, RuntimeError):
        return False
    return True
