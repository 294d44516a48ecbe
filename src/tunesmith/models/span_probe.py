"""What the last layer receives at some tokens of each passage: what the linear probe of answers is solved for on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tunesmith import seeds
from tunesmith.contracts import Array, Batched, Indices, Model
from tunesmith.data.passages import Passages
from tunesmith.models import heads
from tunesmith.models.forward import outputs
from tunesmith.models.part_probe import TARGET, drawn_of
from tunesmith.models.pooling import OWN


def drawn(model: Model, given: Batched, precision: str, seed: int) -> dict[str, Array]:
    """Features (tokens, width) of some tokens of each piece, where its answer starts and ends among them, and whether it
    does, (tokens, 2) of 0 and 1."""
    examples: Passages = given.examples
    assert examples.answer is not None
    truth, count = examples.answer, drawn_of(len(examples))
    caught: list[torch.Tensor] = []

    def take(_: Any, __: Any, indices: Indices) -> dict[str, torch.Tensor]:
        hidden = caught.pop().float()
        usable = examples.spans_at(indices)[..., 0] >= 0
        usable[:, 0] = True
        places = np.zeros((len(indices), count), dtype=np.int64)
        for row, index in enumerate(indices.tolist()):
            random = seeds.generator(seed, "probe tokens", 0, index)
            places[row] = random.choice(np.flatnonzero(usable[row]), count)
        places[:, :2] = truth[indices]
        at = torch.from_numpy(places).to(hidden.device)
        found = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[2]))
        ends = (places[..., None] == truth[indices][:, None]).astype(np.float32)
        return {OWN: found, TARGET: torch.from_numpy(ends)}

    handle = heads.last_layer(model).register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    try:
        found = outputs(model.module, examples.lengths, given.collate, take, precision)
    finally:
        handle.remove()
    return {OWN: found[OWN].reshape(-1, found[OWN].shape[2]), TARGET: found[TARGET].reshape(-1, 2)}
