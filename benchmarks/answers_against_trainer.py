"""Answers in passages: Tunesmith's `full`, or what --method says, against transformers' Trainer as its run_qa example sets it
up; same weights, questions, batches, rate and number of epochs, unless --trainer-rate and --trainer-epochs say otherwise.

    python benchmarks/answers_against_trainer.py ../shared/data/restaurant8k --seeds 3

DATA holds train.jsonl and test.jsonl in SQuAD's form; every tenth context of train is held out as validation, for both.
Each contestant runs in a process of its own, seeds in turns. The Trainer has its best set-up (native bf16, dynamic padding,
lengths grouped, warm-up; the epoch of least loss on validation is kept) and takes the rate at which Tunesmith trains unless
--trainer-rate says another. Its answers are found as run_qa finds them, spans of the 20 best starts and ends; its margin for
"no answer" is fitted on validation, which is kinder than run_qa's 0. Contexts fit into one window; the benchmark stops where
one doesn't.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from trainer_setup import faster, schedule

from tunesmith.metrics import answers

MOST, BEST, LONGEST = 384, 20, 30
"""Tokens of a window, starts and ends looked at, tokens of an answer: run_qa's defaults."""

Row = dict[str, Any]


def split(data: Path, most: int | None) -> dict[str, list[Row]]:
    """Rows by split, `most` of train at most, drawn once for all seeds."""

    def read(name: str) -> list[Row]:
        return [json.loads(line) for line in (data / name).read_text(encoding="utf-8").splitlines()]

    rows = read("train.jsonl")
    contexts = {context: number for number, context in enumerate(dict.fromkeys(row["context"] for row in rows))}
    held = [contexts[row["context"]] % 10 == 0 for row in rows]
    train = [row for row, out in zip(rows, held, strict=True) if not out]
    kept = np.random.default_rng(0).permutation(len(train))[:most]
    return {
        "train": [train[place] for place in sorted(kept)],
        "validation": [row for row, out in zip(rows, held, strict=True) if out],
        "test": read("test.jsonl"),
    }


