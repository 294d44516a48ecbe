"""What the Trainer is told alike in all benchmarks against it."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any


def schedule(given: argparse.Namespace) -> dict[str, Any]:
    """Arguments of TrainingArguments: batches and seed as ours, epochs and rate as side_by_side gives them; the epoch that is
    best on validation is kept."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "num_train_epochs": given.epochs,
        "per_device_train_batch_size": given.batch,
        "per_device_eval_batch_size": 64,
        "learning_rate": given.rate,
        "seed": given.seed,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }


def faster() -> dict[str, Any]:
    """What makes the best set-up of it: bf16 where it is native, and warm-up."""
    import torch  # noqa: PLC0415 - what is imported here is in the time of whole runs, of all contestants

    from tunesmith.models.precision import native_bf16  # noqa: PLC0415

    return {"bf16": native_bf16(torch.device("cpu")), "warmup_steps": 0.1}
