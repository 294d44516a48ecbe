"""A checksum over the weights of a backbone, so that what was computed with others is never taken for its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch

from tunesmith.contracts import Model


def checksum(model: Model, counts: Callable[[str], bool] = lambda _: True) -> str:
    """Over the names and values of the backbone's tensors whose full name `counts`.

    The same backbone has the same checksum under another head, and with adapters beside weights that do not count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.module.state_dict().items():
        if name.startswith(model.start) and counts(name):
            digest.update(name.removeprefix(model.start).replace(".base_layer.", ".").encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
