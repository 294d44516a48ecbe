"""What the last layer of a segmenter receives at some pixels of each image: what its linear probe is solved for on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tunesmith import seeds
from tunesmith.contracts import Batched, Indices, Model
from tunesmith.data.segments import Segments
from tunesmith.data.targets.masks import VOID
from tunesmith.models import heads
from tunesmith.models.forward import outputs
from tunesmith.models.part_probe import TARGET, drawn_of
from tunesmith.models.pooling import OWN


def drawn(model: Model, given: Batched, precision: str, seed: int) -> dict[str, npt.NDArray[Any]]:
    """What the last layer receives at some pixels of each image, (pixels, width), and their classes, (pixels,)."""
    examples: Segments = given.examples
    count = drawn_of(examples.rows)
    caught: list[torch.Tensor] = []

    def take(_: Any, __: Any, indices: Indices) -> dict[str, torch.Tensor]:
        maps = caught.pop().float()
        places, classes = _places(examples.truth(indices), tuple(maps.shape[2:]), count, seed, indices)
        at = torch.from_numpy(places).to(maps.device)
        found = maps.flatten(2).gather(2, at[:, None].expand(-1, maps.shape[1], -1))
        return {OWN: found.transpose(1, 2), TARGET: torch.from_numpy(classes.astype(np.float32))}

    handle = heads.last_layer(model).register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    try:
        found = outputs(model.module, examples.lengths, given.collate, take, precision)
    finally:
        handle.remove()
    classes = found[TARGET].reshape(-1).astype(np.int64)
    known = classes != VOID
    return {OWN: found[OWN].reshape(len(classes), -1)[known], TARGET: classes[known]}


def _places(
    masks: npt.NDArray[np.uint8], size: tuple[int, ...], count: int, seed: int, indices: Indices
) -> tuple[Indices, Indices]:
    """(images, count) each: pixels of a map of `size`, and what the masks say there; void where nothing is labelled."""
    down, across = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, masks.shape[1:], strict=True)
    )
    flat = masks[:, down][:, :, across].reshape(len(masks), -1)
    places = np.zeros((len(masks), count), dtype=np.int64)
    for row, (index, mask) in enumerate(zip(indices, flat, strict=True)):
        labelled = np.flatnonzero(mask != VOID)
        random = seeds.generator(seed, "probe pixels", 0, int(index))
        places[row] = random.choice(labelled if len(labelled) else len(mask), count)
    return places, np.take_along_axis(flat, places, axis=1).astype(np.int64)
