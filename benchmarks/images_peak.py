"""Images a second of a training step, and what share of the machine's bf16 matrix products that is.

    python benchmarks/images_peak.py DATA/magnetic-tile --model WEIGHTS/mobilenet-v2-1.0-224

The peak is that of products of two square matrices in bf16, the best of several sizes. What a step takes is three times the
operations of a forward pass (there, back for the activations, back for the weights), as torch counts them. Steps are those of
`tunesmith plan`: timed on real batches before training, all weights training; the data are read and decoded already.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tunesmith import prepare, settings
from tunesmith.models.forward import evaluated
from tunesmith.train import memory, trial

SIZES = (1024, 2048, 3072)
TIMES = 8


def peak() -> float:
    """Operations a second of matrix products in bf16."""
    best = 0.0
    for size in SIZES:
        one, other = (torch.randn(size, size, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(TIMES):
            begun = time.perf_counter()
            one @ other
            best = max(best, 2 * size**3 / (time.perf_counter() - begun))
    return best


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--batch", type=int, default=16)
    given = options.parse_args()
    memory.tune()
    wanted = settings.parse(
        {
            "task": "image-classification",
            "model": str(given.model),
            "data": {"train": str(given.data / "splits.csv"), "split_column": "split"},
            "method": "full",
            "train": {"batch_size": given.batch},
        }
    )
    with tempfile.TemporaryDirectory() as name:
        ready = prepare.prepare(wanted, Path(name), torch.device("cpu"), lambda _: None)
        job = prepare.job(ready, ready.model, ready.frontier.candidates[0], Path(name) / "checkpoints")
        counter = FlopCounterMode(display=False)
        with evaluated(ready.model.module), torch.no_grad(), counter:
            ready.model.module(**ready.model.example)
        operations = 3 * counter.get_total_flops() / len(ready.model.example["pixel_values"])
        seconds = trial.predict(job, seconds=10.0).stepping / ready.frontier.candidates[0].epochs / ready.train.rows
    most = peak()
    print(f"peak of bf16 products: {most / 1e12:.2f} TFLOP/s")
    print(f"operations of a step: {operations / 1e9:.2f} GFLOP an image")
    print(f"training: {1 / seconds:.1f} images a second, {operations / seconds / most:.1%} of the peak")


if __name__ == "__main__":
    main()
