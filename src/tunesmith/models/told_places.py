"""A language model that gives logits only at the places that are asked for: the vocabulary is by far its widest layer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tunesmith.errors import ModelError

PLACES = "places"
"""The key of a batch: (asked,) places, counted through all rows with their padding; without it they are all asked."""
AT_ONCE = 512
"""Places whose logits, each as long as the vocabulary, are held in fp32 at once."""


class ToldLinear(nn.Linear):
    """The last layer."""

    places: torch.Tensor | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        """(…, width) to (…, vocabulary), or to (asked, vocabulary)."""
        if self.places is not None:
            input = input.flatten(0, -2)[self.places]  # noqa: A001
        return super().forward(input)


def a_few(*of_places: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Parts of tensors that hold one entry a place, all of the same places, few enough for fp32.

    They are split, not sliced: the gradient of each slice would be as large as the whole.
    """
    return zip(*(torch.split(one, AT_ONCE) for one in of_places), strict=True)


def tell_places(module: Any, source: str) -> None:
    """Let `module` take `places` in its batches; and keep no keys and values of a pass unless it is asked to.

    Raises:
        ModelError: its last layer is not linear.
    """
    last = module.get_output_embeddings()
    if type(last) is not nn.Linear:
        raise ModelError(
            f"The model {source} ({type(module).__name__}) does not end in a linear layer over its vocabulary."
        )
    last.__class__ = ToldLinear
    keeps = "use_cache" in inspect.signature(module.forward).parameters
    module.register_forward_pre_hook(_sparing if keeps else _telling, with_kwargs=True)


def _telling(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand the last layer its places."""
    module.get_output_embeddings().places = kwargs.pop(PLACES, None)
    return args, kwargs


def _sparing(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same, and no cache, by which transformers would also overlook that rows are packed."""
    _, kwargs = _telling(module, args, kwargs)
    return args, {"use_cache": False, **kwargs}
