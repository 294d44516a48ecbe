"""Instruction tuning: Tunesmith's `full`, or what --method says, against transformers' Trainer and trl's SFTTrainer; same
weights, rows and rate.

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
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from trainer_setup import faster, schedule

CONTESTANTS = ("tunesmith", "tunesmith-packed", "trainer", "sft", "sft-packed")


def settings_of(given: argparse.Namespace, *, packed: bool) -> dict[str, Any]:
    return {
        "task": {"name": "causal-lm", "problem": "instruction", "pack": packed, "written": 0},
        "model": str(given.model),
        "data": str(given.data),
        "method": given.method,
        "train": {"epochs": given.epochs, "batch_size": given.batch, "learning_rate": given.rate},
        "seed": given.seed,
    }


def run_tunesmith(given: argparse.Namespace, *, packed: bool) -> dict[str, Any]:
    import transformers  # noqa: PLC0415

    import tunesmith  # noqa: PLC0415

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        run = tunesmith.finetune(settings_of(given, packed=packed), run=Path(name) / "run")
        report = json.loads(run.report.read_text())
        whole = time.perf_counter() - started
        ready = prepared(given)
        rows = measured(ready, transformers.AutoModelForCausalLM.from_pretrained(run.model).state_dict())
    told = report["metrics"]["test"]["perplexity"]["value"]
    if abs(perplexity(rows) / told - 1) > 1e-2:  # bf16 is not the same in batches of other lengths
        raise SystemExit(f"the report says {told}, the saved model has {perplexity(rows)}")
    return {
        "tokens": report["training"]["epochs"] * len(ready.train.ids) / report["training"]["seconds"],
        "train": report["training"]["seconds"],
        "whole": whole,
        "rows": rows,
        "memory": report["training"]["peak_memory_bytes"],
    }


def prepared(given: argparse.Namespace) -> Any:
    import torch  # noqa: PLC0415

    from tunesmith import prepare, settings  # noqa: PLC0415

    # With the network as it is loaded, which has no adapters: whole weights are measured in it.
    wanted = settings.parse(settings_of(given, packed=False) | {"method": "full"})
    return prepare.prepare(wanted, Path(tempfile.mkdtemp()), torch.device("cpu"), lambda _: None)


def measured(ready: Any, weights: Any) -> list[list[float]]:
    """(test rows, 2): the summed loss of each row's answer, and its tokens."""
    from tunesmith.models.forward import logits  # noqa: PLC0415

    ready.model.module.load_state_dict(weights)
    test = ready.task.encode(ready.dataset.splits["test"], ready.model)
    losses = logits(ready.task, ready.model, test, "bf16" if faster()["bf16"] else "fp32")[:, 0]
    return np.stack([losses, test.by_row], 1).tolist()  # type: ignore[no-any-return]


def perplexity(rows: Any) -> float:
    loss, tokens = np.asarray(rows).sum(0)
    return float(np.exp(loss / tokens))


def rows_of(examples: Any) -> list[dict[str, list[int]]]:
    """The rows as lists of tokens and labels, -100 where nothing is learned."""
    rows = []
    for piece in range(len(examples)):
        span = slice(examples.offsets[piece], examples.offsets[piece + 1])
        ids, wanted = examples.ids[span].tolist(), examples.wanted[span].tolist()
        rows.append({"input_ids": ids, "labels": [-100, *(-100 if one < 0 else one for one in wanted[:-1])]})
    return rows


def run_other(given: argparse.Namespace, kind: str) -> dict[str, Any]:
    import resource  # noqa: PLC0415

    import datasets  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    started = time.perf_counter()
    ready = prepared(given)
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
    told = measured(ready, trainer.model.state_dict())
    return {
        "tokens": given.epochs * len(train.ids) / trained,
        "train": trained,
        "whole": time.perf_counter() - started,
        "rows": told,
        "memory": peak,
    }


def main() -> None:
    options = side_by_side.options(__doc__, CONTESTANTS, epochs=3, rate=5e-4, batch=16)
    options.add_argument("--model", type=Path, required=True)

    def contest(given: argparse.Namespace, name: str) -> dict[str, Any]:
        if side_by_side.ours(name):
            return run_tunesmith(given, packed=name.endswith("packed"))
        return run_other(given, name)

    found = side_by_side.run(options.parse_args(), contest)
    for runs in found.values():
        for run in runs:
            run["perplexity"] = perplexity(run["rows"])
    columns = {
        "perplexity of each seed": side_by_side.each("perplexity"),
        "mean": side_by_side.mean("perplexity", "{:.1f}"),
        "training": side_by_side.mean("train"),
        "tokens a second": side_by_side.mean("tokens", "{:,.0f}"),
        "whole": side_by_side.mean("whole"),
        "peak memory": side_by_side.most("memory", "{:.2f} GB", 1e-9),
    }
    side_by_side.table(found, columns)
    side_by_side.told(found, perplexity, truth=1, scale=1, less=True)


if __name__ == "__main__":
    main()
