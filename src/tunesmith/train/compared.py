"""A loss that compares the rows of a step, where the step takes several forward passes or processes.

Gradient caching (Gao et al. 2021, section 3): a first pass without gradients puts out all rows, the loss says where it wants
each of these outputs to go, and a second pass, part by part, carries that on into the network. The gradient is that of the
whole step, in the memory of one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from tunesmith.contracts import Indices
from tunesmith.models.forward import device_of
from tunesmith.train import processes
from tunesmith.train.passes import Passes


def pulls(passes: Passes, parts: Sequence[Indices], whole: Indices) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss of a step, and its gradient at what the network puts out for each part.

    Args:
        parts: of this process's rows, as the second pass takes them, with the same dropout.
        whole: the rows of the step, of all processes.

    Returns:
        The sum of the losses, in the first process (0 in others, so that they can be added up), and by part (rows, …).
    """
    module = passes.model.module
    with torch.no_grad(), _buffers_kept(module):
        found = [passes.outputs(part) for part in parts]
    width = processes.largest(found[0].shape[1] if found else 0)  # in a short last step a process may have no row
    table = torch.zeros((len(whole), width), device=device_of(module))
    places = [_places(part, whole) for part in parts]
    for place, output in zip(places, found, strict=True):
        table[place] = output.float()
    table = processes.sum_over(table).requires_grad_()
    loss = passes.objective.loss(table, passes.examples, whole).sum
    [gradient] = torch.autograd.grad(loss, table)
    own = loss.detach() if processes.state().is_main_process else torch.zeros_like(loss)
    return own, [gradient[place] for place in places]


def _places(part: Indices, whole: Indices) -> torch.Tensor:
    """Where in `whole` each row of `part` stands."""
    order = np.argsort(whole)
    return torch.from_numpy(order[np.searchsorted(whole, part, sorter=order)])


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Running statistics take what they see once, in the second pass."""
    kept = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, before in zip(module.buffers(), kept, strict=True):
            buffer.copy_(before)
