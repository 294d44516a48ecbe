"""Few labelled rows, and many texts of the same field: does going on with the pre-training help? docs/benchmarks.md.

python benchmarks/adapting.py ../shared/data/banking77 --rows 8 --run runs/adapting
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import tunesmith
from tunesmith import console, seeds


def few(source: Path, target: Path, rows: int, seed: int) -> tuple[Path, Path]:
    """`rows` rows of each class to train on, and half as many others for validation, drawn by the seed."""
    with open(source, newline="", encoding="utf-8") as handle:
        header, *table = csv.reader(handle)
    by_class = defaultdict(list)
    column = header.index("label")
    for row in table:
        by_class[row[column]].append(row)
    drawn: dict[str, list[list[str]]] = {"train": [], "validation": []}
    for number, name in enumerate(sorted(by_class)):
        order = seeds.generator(seed, "few", number).permutation(len(by_class[name]))
        own = [by_class[name][place] for place in order[: rows + rows // 2]]
        drawn["train"] += own[:rows]
        drawn["validation"] += own[rows:]
    target.mkdir(parents=True, exist_ok=True)
    for split, kept in drawn.items():
        with open(target / f"{split}.csv", "w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows([header, *kept])
    return target / "train.csv", target / "validation.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="a folder with train.csv and test.csv, with a column label")
    parser.add_argument("--rows", type=int, default=8, help="labelled rows a class")
    parser.add_argument("--epochs", type=int, default=5, help="over the texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, required=True)
    given = parser.parse_args()
    train, validation = few(given.data / "train.csv", given.run / "data", given.rows, given.seed)
    wanted = {
        "data": {"train": str(train), "validation": str(validation), "test": str(given.data / "test.csv")},
        "adapt": {"data": str(given.data / "train.csv"), "epochs": given.epochs},
        "method": "full",
        "seed": given.seed,
    }
    with console.progress(quiet=False) as listen:
        run = tunesmith.finetune(wanted, run=given.run / "run", listen=listen)
    report = json.loads(run.report.read_text(encoding="utf-8"))
    for key in ("adapt", "metrics", "baselines", "comparisons"):
        print(json.dumps({key: report[key]}, indent=1))


if __name__ == "__main__":
    main()
