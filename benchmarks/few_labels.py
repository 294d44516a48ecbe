"""Eight labelled rows a class: contrastive tuning against the probe and full fine-tuning, and against the setfit package.

    python benchmarks/few_labels.py --data trec.csv --test trec-test.csv --input text --target label
    python benchmarks/few_labels.py … --setfit PYTHON      # an interpreter that has setfit; its own process, the same rows

Each seed draws other rows. Of those, Tunesmith sets some aside to validate by, and then trains once more on all; setfit has
no validation. Times are those of training alone, both trainings together. Differences are in points of accuracy, with 95 %
intervals over test rows of all seeds together.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet

import tunesmith
from tunesmith import seeds

SETFIT = """
import csv, json, sys, time
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments
train, test, text, label, model, seed, out, iterations = sys.argv[1:]
def read(path):
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))
rows, others = read(train), read(test)
fit = SetFitModel.from_pretrained(model)
pairs = {"num_iterations": int(iterations)} if int(iterations) else {}
arguments = TrainingArguments(**pairs, batch_size=16, num_epochs=1, seed=int(seed), report_to="none", save_strategy="no")
data = Dataset.from_dict({"text": [row[text] for row in rows], "label": [row[label] for row in rows]})
trainer = Trainer(model=fit, args=arguments, train_dataset=data)
started = time.perf_counter()
trainer.train()
seconds = time.perf_counter() - started
said = [str(one) for one in fit.predict([row[text] for row in others])]
json.dump({"seconds": seconds, "said": said}, open(out, "w"))
"""
"""Its own defaults: one epoch over sampled pairs, batches of 16, a logistic regression on top."""


def main() -> None:
    arguments = argparse.ArgumentParser()
    for name in ("data", "test", "input", "target"):
        arguments.add_argument(f"--{name}", required=True)
    arguments.add_argument("--model", default="builtin:minilm")
    arguments.add_argument("--rows", type=int, default=8, help="labelled rows a class")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--methods", nargs="*", default=["contrastive", "probe", "full"])
    arguments.add_argument("--set", nargs="*", default=[], help="settings of contrastive, such as together=8")
    arguments.add_argument("--setfit", help="a Python that has setfit")
    arguments.add_argument("--setfit-model", help="the folder of the same weights, for setfit")
    arguments.add_argument(
        "--setfit-iterations",
        type=int,
        default=0,
        help="its num_iterations; 0 for all pairs, too many where classes are",
    )
    wanted = arguments.parse_args()
    right: dict[str, list[np.ndarray]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(wanted.seeds):
            few = drawn(Path(wanted.data), wanted.target, wanted.rows, seed, Path(folder) / f"{seed}.csv")
            for method in wanted.methods:
                found, took = ours(wanted, method, few, seed, Path(folder) / f"{method}-{seed}")
                right[method].append(found)
                seconds[method].append(took)
                print(f"seed {seed}, {method}: {100 * found.mean():.2f} in {took:.1f} s", flush=True)
            if wanted.setfit:
                found, took = theirs(wanted, few, seed, Path(folder) / "setfit.json")
                right["setfit"].append(found)
                seconds["setfit"].append(took)
                print(f"seed {seed}, setfit: {100 * found.mean():.2f} in {took:.1f} s", flush=True)
    show(right, seconds)


def drawn(data: Path, target: str, each: int, seed: int, path: Path) -> Path:
    """`each` rows of every class of `data`."""
    with open(data, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    order = seeds.generator(seed, "few labels").permutation(len(rows))
    counts: dict[str, int] = defaultdict(int)
    kept = []
    for place in order:
        counts[rows[place][target]] += 1
        if counts[rows[place][target]] <= each:
            kept.append(rows[place])
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, kept[0])
        writer.writeheader()
        writer.writerows(kept)
    return path


def ours(wanted: argparse.Namespace, method: str, few: Path, seed: int, run: Path) -> tuple[np.ndarray, float]:
    """(test rows,) whether each was told rightly, and the seconds that training took."""
    own = dict(one.split("=") for one in wanted.set) if method == "contrastive" else {}
    train = {key.removeprefix("train."): json.loads(value) for key, value in own.items() if key.startswith("train.")}
    method_ = {key: json.loads(value) for key, value in own.items() if not key.startswith("train.")}
    given = {
        "task": "text-classification", "model": wanted.model, "method": {"name": method, **method_}, "train": train,
        "data": {"train": str(few), "test": wanted.test, "input": wanted.input, "target": wanted.target},
        "seed": seed,
    }  # fmt: skip
    done = tunesmith.finetune(given, run=run)
    rows = sorted(
        pyarrow.parquet.read_table(done.predictions).to_pylist(), key=lambda row: int(row["id"].split(":")[1])
    )
    report = json.loads(done.report.read_text())
    seconds = report["training"]["seconds"] + report.get("refit", {}).get("seconds", 0.0)
    return np.array([row["truth"] == row["prediction"] for row in rows]), seconds


def theirs(wanted: argparse.Namespace, few: Path, seed: int, out: Path) -> tuple[np.ndarray, float]:
    """The same of the setfit package."""
    given = [
        str(few),
        wanted.test,
        wanted.input,
        wanted.target,
        wanted.setfit_model or wanted.model,
        str(seed),
        str(out),
        str(wanted.setfit_iterations),
    ]
    subprocess.run([wanted.setfit, "-c", SETFIT, *given], check=True)
    found = json.loads(out.read_text())
    with open(wanted.test, newline="", encoding="utf-8") as handle:
        truth = [row[wanted.target] for row in csv.DictReader(handle)]
    return np.array([one == other for one, other in zip(found["said"], truth, strict=True)]), found["seconds"]


def show(right: dict[str, list[np.ndarray]], seconds: dict[str, list[float]]) -> None:
    """A line a method: accuracy by seed, the mean, the seconds, and by how much contrastive is better."""
    draw = np.random.default_rng(0)
    for name, found in right.items():
        accuracy = [100 * one.mean() for one in found]
        line = f"{name}: {' '.join(f'{one:.1f}' for one in accuracy)}, mean {np.mean(accuracy):.2f}, "
        line += f"{np.mean(seconds[name]):.1f} s"
        if name != "contrastive" and "contrastive" in right:
            gap = np.mean(
                [one.astype(float) - other for one, other in zip(right["contrastive"], found, strict=True)], axis=0
            )
            resampled = [gap[draw.integers(len(gap), size=len(gap))].mean() for _ in range(1000)]
            low, high = 100 * np.quantile(resampled, [0.025, 0.975])
            line += f"; contrastive {100 * gap.mean():+.2f} ({low:+.2f} to {high:+.2f})"
        print(line)


if __name__ == "__main__":
    main()
