"""Several processes that train one model on parts of each step's rows; accelerate carries devices and start-up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import nn

from tunesmith.contracts import Indices
from tunesmith.data import batches

Value = TypeVar("Value")


def state() -> PartialState:
    """Rank, number of processes and device, as `torchrun` or `accelerate launch` set them; one process otherwise."""
    return PartialState(cpu=not torch.cuda.is_available())


def agree(value: Value) -> Value:
    """The first process's `value`, in every process; nobody goes on before the first process is here."""
    if state().num_processes == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def share(step: Indices) -> Indices:
    """This process's rows of a step; may be empty in a short last one."""
    return batches.share(step, state().process_index, state().num_processes)


def sum_over(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` over all processes, in each of them."""
    if state().num_processes > 1:
        torch.distributed.all_reduce(values)
    return values


def largest(value: int) -> int:
    """The largest `value` of all processes, in each of them."""
    if state().num_processes == 1:
        return value
    held = torch.tensor(value, device=state().device)
    torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MAX)
    return int(held)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in one message. Each process divided by the global count before."""
    if state().num_processes == 1:
        return
    trained = list(parameters)
    for parameter in trained:
        if parameter.grad is None:  # this process had no rows in the last, short step
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.reshape(-1) for parameter in trained])  # type: ignore[union-attr]
    torch.distributed.all_reduce(flat)
    parts = torch.split(flat, [parameter.numel() for parameter in trained])
    for parameter, part in zip(trained, parts, strict=True):
        parameter.grad.copy_(part.view_as(parameter))  # type: ignore[union-attr]  # whose layout is the parameter's


def broadcast(module: nn.Module) -> None:
    """Give every process the first one's weights, so that they start from the same bits."""
    if state().num_processes > 1:
        for tensor in [*module.parameters(), *module.buffers()]:
            sent = tensor.data.contiguous()  # weights of images lie otherwise in memory
            torch.distributed.broadcast(sent, src=0)
            tensor.data.copy_(sent)
