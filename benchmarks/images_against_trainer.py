"""Image classification: Tunesmith's `full` against transformers' Trainer; same weights, images, epochs, batches, one run.

    python benchmarks/images_against_trainer.py DATA/magnetic-tile --model WEIGHTS/mobilenet-v2-1.0-224 --seeds 3

DATA holds splits.csv with the columns file, label and split. Each contestant runs in a process of its own. The Trainer has
two set-ups: *tutorial* (fp32, images read and processed when needed, as tutorials do) and *best* (native bf16, images
processed once and kept as tensors, warm-up). Both take the rate at which Tunesmith trains, and keep the best epoch.
Batch normalisation of *best* takes a tenth of each batch into its statistics, as torch does by itself; some networks come
with another share from transformers, MobileNet with 0.997, and what is then measured has the statistics of the last batch.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainer_setup import faster, schedule


def rows_of(data: Path) -> dict[str, list[tuple[Path, str]]]:
    with open(data / "splits.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    found: dict[str, list[tuple[Path, str]]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        found[row["split"]].append((data / row["file"], row["label"]))
    return found


def run_trainer(given: argparse.Namespace, setup: str) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    from tunesmith.metrics.classification import single_label  # noqa: PLC0415

    started = time.perf_counter()
    splits = rows_of(given.data)
    labels = sorted({label for _, label in splits["train"]})
    processor = transformers.AutoImageProcessor.from_pretrained(given.model, backend="pil")
    best = setup == "best"

    class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, rows: list[tuple[Path, str]]) -> None:
            self.rows = rows
            self.kept = [self.read(place) for place in range(len(rows))] if best else None

        def read(self, place: int) -> dict[str, Any]:
            file, label = self.rows[place]
            pixels = processor(Image.open(file).convert("RGB"), return_tensors="pt")["pixel_values"][0]
            return {"pixel_values": pixels, "labels": labels.index(label)}

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, place: int) -> dict[str, Any]:
            return self.kept[place] if self.kept else self.read(place)

    data = {name: Images(rows) for name, rows in splits.items()}
    if given.size:
        processor.size = {"height": given.size, "width": given.size}
        processor.do_center_crop = False
    model = transformers.AutoModelForImageClassification.from_pretrained(
        given.model, num_labels=len(labels), ignore_mismatched_sizes=True
    )
    if best:
        for child in model.modules():
            if isinstance(child, torch.nn.BatchNorm2d):
                child.momentum = 0.1
    more = faster() if best else {"dataloader_num_workers": 1}
    arguments = transformers.TrainingArguments(**schedule(given), **more, metric_for_best_model="macro_f1")

    def measured(found: Any) -> dict[str, float]:
        shares = torch.from_numpy(found[0]).softmax(-1).numpy()
        return {"macro_f1": single_label(np.asarray(found[1]), shares)["macro_f1"]}

    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        compute_metrics=measured,
    )
    begun = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - begun
    score = trainer.evaluate(data["test"])["eval_macro_f1"]
    return {"train": trained, "whole": time.perf_counter() - started, "score": score, "images": len(data["train"])}


def run_tunesmith(given: argparse.Namespace) -> dict[str, Any]:
    import tunesmith  # noqa: PLC0415

    started = time.perf_counter()
    settings = {
        "task": {"name": "image-classification", "metric": "macro_f1"}
        | ({"image_size": given.size} if given.size else {}),
        "model": str(given.model),
        "data": {"train": str(given.data / "splits.csv"), "split_column": "split", "input": "file", "target": "label"},
        "method": "full",
        "train": {"epochs": given.epochs, "batch_size": given.batch, "learning_rate": given.rate, "patience": 100},
        "evaluate": {"resamples": 200},
        "seed": given.seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        run = tunesmith.finetune(settings, run=Path(folder) / "run")
        report = json.loads(run.report.read_text())
    score = report["metrics"]["test"]["macro_f1"]["value"]
    seconds, images = report["training"]["seconds"], report["data"]["train"]
    return {"train": seconds, "whole": time.perf_counter() - started, "score": score, "images": images}


def contest(given: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """One contestant in a fresh process."""
    fixed = ["--epochs", str(given.epochs), "--batch", str(given.batch), "--rate", str(given.rate)]
    fixed += ["--size", str(given.size)] if given.size else []
    command = [sys.executable, __file__, str(given.data), "--model", str(given.model), *fixed]
    done = subprocess.run([*command, "--only", name, "--seed", str(seed)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--rate", type=float, default=1e-4)
    options.add_argument("--size", type=int, help="of the images, in pixels; absent, as the weights come")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--contestants", nargs="+", default=["tunesmith", "best", "tutorial"])
    options.add_argument("--only")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    if given.only:
        found = run_tunesmith(given) if given.only == "tunesmith" else run_trainer(given, given.only)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(found | {"peak": peak}))
        return
    print("| contestant | macro-F1 of each seed | mean | training | images a second | whole | peak memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in given.contestants:
        runs = [contest(given, name, seed) for seed in range(given.seeds)]
        train, whole = (statistics.mean(run[key] for run in runs) for key in ("train", "whole"))
        speed = given.epochs * runs[0]["images"] / train
        scores = [run["score"] for run in runs]
        told = ", ".join(f"{score:.3f}" for score in scores)
        peak = max(run["peak"] for run in runs) / 1e9
        cells = [
            name,
            told,
            f"{statistics.mean(scores):.3f}",
            f"{train:.1f} s",
            f"{speed:.0f}",
            f"{whole:.0f} s",
            f"{peak:.2f} GB",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
