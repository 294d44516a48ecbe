"""Preferences that can be learned from few rows: the answer to an instruction against the answer to another one.

    python benchmarks/preference_pairs.py DATA/alpaca-1k --model WEIGHTS/gpt2-books

The rejected answer of each row is the one of the row that is most like the chosen one in length, so that neither length nor
style tells them apart: only what was asked does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import tunesmith

HEADS = (
    "method",
    "accuracy",
    "interval",
    "reward margin",
    "likelihood before",
    "likelihood after",
    "longer",
    "seconds",
)


def pairs(source: Path, target: Path, longest: int) -> Path:
    """Write to `target` the rows of `source` whose output has at most so many characters, each with another one's output."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if len(row["output"]) <= longest]
    rows.sort(key=lambda row: len(row["output"]))
    with open(target, "w", encoding="utf-8") as handle:
        for one, other in zip(rows[::2], rows[1::2], strict=False):
            for row, rejected in ((one, other), (other, one)):
                asked = f"{row['instruction']}\n\n{row['input']}".strip()
                cells = {"instruction": asked, "chosen": row["output"], "rejected": rejected["output"]}
                handle.write(json.dumps(cells, ensure_ascii=False) + "\n")
    return target


def measured(given: argparse.Namespace, method: str, folder: Path) -> list[Any]:
    """A row of the table."""
    data = {
        split: str(pairs(given.data / f"{split}.jsonl", folder / f"{split}.jsonl", given.longest)) for split in SPLITS
    }
    wanted = {"task": "preference", "model": given.model, "data": data, "method": method, "seed": given.seed}
    run = tunesmith.finetune(wanted, run=folder / method)
    report = json.loads((run.folder / "report.json").read_text(encoding="utf-8"))
    test, before = report["metrics"]["test"], report["baselines"]["before"]
    reached = test["preference_accuracy"]
    return [
        method,
        f"{reached['value']:.3f}",
        f"{reached['low']:.3f} to {reached['high']:.3f}",
        f"{test['reward_margin']['value']:.3f}",
        f"{before['likelihood_accuracy']['value']:.3f}",
        f"{test['likelihood_accuracy']['value']:.3f}",
        f"{report['baselines']['longer']['preference_accuracy']['value']:.3f}",
        f"{report['training']['seconds']:.0f}",
    ]


SPLITS = ("train", "validation", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--longest", type=int, default=300)
    parser.add_argument("--methods", nargs="+", default=["lora", "full"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| " + " | ".join(HEADS) + " |")
    print("|" + " --- |" * len(HEADS))
    with tempfile.TemporaryDirectory() as name:
        for method in given.methods:
            print("| " + " | ".join(measured(given, method, Path(name))) + " |", flush=True)


if __name__ == "__main__":
    main()
