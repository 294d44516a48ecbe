"""Tunesmith's `full` and `probe` against transformers' Trainer: same weights, same data, same machine, one run.

    python benchmarks/text_against_trainer.py ../shared/data/sst2 --seeds 3

Each contestant runs in a process of its own. The Trainer has two set-ups: *tutorial* (fp32, texts padded by the
tokenizer in blocks of a thousand, as tutorials do) and *best* (native bf16, dynamic padding, lengths grouped, warm-up).
Times: `train` is the Trainer's train() against Tunesmith's training with its head and its validations; `whole` is
everything from loading to test figures, for Tunesmith with its baselines, its check of the saved model and its report.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainer_setup import faster

EPOCHS, BATCH, RATE = 3, 32, 5e-5


def run_trainer(data: Path, setup: str, seed: int) -> dict[str, Any]:
    import datasets  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    from tunesmith.models.sources import locate  # noqa: PLC0415

    started = time.perf_counter()
    folder = locate("builtin:minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    files = {split: str(data / f"{split}.csv") for split in ("train", "validation", "test")}
    rows = datasets.load_dataset("csv", data_files=files).class_encode_column("label")
    best = setup == "best"

    def tokenize(batch: dict[str, Any]) -> Any:
        return tokenizer(batch["text"], truncation=True, padding=not best)

    rows = rows.map(tokenize, batched=True)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=rows["train"].features["label"].num_classes
    )
    more: dict[str, Any] = {**faster(), "train_sampling_strategy": "group_by_length"} if best else {}
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64,
        learning_rate=RATE,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **more,
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        processing_class=tokenizer,
        data_collator=transformers.DataCollatorWithPadding(tokenizer) if best else None,
        compute_metrics=lambda found: {"accuracy": float((np.argmax(found[0], axis=1) == found[1]).mean())},
    )
    begun = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - begun
    accuracy = trainer.evaluate(rows["test"])["eval_accuracy"]
    return {"train": trained, "whole": time.perf_counter() - started, "accuracy": accuracy}


def run_tunesmith(data: Path, method: str, seed: int) -> dict[str, Any]:
    import tunesmith  # noqa: PLC0415

    started = time.perf_counter()
    files = {split: str(data / f"{split}.csv") for split in ("train", "validation", "test")}
    with tempfile.TemporaryDirectory() as folder:
        run = tunesmith.finetune({"data": files, "method": method, "seed": seed}, run=Path(folder) / "run")
        report = json.loads(run.report.read_text())
    return {
        "train": report["training"]["seconds"],
        "whole": time.perf_counter() - started,
        "accuracy": report["metrics"]["test"]["accuracy"]["value"],
        "peak_bytes": report["training"]["peak_memory_bytes"],
    }


def contest(data: Path, name: str, seed: int) -> dict[str, Any]:
    """One contestant in a fresh process."""
    command = [sys.executable, __file__, str(data), "--only", name, "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--only")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    if given.only:
        kind, _, what = given.only.partition(":")
        print(json.dumps((run_trainer if kind == "trainer" else run_tunesmith)(given.data, what, given.seed)))
        return
    plan = [("tunesmith:probe", 1), ("tunesmith:full", given.seeds), ("trainer:best", 1), ("trainer:tutorial", 1)]
    print(f"{'contestant':20} {'accuracy':>9} {'train s':>9} {'whole s':>9}", flush=True)
    for name, seeds in plan:
        found = [contest(given.data, name, seed) for seed in range(seeds)]
        mean = {key: statistics.mean(one[key] for one in found) for key in found[0]}
        print(f"{name:20} {mean['accuracy']:9.4f} {mean['train']:9.1f} {mean['whole']:9.1f}", flush=True)
        for one in found if seeds > 1 else []:
            print(f"{'':20} {one['accuracy']:9.4f} {one['train']:9.1f} {one['whole']:9.1f}", flush=True)


if __name__ == "__main__":
    main()
