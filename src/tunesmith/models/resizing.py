"""Image processors that only resize, for answers about places in an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tunesmith.errors import ModelError
from tunesmith.models.pixels import Reading, find_reading

KEPT = ("image_mean", "image_std", "rescale_factor", "resample", "do_rescale", "do_normalize")
"""What a processor for such answers takes over from one that knows none."""
BENT = 8.0
"""Levels, of 255, by which a resized ramp may differ from a ramp on average: what is cropped or padded is further away."""


def whole(
    processor: Any, channels: int, size: tuple[int, int] | None, needed: str, stand_in: Callable[..., Any]
) -> Any:
    """`processor`, or one that does the same, such that it only resizes: what is cropped away has no answer.

    Args:
        size: (height, width); as much as it made before when it is None.
        needed: the method that makes answers of the network's outputs.
        stand_in: the class of a processor that has it.

    Raises:
        ModelError: it does more than that.
    """
    height, width = size or find_reading(processor, channels).shape[1:]
    if not hasattr(processor, needed):
        before = find_reading(processor, channels)
        kept = {name: getattr(processor, name, None) for name in KEPT}
        processor = stand_in(**{name: value for name, value in kept.items() if value is not None})
        after = find_reading(processor, channels)
        if not (np.allclose(before.scale, after.scale) and np.allclose(before.shift, after.shift)):
            raise ModelError(
                "The model's image processor does something to the values that no processor for this task does.",
                "Use a checkpoint with another one, or edit its preprocessor_config.json.",
            )
    processor.size = {"height": height, "width": width}
    for name in ("do_center_crop", "do_reduce_labels", "do_pad", "keep_aspect_ratio"):
        if hasattr(processor, name):
            setattr(processor, name, False)
    reading = find_reading(processor, channels)
    if reading.shape != (channels, height, width) or _bend(reading) > BENT:
        raise ModelError(
            f"The image processor ({type(processor).__name__}) does more than to resize images to {width} × {height}.",
            "Use a checkpoint with another one, or edit its preprocessor_config.json.",
        )
    return processor


def _bend(reading: Reading) -> float:
    """By how many levels a ramp from left to right is none any more, on average, once it is processed."""
    ramp = np.tile(np.linspace(0, 255, 400), (200, 1)).astype(np.uint8)
    found = reading.values(Image.fromarray(ramp))[0].astype(np.float64)
    low, high = found.min(), found.max()
    across = (found - low) / max(high - low, 1e-9) * 255
    return float(np.abs(across - np.linspace(0, 255, found.shape[1])).mean())
