"""Letting a network write, in batches: what follows prompts, or what is to be made of sources."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from tunesmith.contracts import Array, Model
from tunesmith.data import batches
from tunesmith.data.tokens import Tokens
from tunesmith.models import prompts as prompts_
from tunesmith.models.forward import INFERENCE_TOKENS, device_of, evaluated, precision

WRITING_TOKENS = 16_384
"""Tokens of both sides, times beams, that are in hand at once: each step of writing is a small product for each of them."""
NONE = -1
"""Stands where no token was written."""


def follow(
    model: Model, prompts: Sequence[npt.NDArray[np.int32]], most: int, precision_name: str
) -> npt.NDArray[np.int64]:
    """(prompts, `most`) the tokens that the network writes after each, the likeliest at each step; `NONE` from where the text
    ends. What ends it is not among them.

    Args:
        prompts: tokens, none of them empty; of those longer than `room_for` them, the end is read, after the first mark.
        most: tokens to be written, at most.
    """
    network: Any = model.module
    device, pad = device_of(network), model.processor.pad_token_id
    room, bos = room_for(most, model.limit), model.processor.bos_token_id
    given = [_end(prompt, room, bos) for prompt in prompts]
    lengths = np.array([len(prompt) for prompt in given], dtype=np.int64)
    found = np.full((len(given), most), NONE, dtype=np.int64)
    own = network.generation_config
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    how = transformers.GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=pad,
        bos_token_id=own.bos_token_id,
        eos_token_id=[one for one in ends if one is not None] or None,
    )
    with evaluated(network), torch.inference_mode(), precision(device, precision_name):
        for indices in _together(model, lengths, most):
            longest = int(lengths[indices].max())
            ids = np.full((len(indices), longest), pad, dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, index in enumerate(indices):
                ids[row, longest - lengths[index] :] = given[index]
                mask[row, longest - lengths[index] :] = 1
            new = _written(network, ids, mask, how)[:, longest:]
            found[indices, : new.shape[1]] = new
    return found


def _together(model: Model, lengths: npt.NDArray[np.int64], most: int) -> Iterator[npt.NDArray[np.int64]]:
    """Which prompts are gone on with at once: of one length where virtual tokens stand before, as padding would stand
    between, and in some networks what is seen hangs on how far off it is."""
    for indices in batches.in_length_order(lengths + most, INFERENCE_TOKENS):
        if prompts_.of(model) is None:
            yield indices
        else:
            for length in np.unique(lengths[indices]):
                yield indices[lengths[indices] == length]


def room_for(most: int, limit: int) -> int:
    """Tokens of a prompt that are read, at most, where `most` are to be written after it within `limit`."""
    return max(1, limit - most)


def _end(prompt: npt.NDArray[np.int32], room: int, bos: int | None) -> npt.NDArray[np.int32]:
    """The last `room` tokens of a prompt, of which the first stays the one that begins every text."""
    if len(prompt) <= room:
        return prompt
    kept = prompt[-room:]
    return np.concatenate([prompt[:1], kept[1:]]) if prompt[0] == bos and room > 1 else kept


def render(model: Model, sources: Tokens, rows: Array, precision_name: str, *, quick: bool = False) -> Array:
    """(rows, max_new_tokens) what a network of two halves writes of the sources `rows`, as its generation_config says; `NONE`
    from where the text ends.

    Args:
        quick: the likeliest token at each step, whatever the configuration says of beams.
    """
    network: Any = model.module
    how = copy.deepcopy(network.generation_config)
    if quick:
        # Not None: what is None is taken from the network's own configuration, which is of beams.
        how.update(num_beams=1, early_stopping=False, length_penalty=1.0)
    found = np.full((len(rows), how.max_new_tokens), NONE, dtype=np.int64)
    costs = (sources.lengths[rows] + how.max_new_tokens) * (how.num_beams or 1)
    with evaluated(network), torch.inference_mode(), precision(device_of(network), precision_name):
        for indices in batches.in_length_order(costs, WRITING_TOKENS):
            ids, mask, _ = sources.padded(rows[indices], model.processor.pad_token_id)
            new = _written(network, ids, mask, how)[:, 1:]
            found[indices, : new.shape[1]] = new
    return found


def _written(network: Any, ids: Array, mask: Array, how: transformers.GenerationConfig) -> Array:
    """(rows, tokens) what `network` makes of a batch, what it is given before it writes included; `NONE` from where a text
    ends that is written."""
    device = device_of(network)
    batch = {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
    found = network.generate(**batch, generation_config=how).cpu().numpy()
    given = 1 if network.config.is_encoder_decoder else ids.shape[1]
    ends = how.eos_token_id if isinstance(how.eos_token_id, list) else [how.eos_token_id]
    over = np.isin(found, [one for one in ends if one is not None])
    over[:, :given] = False
    return np.where(np.logical_or.accumulate(over, axis=1), NONE, found)
