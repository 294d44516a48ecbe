"""What the last layer receives at some words of each text: what the linear probe of words is solved for on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tunesmith import seeds
from tunesmith.contracts import Array, Batched, Indices, Model
from tunesmith.data.tagged import UNKNOWN, Tagged
from tunesmith.models import heads
from tunesmith.models.forward import outputs
from tunesmith.models.part_probe import TARGET, drawn_of
from tunesmith.models.pooling import OWN


def drawn(model: Model, given: Batched, precision: str, seed: int) -> dict[str, Array]:
    """Features (words, width) at the first tokens of some words of each piece, and their tags (words,), which are known."""
    examples: Tagged = given.examples
    assert examples.taught is not None
    known = examples.taught
    most = min(drawn_of(len(examples)), int(examples.answers.max(initial=0)))
    caught: list[torch.Tensor] = []

    def take(_: Any, __: Any, indices: Indices) -> dict[str, torch.Tensor]:
        hidden = caught.pop().float()
        piece, _, place, word = examples.asked(indices)
        places = np.zeros((len(indices), most), dtype=np.int64)
        tags = np.full((len(indices), most), UNKNOWN, dtype=np.int64)
        for row, index in enumerate(indices.tolist()):
            own = np.flatnonzero(piece == row)
            if len(own) > most:
                start = seeds.generator(seed, "probe words", 0, index).integers(len(own) - most + 1)
                own = own[start : start + most]  # neighbours, as entities are
            places[row, : len(own)], tags[row, : len(own)] = place[own], known[word[own]]
        at = torch.from_numpy(places).to(hidden.device)
        found = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[2]))
        return {OWN: found, TARGET: torch.from_numpy(tags.astype(np.float32))}

    handle = heads.last_layer(model).register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    try:
        found = outputs(model.module, examples.lengths, given.collate, take, precision)
    finally:
        handle.remove()
    tags = found[TARGET].reshape(-1).astype(np.int64)
    asked = tags != UNKNOWN
    return {OWN: found[OWN].reshape(len(tags), -1)[asked], TARGET: tags[asked]}
