"""Named entities: Tunesmith's `full`, or what --method says, against transformers' Trainer as its run_ner example sets it up;
same weights, texts, batches, rate and number of epochs, unless --trainer-rate and --trainer-epochs say otherwise.

    python benchmarks/words_against_trainer.py ../shared/data/wnut17 --seeds 3

DATA holds train, validation and test as .conll files. Each contestant runs in a process of its own, seeds in turns. The
Trainer has its best set-up (native bf16, dynamic padding, lengths grouped, warm-up; the epoch that is best on validation is
kept), takes the rate at which Tunesmith trains unless --trainer-rate says another, and is scored by seqeval.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
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


def entities(tags: list[str]) -> set[tuple[str, int, int]]:
    """As run_ner has it: a stray I begins an entity, which is kinder than the strict reading."""
    from seqeval.metrics.sequence_labeling import get_entities  # type: ignore[import-untyped]  # noqa: PLC0415

    return set(get_entities(tags))


def counted(truth: list[set[Any]], found: list[set[Any]]) -> list[list[int]]:
    """(texts, 3): entities found rightly, found, and there."""
    return [[len(one & other), len(other), len(one)] for one, other in zip(truth, found, strict=True)]


def f1_of(rows: Any) -> float:
    right, found, there = np.asarray(rows).sum(0)
    return float(2 * right / (found + there))


def run_trainer(given: argparse.Namespace) -> dict[str, Any]:
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

    def judged(labels: Any, values: Any) -> list[list[int]]:
        pairs = [
            ([names[one] for one in truth[truth != -100]], [names[one] for one in row[truth != -100]])
            for truth, row in zip(labels, np.argmax(values, axis=2), strict=True)
        ]
        return counted([entities(one) for one, _ in pairs], [entities(other) for _, other in pairs])

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
        compute_metrics=lambda found: {"f1": f1_of(judged(found[1], found[0]))},
    )
    begun = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - begun
    trainer.args.train_sampling_strategy = "sequential"  # grouped by length, rows would be told in another order
    found = trainer.predict(rows["test"])
    scores = judged(found.label_ids, found.predictions)
    return {"train": trained, "whole": time.perf_counter() - started, "f1": f1_of(scores), "rows": scores}


def run_tunesmith(given: argparse.Namespace) -> dict[str, Any]:
    import pyarrow.parquet  # noqa: PLC0415

    import tunesmith  # noqa: PLC0415

    started = time.perf_counter()
    settings = {
        "task": "token-classification",
        "data": {split: str(given.data / f"{split}.conll") for split in SPLITS},
        "method": given.method,
        "train": {"epochs": given.epochs, "batch_size": given.batch, "learning_rate": given.rate},
        "seed": given.seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        run = tunesmith.finetune(settings, run=Path(folder) / "run")
        report = json.loads(run.report.read_text())
        table = pyarrow.parquet.read_table(run.predictions).to_pylist()
    whole = time.perf_counter() - started
    table.sort(key=lambda row: int(row["id"].split(":")[1]))
    truth, found = ([spelled(row[key]) for row in table] for key in ("truth", "entities"))
    scores = counted(truth, found)
    if abs(f1_of(scores) - report["metrics"]["test"]["entity_f1"]["value"]) > 1e-9:
        raise SystemExit("the figure of the report is not that of its predictions")
    return {"train": report["training"]["seconds"], "whole": whole, "f1": f1_of(scores), "rows": scores}


def spelled(entities: list[dict[str, Any]]) -> set[tuple[int, int, str]]:
    return {(one["start"], one["end"], one["label"]) for one in entities}


def main() -> None:
    given = side_by_side.options(__doc__, ["tunesmith", "trainer"], epochs=3, rate=7.1e-5).parse_args()
    contests = {"tunesmith": run_tunesmith, "trainer": run_trainer}
    found = side_by_side.run(given, lambda given, name: contests[name](given))
    columns = {
        "entity F1 of each seed": side_by_side.each("f1", scale=100),
        "mean": side_by_side.mean("f1", "{:.1f} %", 100),
        "training": side_by_side.mean("train"),
        "whole": side_by_side.mean("whole"),
    }
    side_by_side.table(found, columns)
    side_by_side.told(found, f1_of, truth=2)


if __name__ == "__main__":
    main()
