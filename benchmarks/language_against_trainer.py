"""Instruction tuning: Tunesmith against transformers' Trainer and trl's SFTTrainer; same weights, rows, epochs and rate.

    pip install --target TRL --no-deps trl
    PYTHONPATH=TRL python benchmarks/language_against_trainer.py DATA/alpaca-1k --model WEIGHTS/gpt2-books --seeds 1

DATA holds train, validation and test as .jsonl with instruction, input and output. Every contestant learns the same tokens
of the same rows (those that Tunesmith makes of them), in batches of as many rows, and is measured by one perplexity on
the test rows. Each runs in a process of its own, contestants in turns. `packed` packs rows into sequences of full length.
Tokens a second are those of the training rows, without padding, by the time of training with its validations.
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

from trainer_setup import faster, schedule

CONTESTANTS = ("tunesmith", "tunesmith-packed", "trainer", "sft", "sft-packed")


def settings_of(given: argparse.Namespace, *, packed: bool) -> dict[str, Any]:
    return {
        "task": {"name": "causal-lm", "problem": "instruction", "pack": packed, "written": 0},
        "model": str(given.model),
        "data": str(given.data),
        "method": "full",
        "train": {"epochs": given.epochs, "batch_size": given.batch, "learning_rate": given.rate},
        "seed": given.seed,
    }


def run_tunesmith(given: argparse.Namespace, *, packed: bool) -> dict[str, Any]:
    import tunesmith  # noqa: PLC0415

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        run = tunesmith.finetune(settings_of(given, packed=packed), run=Path(name) / "run")
        report = json.loads(run.report.read_text())
    return {
        "tokens": report["training"]["epochs"] * tokens_of(given) / report["training"]["seconds"],
        "train": report["training"]["seconds"],
        "whole": time.perf_counter() - started,
        "perplexity": report["metrics"]["test"]["perplexity"]["value"],
        "memory": report["training"]["peak_memory_bytes"],
    }


def rows_of(examples: Any) -> list[dict[str, list[int]]]:
    """The rows as lists of tokens and labels, -100 where nothing is learned."""
    rows = []
    for piece in range(len(examples)):
        span = slice(examples.offsets[piece], examples.offsets[piece + 1])
        ids, wanted = examples.ids[span].tolist(), examples.wanted[span].tolist()
        rows.append({"input_ids": ids, "labels": [-100, *(-100 if one < 0 else one for one in wanted[:-1])]})
    return rows


def tokens_of(given: argparse.Namespace) -> int:
    """Of all training rows."""
    import torch  # noqa: PLC0415

    from tunesmith import prepare, settings  # noqa: PLC0415

    wanted = settings.parse(settings_of(given, packed=False))
    ready = prepare.prepare(wanted, Path(tempfile.mkdtemp()), torch.device("cpu"), lambda _: None)
    return len(ready.train.ids)  # type: ignore[attr-defined]


def run_other(given: argparse.Namespace, kind: str) -> dict[str, Any]:
    import resource  # noqa: PLC0415

    import datasets  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    from tunesmith import prepare, settings  # noqa: PLC0415
    from tunesmith.models.forward import logits  # noqa: PLC0415

    started = time.perf_counter()
    ready = prepare.prepare(
        settings.parse(settings_of(given, packed=False)), Path(tempfile.mkdtemp()), torch.device("cpu"), lambda _: None
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    tokenizer = ready.model.processor
    shared = schedule(given) | faster() | {"per_device_eval_batch_size": 32}
    train: Any = ready.train
    rows = {"train": rows_of(train), "eval": rows_of(ready.validation)}
    if kind == "trainer":
        collator = transformers.DataCollatorForSeq2Seq(tokenizer, padding=True)
        arguments = transformers.TrainingArguments(**shared, train_sampling_strategy="group_by_length")
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=rows["train"], eval_dataset=rows["eval"], data_collator=collator
        )
    else:
        import trl  # noqa: PLC0415

        packed = kind == "sft-packed"
        if packed:  # as many rows a step as the others have
            mean = statistics.mean(len(row["input_ids"]) for row in rows["train"])
            shared["per_device_train_batch_size"] = max(1, round(given.batch * mean / ready.model.limit))
        data = {name: datasets.Dataset.from_list(one) for name, one in rows.items()}
        arguments = trl.SFTConfig(**shared, max_length=ready.model.limit, packing=packed, eval_packing=False)
        trainer = trl.SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=data["train"],
            eval_dataset=data["eval"],
            processing_class=tokenizer,
        )
    begun = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ready.model.module.load_state_dict(trainer.model.state_dict())
    test = ready.task.encode(ready.dataset.splits["test"], ready.model)
    scores = ready.task.score(test, logits(ready.task, ready.model, test, "bf16" if shared["bf16"] else "fp32"))
    return {
        "tokens": given.epochs * len(train.ids) / trained,
        "train": trained,
        "whole": time.perf_counter() - started,
        "perplexity": scores["perplexity"],
        "memory": peak,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--rate", type=float, default=5e-4)
    options.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=CONTESTANTS)
    options.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options.add_argument("--one", choices=CONTESTANTS, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        own = given.one.startswith("tunesmith")
        packed = given.one.endswith("packed")
        print(json.dumps(run_tunesmith(given, packed=packed) if own else run_other(given, given.one)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in given.contestants}
    for seed in range(given.seeds):
        for name in given.contestants:
            done = subprocess.run(
                [sys.executable, *sys.argv, "--one", name, "--seed", str(seed)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(
                    f"{name}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no message'}"
                )
            found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(name, seed, found[name][-1], file=sys.stderr, flush=True)
    print("| contestant | perplexity of each seed | mean | training | whole | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in found.items():
        each = ", ".join(f"{run['perplexity']:.1f}" for run in runs)
        mean = {key: statistics.mean(run[key] for run in runs) for key in ("perplexity", "train", "whole", "memory")}
        print(
            f"| {name} | {each} | {mean['perplexity']:.1f} | {mean['train']:.0f} s | {mean['whole']:.0f} s "
            f"| {mean['memory'] / 1e9:.2f} GB |"
        )


if __name__ == "__main__":
    main()
