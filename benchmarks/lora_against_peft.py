"""`lora` against PEFT's LoRA under transformers' Trainer: same weights, rows, rank, targets, epochs and batch; one run.

    python benchmarks/lora_against_peft.py DATA/banking77
    python benchmarks/lora_against_peft.py DATA/sst2 --last 1 --epochs 5 --contestants tunesmith:partial trainer:partial

Each contestant runs in a process of its own; `peak` is the process's largest memory in use while it trains. A second pair
freezes all but the last blocks: `partial` from the activation cache against the Trainer with the same layers frozen.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainer_setup import faster

BATCH, RANK, ALPHA = 64, 8, 16
RATES = {"lora": 1e-3, "partial": 4e-4}
CONTESTANTS = ["tunesmith:lora", "trainer:lora", "tunesmith:partial", "trainer:partial", "tunesmith:full"]


def run_trainer(data: Path, what: str, given: argparse.Namespace) -> dict[str, Any]:
    import datasets  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    import peft  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    from tunesmith.models.sources import locate  # noqa: PLC0415

    folder = locate("builtin:minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    files = {split: str(data / f"{split}.csv") for split in ("train", "test")}
    rows = datasets.load_dataset("csv", data_files=files).class_encode_column("label")
    rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True)
    labels = rows["train"].features["label"].num_classes
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)
    if what == "lora":
        targets = ["query", "key", "value", "dense"]
        config = peft.LoraConfig(
            task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, target_modules=targets, exclude_modules=".*pooler.*"
        )
        model = peft.get_peft_model(model, config)
    else:
        blocks = [f"encoder.layer.{number}." for number in range(model.config.num_hidden_layers - given.last)]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not (".embeddings." in name or any(block in name for block in blocks)))
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), num_train_epochs=given.epochs, per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64, learning_rate=RATES[what], seed=given.seed, save_strategy="no", report_to="none",
        disable_tqdm=True, use_cpu=True, train_sampling_strategy="group_by_length", **faster(),
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows["train"], processing_class=tokenizer,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {"accuracy": float((np.argmax(found[0], axis=1) == found[1]).mean())},
    )  # fmt: skip
    begun = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"train": trained, "accuracy": trainer.evaluate(rows["test"])["eval_accuracy"], "peak": peak}


def run_tunesmith(data: Path, what: str, given: argparse.Namespace) -> dict[str, Any]:
    import tunesmith  # noqa: PLC0415

    files = {split: str(data / f"{split}.csv") for split in ("train", "test")}
    own: dict[str, Any] = {"lora": {"merge": False, "rank": RANK, "alpha": ALPHA}, "partial": {"last": given.last}}.get(
        what, {}
    )
    train: dict[str, Any] = {"epochs": given.epochs, "batch_size": BATCH, "patience": given.epochs}
    if what in RATES:
        train["learning_rate"] = RATES[what]
    with tempfile.TemporaryDirectory() as folder:
        run = tunesmith.finetune(
            {"data": files, "method": {"name": what, **own}, "train": train, "seed": given.seed},
            run=Path(folder) / "run",
        )
        report = json.loads(run.report.read_text())
        adapter = run.model / "adapter_model.safetensors"
        share = adapter.stat().st_size / (4 * report["training"]["parameters_total"]) if adapter.exists() else None
    return {
        "train": report["training"]["seconds"],
        "accuracy": report["metrics"]["test"]["accuracy"]["value"],
        "peak": report["training"]["peak_memory_bytes"],
        "adapter": share,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--only")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--last", type=int, default=2, help="blocks that train")
    options.add_argument("--contestants", nargs="*", default=CONTESTANTS)
    given = options.parse_args()
    if given.only:
        kind, _, what = given.only.partition(":")
        print(json.dumps((run_trainer if kind == "trainer" else run_tunesmith)(given.data, what, given)))
        return
    print(
        f"{'contestant':22} {'accuracy':>9} {'train s':>9} {'peak GB':>8} {'adapter, share of the model':>28}",
        flush=True,
    )
    for name in given.contestants:
        command = [sys.executable, __file__, str(given.data), "--only", name, "--seed", str(given.seed)]
        command += ["--epochs", str(given.epochs), "--last", str(given.last)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        one = json.loads(done.stdout.strip().splitlines()[-1])
        adapter = f"{100 * one['adapter']:.1f} %" if one.get("adapter") else ""
        print(
            f"{name:22} {one['accuracy']:9.4f} {one['train']:9.1f} {one['peak'] / 1e9:8.2f} {adapter:>28}", flush=True
        )


if __name__ == "__main__":
    main()