def run_trainer(given: argparse.Namespace) -> Row:
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    from tunesmith.models.sources import locate  # noqa: PLC0415

    started = time.perf_counter()
    folder = locate("builtin:minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = split(given.data, given.rows)

    def encoded(name: str) -> tuple[list[Row], list[list[Any]]]:
        """Features, and where each token stands in its context (None outside)."""
        batch = tokenizer(
            [row["question"] for row in rows[name]],
            [row["context"] for row in rows[name]],
            return_offsets_mapping=True,
        )
        features, places = [], []
        for number, row in enumerate(rows[name]):
            ids, parts = batch["input_ids"][number], batch.sequence_ids(number)
            if len(ids) > MOST:
                raise SystemExit(f"{row['id']} needs more than one window")
            offsets = [
                one if part == 1 else None for one, part in zip(batch["offset_mapping"][number], parts, strict=True)
            ]
            start = end = 0
            if row["answers"]["text"]:
                first = row["answers"]["answer_start"][0]
                last = first + len(row["answers"]["text"][0])
                start = max(token for token, one in enumerate(offsets) if one and one[0] <= first)
                end = min(token for token, one in enumerate(offsets) if one and one[1] >= last)
            features.append({"input_ids": ids, "start_positions": start, "end_positions": end})
            places.append(offsets)
        return features, places

    torch.manual_seed(given.seed)
    features = {name: encoded(name) for name in rows}
    arguments = transformers.TrainingArguments(**schedule(given), **faster(), train_sampling_strategy="group_by_length")
    trainer = transformers.Trainer(
        model=transformers.AutoModelForQuestionAnswering.from_pretrained(folder),
        args=arguments,
        train_dataset=features["train"][0],
        eval_dataset=features["validation"][0],
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )
    begun = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - begun

    trainer.args.train_sampling_strategy = "sequential"  # grouped by length, rows would be told in another order

    def found(name: str) -> list[tuple[str, float]]:
        """The best span of each question, and by how much no answer is likelier."""
        starts, ends = trainer.predict(features[name][0]).predictions[:2]
        pairs = zip(rows[name], features[name][1], starts, ends, strict=True)
        return [best(row["context"], *one) for row, *one in pairs]

    truth = {name: [row["answers"]["text"] for row in rows[name]] for name in rows}
    held = found("validation")
    margins = sorted({margin for _, margin in held})

    def f1(pairs: list[tuple[str, float]], name: str, margin: float) -> np.ndarray[Any, Any]:
        return answers.scored([text if own <= margin else "" for text, own in pairs], truth[name])[:, 1]

    fitted = max(margins[:: max(1, len(margins) // 50)], key=lambda one: f1(held, "validation", one).mean())
    scores = f1(found("test"), "test", fitted)
    return {
        "train": trained,
        "whole": time.perf_counter() - started,
        "f1": scores.mean(),
        "rows": told(scores, rows["test"]),
    }


def best(context: str, offsets: list[Any], starts: Any, ends: Any) -> tuple[str, float]:
    nothing, text, top = float(starts[0] + ends[0]), "", -np.inf
    for start in np.argsort(starts[: len(offsets)])[::-1][:BEST]:
        for end in np.argsort(ends[: len(offsets)])[::-1][:BEST]:
            if offsets[start] is None or offsets[end] is None or not start <= end < start + LONGEST:
                continue
            if starts[start] + ends[end] > top:
                text, top = context[offsets[start][0] : offsets[end][1]], float(starts[start] + ends[end])
    return text, nothing - top


def run_tunesmith(given: argparse.Namespace) -> Row:
    import pyarrow.parquet  # noqa: PLC0415

    import tunesmith  # noqa: PLC0415

    started = time.perf_counter()
    rows = split(given.data, given.rows)
    with tempfile.TemporaryDirectory() as name:
        for part, own in rows.items():
            (Path(name) / f"{part}.jsonl").write_text("\n".join(map(json.dumps, own)), encoding="utf-8")
        settings = {
            "task": "question-answering",
            "data": {part: str(Path(name) / f"{part}.jsonl") for part in rows},
            "method": given.method,
            "train": {"epochs": given.epochs, "batch_size": given.batch, "learning_rate": given.rate},
            "seed": given.seed,
        }
        run = tunesmith.finetune(settings, run=Path(name) / "run")
        report = json.loads(run.report.read_text())
        table = {str(row["id"]): row["prediction"] for row in pyarrow.parquet.read_table(run.predictions).to_pylist()}
    whole = time.perf_counter() - started
    missing = [row["id"] for row in rows["test"] if row["id"] not in table]
    if missing:
        raise SystemExit(f"{len(missing)} test questions were not answered, such as {missing[0]}")
    found = [table[row["id"]] or "" for row in rows["test"]]
    scores = answers.scored(found, [row["answers"]["text"] for row in rows["test"]])[:, 1]
    return {
        "train": report["training"]["seconds"],
        "whole": whole,
        "f1": scores.mean(),
        "rows": told(scores, rows["test"]),
    }


def told(scores: np.ndarray[Any, Any], rows: list[Row]) -> list[list[float]]:
    """(rows, 2): F1, and how long the true answer is."""
    return [[float(one), len("".join(row["answers"]["text"][:1]))] for one, row in zip(scores, rows, strict=True)]


def main() -> None:
    options = side_by_side.options(__doc__, ["tunesmith", "trainer"], epochs=3, rate=7.1e-5)
    options.add_argument("--rows", type=int, help="of train at most; absent, all")
    given = options.parse_args()
    contests = {"tunesmith": run_tunesmith, "trainer": run_trainer}
    found = side_by_side.run(given, lambda given, name: contests[name](given))
    columns = {
        "F1 of each seed": side_by_side.each("f1", scale=100),
        "mean": side_by_side.mean("f1", "{:.1f} %", 100),
        "training": side_by_side.mean("train"),
        "whole": side_by_side.mean("whole"),
    }
    side_by_side.table(found, columns)
    side_by_side.told(found, lambda rows: float(rows[:, 0].mean()), truth=1)


if __name__ == "__main__":
    main()
