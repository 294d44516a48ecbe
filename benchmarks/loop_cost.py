"""What the loop costs over bare PyTorch steps, in time and in memory, on the same model and the same batches.

    python benchmarks/loop_cost.py

Time: blocks of steps of Tunesmith's loop and of a bare loop (forward, loss, backward, clip, AdamW) take turns, and the
ratio is that of the medians. Memory: weights and what the process's peak grows by in the first epoch with its head and its
validation, over weights + gradients + AdamW's two moments + the activations of the largest batch (the storages that
autograd keeps, counted once each).
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from tunesmith import prepare, settings
from tunesmith.data import batches
from tunesmith.models.forward import precision
from tunesmith.prepare import Prepared
from tunesmith.train import memory
from tunesmith.train.events import EpochDone, StepDone
from tunesmith.train.loop import train

STEPS = 8
"""Of one block."""


def rows(path: Path, count: int = 4000) -> None:
    """Short texts of two classes."""
    words = [f"{a}{b}" for a in ("lor", "ip", "do", "si", "am", "con") for b in ("em", "sum", "lor", "t", "et", "sec")]
    with open(path, "w", encoding="utf-8") as handle:
        handle.write("text,label\n")
        for number in range(count):
            chosen = (words[(number * 7 + place * 5) % len(words)] for place in range(6 + number % 17))
            handle.write(f"{' '.join(chosen)} {number},{'ab'[number % 2]}\n")


def activations(ready: Prepared, indices: Any) -> int:
    """Bytes that autograd keeps of one batch's forward pass, each storage once."""
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []
    weights = {parameter.untyped_storage().data_ptr() for parameter in ready.model.module.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # or its address would be given away again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with precision(torch.device("cpu"), ready.frontier.candidates[0].precision):
            output = ready.model.module(**ready.task.inputs(ready.train, indices, ready.model))
        ready.task.loss(output.logits.float(), ready.train, indices)
    return sum(kept.values())


class Bare:
    """The same steps without Tunesmith."""

    def __init__(self, ready: Prepared) -> None:
        self.ready, self.module = ready, ready.model.module
        self.adamw = torch.optim.AdamW(self.module.parameters(), lr=1e-5, fused=True)

    def step(self, indices: Any) -> None:
        ready = self.ready
        tokens = ready.frontier.candidates[0].batch.micro_batch_tokens
        for part in batches.micro_batches(indices, ready.train.lengths, tokens):
            with precision(torch.device("cpu"), ready.frontier.candidates[0].precision):
                output = self.module(**ready.task.inputs(ready.train, part, ready.model))
            assert ready.train.targets is not None
            targets = torch.from_numpy(ready.train.targets[ready.train.owner[part]])
            loss = torch.nn.functional.cross_entropy(output.logits.float(), targets, reduction="sum") / len(indices)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.adamw.step()
        self.adamw.zero_grad()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--blocks", type=int, default=5)
    given = options.parse_args()
    memory.tune()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows(folder / "rows.csv")
        wanted = settings.parse({"data": str(folder / "rows.csv"), "train": {"epochs": 10}})
        ready = prepare.prepare(wanted, folder / "cache", torch.device("cpu"), lambda _: None)
        plan = ready.frontier.candidates[0]
        job = dataclasses.replace(prepare.job(ready, ready.model, plan, folder / "checkpoints"), checkpoint_seconds=1e9)
        before = peak()
        events = train(job)
        next(event for event in events if isinstance(event, EpochDone))
        grown = peak() - before
        ours = (event for event in events if isinstance(event, StepDone))
        bare = Bare(ready)
        order = batches.steps(ready.train.lengths, ready.frontier.candidates[0].batch.rows, 0, 1)
        times: dict[str, list[float]] = {"loop": [], "bare": []}
        for block in range(given.blocks):
            again = order[block * STEPS : (block + 1) * STEPS]
            begun = time.perf_counter()
            list(islice(ours, STEPS))
            times["loop"].append((time.perf_counter() - begun) / STEPS)
            begun = time.perf_counter()
            for indices in again:
                bare.step(indices)
            times["bare"].append((time.perf_counter() - begun) / STEPS)
        weights = sum(parameter.nbytes for parameter in ready.model.module.parameters())
        largest = max(activations(ready, indices) for indices in order)
    loop, alone = (statistics.median(found) for found in times.values())
    print(f"a step          loop {1000 * loop:.1f} ms, bare {1000 * alone:.1f} ms, ratio {loop / alone:.3f}")
    used, needed = weights + grown, 4 * weights + largest
    print(f"memory          {used / 1e6:,.0f} MB used, {needed / 1e6:,.0f} MB needed, ratio {used / needed:.2f}")


if __name__ == "__main__":
    main()
