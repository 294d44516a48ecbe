"""Letting a language model write: what follows prompts, as likely as may be, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from tunesmith.contracts import Model
from tunesmith.data import batches
from tunesmith.models.forward import INFERENCE_TOKENS, device_of, evaluated, precision

NONE = -1
"""Stands where no token was written."""


def follow(
    model: Model, prompts: Sequence[npt.NDArray[np.int32]], most: int, precision_name: str
) -> npt.NDArray[np.int64]:
    """(prompts, `most`) the tokens that the network writes after each, the likeliest at each step; `NONE` from where the text
    ends. What ends it is not among them.

    Args:
        prompts: tokens, none of them empty; of those that leave no room for `most` more, the end is read.
        most: tokens to be written, at most.
    """
    network: Any = model.module
    device, pad = device_of(network), model.processor.pad_token_id
    room = max(1, model.limit - most)
    given = [prompt[-room:] for prompt in prompts]
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
        for indices in batches.in_length_order(lengths + most, INFERENCE_TOKENS):
            longest = int(lengths[indices].max())
            ids = np.full((len(indices), longest), pad, dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, index in enumerate(indices):
                ids[row, longest - lengths[index] :] = given[index]
                mask[row, longest - lengths[index] :] = 1
            batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            written = network.generate(**{key: value.to(device) for key, value in batch.items()}, generation_config=how)
            new = written[:, longest:].cpu().numpy()
            over = np.logical_or.accumulate(np.isin(new, [one for one in ends if one is not None]), axis=1)
            found[indices, : new.shape[1]] = np.where(over, NONE, new)
    return found
