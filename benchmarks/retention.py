"""What each guard costs on the task, and what it keeps of what the backbone could do before.

    python benchmarks/retention.py DATA/sst2 DATA/banking77 --rows-a-class 400 --rows 600 --epochs 3 --rate 5e-4
    python benchmarks/retention.py DATA/magnetic-tile/splits.csv DATA/cifar10-slice --task image-classification \\
        --model WEIGHTS/RESNET --set data.split_column=split task.metric=macro_f1
    python benchmarks/retention.py DATA/trec DATA/books/train.txt --reference-task causal-lm \\
        --reference-test DATA/books/held-out.txt --model WEIGHTS/gpt2-books --rows 200

One run of the method without any guard, then one for each guard and strength, all with the same seed. Retention is that of
`evaluate.retention` (docs/retention.md); `neighbours` is the nearest-neighbour figure, `CKA` that of the deepest stage.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from auto_within_budget import few

import tunesmith
from tunesmith.settings_file import override

GUARDS: dict[str, dict[str, Any]] = {
    "none": {},
    "l2_sp 0.01": {"l2_sp": 0.01},
    "l2_sp 0.1": {"l2_sp": 0.1},
    "ewc 0.01": {"ewc": 0.01},
    "ewc 0.1": {"ewc": 0.1},
    "distil 0.3": {"distil": 0.3},
    "distil 1": {"distil": 1.0},
    "replay 0.2": {"replay": 0.2},
    "replay 0.5": {"replay": 0.5},
    "replay 0.2, distil 1": {"replay": 0.2, "distil": 1.0},
    "wise_ft": {"wise_ft": True},
    "wise_ft, retain 0.98": {"wise_ft": True, "retain": 0.98},
    "swa 0.3": {"swa": 0.3},
    "ema 0.98": {"ema": 0.98},
    "r_drop 1": {"r_drop": 1.0, "dropout": 0.1},
    "mixup 0.4": {"mixup": 0.4},
    "sam 0.05": {"sam": 0.05},
}
HEADS = ("guard", "task", "before", "after", "kept", "neighbours", "CKA", "alpha", "seconds")


def settings(given: argparse.Namespace, guard: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of one run; fewer training rows go into a file in `folder`."""
    data = {"train": str(given.reference)} | ({"test": str(given.reference_test)} if given.reference_test else {})
    reference = {"name": given.reference.stem, "data": data, "rows": given.rows, "task": given.reference_task}
    asked = {"epochs": given.epochs, "learning_rate": given.rate}
    values = {
        "task": given.task,
        "model": given.model,
        "data": data_of(given, folder),
        "method": given.method,
        "seed": given.seed,
        "train": guard | {key: value for key, value in asked.items() if value},
        "evaluate": {"retention": [reference], "resamples": 200},
    }
    return override(values, given.set)


def data_of(given: argparse.Namespace, folder: Path) -> dict[str, str]:
    """What the model is fine-tuned on: all of it, or so many training rows of each class, drawn by the seed."""
    if not given.rows_a_class:
        return {"train": str(given.data)}
    train = few(given.data / "train.csv", folder / "train.csv", given.rows_a_class, "label", given.seed)
    return {"train": str(train)} | {name: str(given.data / f"{name}.csv") for name in ("validation", "test")}


def line(name: str, report: dict[str, Any]) -> str:
    """A row of the table."""
    kept = report["retention"][0]
    near = kept.get("neighbours")
    cells = [
        name,
        f"{report['metrics']['test'][report['primary_metric']]['value']:.3f}",
        f"{kept['before']['value']:.3f}",
        f"{kept['after']['value']:.3f}",
        f"{kept['kept']:.3f}",
        f"{near['before']['value']:.3f} to {near['after']['value']:.3f}" if near else "",
        f"{list(kept['cka'].values())[-1]:.2f}",
        f"{report['mixture']['alpha']:g}" if "mixture" in report else "",
        f"{report['training']['seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def plot(points: list[tuple[str, float, float]]) -> str:
    """An SVG of (guard, figure on the task, share of the reference that is kept)."""
    width, height, margin = 640, 340, 60
    together: dict[tuple[float, float], list[str]] = {}
    for name, task, kept in points:
        together.setdefault((task, kept), []).append(name)
    xs, ys = [kept for _, _, kept in points], [task for _, task, _ in points]

    def scale(value: float, values: list[float], start: float, end: float) -> float:
        span = (max(values) - min(values)) or 1.0
        return start + (value - min(values)) / span * (end - start)

    parts = []
    for number, ((task, kept), names) in enumerate(together.items()):
        x, y = scale(kept, xs, margin + 20, width - 210), scale(task, ys, height - margin - 10, 20)
        parts.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="6" fill="{"#b4432f" if number == 0 else "#0b6e5f"}"/>'
            f'<text x="{x + 10:.0f}" y="{y + 4:.0f}">{" and ".join(names)}: {task:.3f}, {100 * kept:.1f} %</text>'
        )
    axes = (
        f'<path d="M{margin} 10V{height - margin + 10}H{width - 10}" fill="none" stroke="#888"/>'
        f'<text x="{width / 2:.0f}" y="{height - 18}" text-anchor="middle">share of the reference that is kept</text>'
        f'<text x="20" y="{height / 2:.0f}" transform="rotate(-90 20 {height / 2:.0f})" text-anchor="middle">task</text>'
    )
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    body = f'<rect width="100%" height="100%" fill="#fff"/>{axes}{"".join(parts)}'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>{body}</svg>\n'


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path, help="what the model is fine-tuned on")
    options.add_argument("reference", type=Path, help="what it should still be able to do")
    options.add_argument("--reference-task", help="that of the run when absent")
    options.add_argument("--reference-test", type=Path, help="cut from the reference when absent")
    options.add_argument("--task", default="text-classification")
    options.add_argument("--model", default="builtin:minilm")
    options.add_argument("--method", default="full")
    options.add_argument("--rows", type=int, default=2000, help="of the reference, at most")
    options.add_argument("--rows-a-class", type=int, default=0, help="of the task's training rows, at most")
    options.add_argument("--epochs", type=int)
    options.add_argument("--rate", type=float, help="the learning rate; a high one forgets more")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    options.add_argument("--guards", nargs="*", choices=GUARDS, default=list(GUARDS), metavar="GUARD")
    options.add_argument("--plot", type=Path, help="an SVG file of what was kept against what was reached")
    given = options.parse_args()
    print(f"| {' | '.join(HEADS)} |\n| {' | '.join('---' for _ in HEADS)} |", flush=True)
    points = []
    for name in given.guards:
        with tempfile.TemporaryDirectory() as folder:
            run = tunesmith.finetune(settings(given, GUARDS[name], Path(folder)), run=Path(folder) / "run")
            report = json.loads(run.report.read_text())
        print(line(name, report), flush=True)
        reached = report["metrics"]["test"][report["primary_metric"]]["value"]
        points.append((name, reached, report["retention"][0]["kept"]))
    if given.plot:
        given.plot.write_text(plot(points), encoding="utf-8")


if __name__ == "__main__":
    main()
