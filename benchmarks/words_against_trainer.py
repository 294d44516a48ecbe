"""Named entities: Tunesmith's `full` against transformers' Trainer as its run_ner example sets it up; same weights, texts,
epochs, batches and rate, one run.

    python benchmarks/words_against_trainer.py ../shared/data/wnut17 --seeds 3

DATA holds train, validation and test as .conll files. Each contestant runs in a process of its own, seeds in turns. The
Trainer has its best set-up (native bf16, dynamic padding, lengths grouped, warm-up; the epoch that is best on validation is
kept), takes the rate at which Tunesmith trains, and is scored by seqeval.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainer_setup import faster, schedule

Texts = tuple[list[list[str]], list[list[str]]]
SPLITS = ("train", "validation", "test")


def read(path: Path) -> Texts:
    """Words and tags of each text."""
    words: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            words.append([])
            tags.append([])
            continue
        word, tag = line.rsplit("\t", 1)
        words[-1].append(word)
        tags[-1].append(tag)
    return [one for one in words if one], [one for one in tags if one]


def scored(truth: list[list[str]], found: list[list[str]]) -> float:
    """As run_ner has it: a stray I begins an entity, which is kinder than the strict reading."""
    from seqeval.metrics import f1_score  # type: ignore[import-untyped]  # noqa: PLC0415

    return float(f1_score(truth, found))


def run_trainer(given: argparse.Namespace) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    from tunesmith.models.sources import locate  # noqa: PLC0415

    started = time.perf_counter()
    folder = locate("builtin:minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = {split: read(given.data / f"{split}.conll") for split in SPLITS}
    names = sorted({tag for tags in texts["train"][1] for tag in tags})
    index = {name: number for number, name in enumerate(names)}

    def encoded(split: str) -> list[dict[str, Any]]:
        words, tags = texts[split]
        batch = tokenizer(words, is_split_into_words=True, truncation=True)
        rows = []
        for row in range(len(words)):
            held: list[int | None] = [None, *batch.word_ids(row)]
            labels = [
                -100 if word is None or word == before else index[tags[row][word]]
                for before, word in itertools.pairwise(held)
            ]
            rows.append({"input_ids": batch["input_ids"][row], "labels": labels})
        return rows

    def f1(found: Any) -> dict[str, float]:
        best = np.argmax(found[0], axis=2)
        pairs = [
            ([names[one] for one in truth[truth != -100]], [names[one] for one in row[truth != -100]])
            for truth, row in zip(found[1], best, strict=True)
        ]
        return {"f1": scored([one for one, _ in pairs], [other for _, other in pairs])}

    rows = {split: encoded(split) for split in SPLITS}
    torch.manual_seed(given.seed)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder, num_labels=len(names))
    arguments = transformers.TrainingArguments(
        **schedule(given), **faster(), metric_for_best_model="f1", train_sampling_strategy="group_by_length"
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        data_collator=transformers.DataCollatorForTokenClassification(tokenizer),
        compute_metrics=f1,
    )
    begun = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - begun
    found = trainer.evaluate(rows["test"])["eval_f1"]
    return {"train": trained, "whole": time.perf_counter() - started, "f1": found}


def run_tunesmith(given: argparse.Namespace) -> dict[str, Any]:
    import pyarrow.parquet  # noqa: PLC0415

    import tunesmith  # noqa: PLC0415

    started = time.perf_counter()
    settings = {
        "task": "token-classification",
        "data": {split: str(given.data / f"{split}.conll") for split in SPLITS},
        "method": "full",
        "train": {"epochs": given.epochs, "batch_size": given.batch, "learning_rate": given.rate},
        "seed": given.seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        run = tunesmith.finetune(settings, run=Path(folder) / "run")
        report = json.loads(run.report.read_text())
        table = pyarrow.parquet.read_table(run.predictions).to_pylist()
    whole = time.perf_counter() - started
    truth, found = ([spelled(row[key]) for row in table] for key in ("truth", "entities"))
    f1 = report["metrics"]["test"]["entity_f1"]["value"]
    if abs(overlap(truth, found) - f1) > 1e-9:
        raise SystemExit("the figure of the report is not that of its predictions")
    return {"train": report["training"]["seconds"], "whole": whole, "f1": f1}


def spelled(entities: list[dict[str, Any]]) -> set[tuple[int, int, str]]:
    return {(one["start"], one["end"], one["label"]) for one in entities}


def overlap(truth: list[set[Any]], found: list[set[Any]]) -> float:
    right = sum(len(one & other) for one, other in zip(truth, found, strict=True))
    return 2 * right / (sum(map(len, truth)) + sum(map(len, found)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--rate", type=float, default=7.1e-5)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--only", choices=["trainer", "tunesmith"])
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    if given.only:
        print(json.dumps((run_trainer if given.only == "trainer" else run_tunesmith)(given)))
        return
    found: dict[str, list[dict[str, Any]]] = {"tunesmith": [], "trainer": []}
    own = ["--epochs", str(given.epochs), "--batch", str(given.batch), "--rate", str(given.rate)]
    for seed in range(given.seeds):
        for name, runs in found.items():
            command = [sys.executable, __file__, str(given.data), *own, "--only", name, "--seed", str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(name, seed, runs[-1], file=sys.stderr, flush=True)
    print("| contestant | entity F1 of each seed | mean | training | whole |\n| --- | --- | --- | --- | --- |")
    for name, runs in found.items():
        mean = {key: statistics.mean(one[key] for one in runs) for key in runs[0]}
        each = ", ".join(f"{100 * one['f1']:.1f}" for one in runs)
        print(f"| {name} | {each} | {100 * mean['f1']:.1f} % | {mean['train']:.0f} s | {mean['whole']:.0f} s |")


if __name__ == "__main__":
    main()
