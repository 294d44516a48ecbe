"""`method: auto` at several budgets, against single methods: what each reaches on the test split, and how long the run takes.

    python benchmarks/auto_within_budget.py DATA/sst2 --budgets 60s 120s none --seeds 3 --methods probe partial:1 lora full
    python benchmarks/auto_within_budget.py DATA/banking77 --rows-a-class 8 --methods probe partial lora full auto

`whole` is the time of the whole run, from reading the data to the report, in a process that has imported nothing before;
a single method runs without a budget, and fits into one if its `whole` does. The budget `none` is auto without one.
With --rows-a-class, only so many training rows of each class are used, drawn by the seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml


def few(source: Path, target: Path, rows_a_class: int, label: str, seed: int) -> Path:
    """A copy of a table with so many rows of each class."""
    with open(source, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    random.Random(seed).shuffle(rows)
    by_class: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_class[row[label]].append(row)
    kept = [row for members in by_class.values() for row in members[:rows_a_class]]
    with open(target, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    return target


def data_of(given: argparse.Namespace, folder: Path, seed: int) -> dict[str, Any]:
    """The `data` settings: the folder's files by split, its table with a column of splits, or the folder itself."""
    more = dict(pair.split("=") for pair in given.data_settings)
    if not (given.data / "splits.csv").is_file() and not (given.data / "train.csv").is_file():
        return {"train": str(given.data), **more}
    if (given.data / "splits.csv").is_file():
        return {"train": str(given.data / "splits.csv"), **more}
    files = {split: given.data / f"{split}.csv" for split in ("train", "validation", "test")}
    found: dict[str, Any] = {split: str(file) for split, file in files.items() if file.is_file()} | more
    if given.rows_a_class:
        found["train"] = str(few(files["train"], folder / "train.csv", given.rows_a_class, given.label, seed))
        if given.rows_a_class < 20:
            found["split"] = [0.7, 0.2, 0.1]  # validation rows of every class
    return found


def setting(pair: str) -> tuple[str, Any]:
    """key=value, the value as YAML reads it."""
    key, _, value = pair.partition("=")
    return key, yaml.safe_load(value)


def one(given: argparse.Namespace, method: Any, budget: str | None, seed: int) -> dict[str, Any]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {
            "task": {"name": given.task, **dict(map(setting, given.task_settings))}
            | ({"metric": given.metric} if given.metric else {}),
            "model": given.model,
            "data": data_of(given, folder, seed),
            "method": method,
            "seed": seed,
        } | ({"budget": budget} if budget else {})
        (folder / "settings.json").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "tunesmith.cli", "train", str(folder / "settings.json")]
        began = time.perf_counter()
        subprocess.run([*command, "--run", str(folder / "run"), "--quiet"], check=True, capture_output=True)
        whole = time.perf_counter() - began
        report: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text())
        return report | {"whole": whole}


def told(report: dict[str, Any], what: str) -> str:
    metric, predicted = report["primary_metric"], report["plan"]["predicted"]["peak_memory_bytes"]
    cells = [
        f"{what:28}",
        f"{report['metrics']['test'][metric]['value']:.4f}",
        f"{report['metrics']['validation'][metric]['value']:.4f}",
        f"{report['training']['seconds']:8.1f}",
        f"{report['whole']:8.1f}",
        report["method"],
        f"{predicted / 1e9:.2f} GB predicted, {report['training']['peak_memory_bytes'] / 1e9:.2f} GB used",
    ]
    tried = [
        f"{entry['label']} {entry['metric']['value']:.4f} {entry['seconds']:.0f} s"
        if "metric" in entry
        else entry["label"]
        for entry in report.get("frontier", [])
    ]
    return "  ".join(cells) + (f"   [{'; '.join(tried)}]" if tried else "")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--task", default="text-classification")
    options.add_argument("--model", default="builtin:minilm")
    options.add_argument("--metric", default="")
    options.add_argument("--label", default="label")
    options.add_argument("--task-settings", nargs="*", default=[], help="key=value")
    options.add_argument("--data-settings", nargs="*", default=[], help="key=value")
    options.add_argument("--budgets", nargs="*", default=[])
    options.add_argument("--methods", nargs="*", default=[])
    options.add_argument("--rows-a-class", type=int, default=0)
    options.add_argument("--seeds", type=int, default=1)
    given = options.parse_args()
    print(f"{'':28}  test    validation  train s  whole s  kept  memory", flush=True)
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for seed in range(given.seeds):
        for budget in given.budgets:
            found = one(given, "auto", None if budget == "none" else budget, seed)
            runs[budget].append(found)
            print(told(found, f"auto, {budget}, seed {seed}"), flush=True)
        for method in given.methods:
            name, _, last = method.partition(":")
            found = one(given, {"name": name, "last": int(last)} if last else name, None, seed)
            runs[method].append(found)
            print(told(found, f"{method}, seed {seed}"), flush=True)
    print("\nmeans over seeds")
    for name, reports in runs.items():
        metric = reports[0]["primary_metric"]
        test = [report["metrics"]["test"][metric]["value"] for report in reports]
        wholes = [report["whole"] for report in reports]
        print(f"{name:28}  {statistics.mean(test):.4f}  whole {min(wholes):.0f} to {max(wholes):.0f} s", flush=True)


if __name__ == "__main__":
    main()
