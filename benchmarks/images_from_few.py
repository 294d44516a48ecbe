"""Why fine-tune: a pre-trained network against the same one from scratch, at few and at many images a class.

    python benchmarks/images_from_few.py DATA/magnetic-tile --models WEIGHTS/resnet-cifar10 WEIGHTS/mobilenet-v2-1.0-224 \\
        --plot docs/images-from-few.svg

DATA holds splits.csv with the columns file, label and split. Each run keeps so many training images of each class, all of
the validation and test images, and every seed draws others. From scratch is the method `scratch` (three times the epochs).
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tunesmith

HEADS = ("network", "images a class", "method", "macro-F1 of each seed", "mean", "training")


def subset(data: Path, target: Path, count: int, seed: int) -> Path:
    """splits.csv with at most `count` training rows a class (0: all), and paths that hold anywhere."""
    with open(data / "splits.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    random.Random(seed).shuffle(rows)
    seen: dict[str, int] = defaultdict(int)
    kept = []
    for row in rows:
        if row["split"] == "train":
            seen[row["label"]] += 1
            if count and seen[row["label"]] > count:
                continue
        kept.append(row | {"file": str((data / row["file"]).resolve())})
    with open(target, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    return target


def one(given: argparse.Namespace, model: Path, method: str, count: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = subset(given.data, folder / "rows.csv", count, seed)
        settings = {
            "task": {"name": "image-classification", "metric": "macro_f1"}
            | ({"image_size": given.size} if given.size else {}),
            "model": str(model),
            "data": {"train": str(table), "split_column": "split", "input": "file", "target": "label"},
            "method": method,
            "evaluate": {"resamples": 200},
            "seed": seed,
        }
        run = tunesmith.finetune(settings, run=folder / "run")
        report: dict[str, Any] = json.loads(run.report.read_text())
    return report


def plot(points: Mapping[tuple[str, str], Mapping[int, list[float]]], counts: list[int]) -> str:
    """An SVG: macro-F1 over images a class; each line a network and where it began, the seeds as dots."""
    width, height, left, bottom = 700, 340, 50, 44
    shades = ["#0b6e5f", "#b4432f", "#2b5797", "#a3761d"]

    def across(place: int) -> float:
        return left + 40 + place * (width - left - 320) / max(1, len(counts) - 1)

    def up(value: float) -> float:
        return height - bottom - value * (height - bottom - 14)

    middle = (width - 240 + left) / 2
    parts = [
        f'<path d="M{left} 10V{height - bottom}H{width - 240}" fill="none" stroke="#888"/>',
        f'<text x="{middle:.0f}" y="{height - 6}" text-anchor="middle">training images a class, at most</text>',
        *(
            f'<text x="{across(place):.0f}" y="{height - bottom + 16}" text-anchor="middle">{count or "all"}</text>'
            for place, count in enumerate(counts)
        ),
        *(
            f'<text x="{left - 6}" y="{up(tick) + 4:.0f}" text-anchor="end">{tick:g}</text>'
            f'<path d="M{left} {up(tick):.0f}H{width - 240}" stroke="#ddd"/>'
            for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        ),
    ]
    names: list[tuple[float, str]] = []
    for number, ((model, method), found) in enumerate(points.items()):
        shade = shades[number % len(shades)]
        means = [(across(place), up(statistics.mean(found[count]))) for place, count in enumerate(counts)]
        line = " ".join(f"{x:.0f},{y:.0f}" for x, y in means)
        dash = ' stroke-dasharray="5 4"' if method == "scratch" else ""
        parts.append(f'<polyline points="{line}" fill="none" stroke="{shade}" stroke-width="2"{dash}/>')
        parts += [
            f'<circle cx="{across(place):.0f}" cy="{up(value):.0f}" r="3" fill="{shade}"/>'
            for place, count in enumerate(counts)
            for value in found[count]
        ]
        what = "from scratch" if method == "scratch" else "fine-tuned"
        names.append((means[-1][1] + 4, f'fill="{shade}">{model}, {what}</text>'))
    below = -float("inf")
    for level, name in sorted(names):  # from the top down, none on top of another
        below = max(level, below + 15)
        parts.append(f'<text x="{across(len(counts) - 1) + 12:.0f}" y="{below:.0f}" {name}')
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    body = f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>{body}</svg>\n'


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--models", type=Path, nargs="+", required=True)
    options.add_argument("--counts", type=int, nargs="+", default=[5, 20, 0], help="images a class; 0 for all")
    options.add_argument("--size", type=int, help="of the images, in pixels; absent, as the weights come")
    options.add_argument("--methods", nargs="+", default=["full", "scratch"])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--plot", type=Path)
    given = options.parse_args()
    print(f"| {' | '.join(HEADS)} |\n| {' | '.join('---' for _ in HEADS)} |")
    points: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for model in given.models:
        for count in given.counts:
            for method in given.methods:
                reports = [one(given, model, method, count, seed) for seed in range(given.seeds)]
                values = [report["metrics"]["test"]["macro_f1"]["value"] for report in reports]
                seconds = statistics.mean(report["training"]["seconds"] for report in reports)
                points[model.name, method][count] = values
                told = ", ".join(f"{value:.3f}" for value in values)
                mean = statistics.mean(values)
                cells = [model.name, str(count or "all"), method, told, f"{mean:.3f}", f"{seconds:.0f} s"]
                print(f"| {' | '.join(cells)} |", flush=True)
    if given.plot:
        given.plot.write_text(plot(points, given.counts), encoding="utf-8")


if __name__ == "__main__":
    main()
