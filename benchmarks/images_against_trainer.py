"""Image classification: Tunesmith's `full`, or what --method says, against transformers' Trainer; same weights, images,
batches, one run.

    python benchmarks/images_against_trainer.py DATA/magnetic-tile --model WEIGHTS/mobilenet-v2-1.0-224 --seeds 3

DATA holds splits.csv with the columns file, label and split. Each contestant runs in a process of its own. The Trainer has
two set-ups: *tutorial* (fp32, images read and processed when needed, as tutorials do) and *best* (native bf16, images
processed once and kept as tensors, warm-up). Both take the rate and the
number of epochs that Tunesmith has, unless --trainer-rate and --trainer-epochs say others, and keep the best epoch.
Batch normalisation of *best* takes a tenth of each batch into its statistics, as torch does by itself; some networks come
with another share from transformers, MobileNet with 0.997, and what is then measured has the statistics of the last batch.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from trainer_setup import faster, schedule


def rows_of(data: Path) -> dict[str, list[tuple[Path, str]]]:
    with open(data / "splits.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    found: dict[str, list[tuple[Path, str]]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        found[row["split"]].append((data / row["file"], row["label"]))
    return found


def run_trainer(given: argparse.Namespace, setup: str) -> dict[str, Any]:
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

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

    if given.size:
        processor.size = {"height": given.size, "width": given.size}
        processor.do_center_crop = False
    data = {name: Images(rows) for name, rows in splits.items()}
    torch.manual_seed(given.seed)
    model = transformers.AutoModelForImageClassification.from_pretrained(
        given.model, num_labels=len(labels), ignore_mismatched_sizes=True
    )
    if best:
        for child in model.modules():
            if isinstance(child, torch.nn.BatchNorm2d):
                child.momentum = 0.1
    more = faster() if best else {"dataloader_num_workers": 1}
    arguments = transformers.TrainingArguments(**schedule(given), **more, metric_for_best_model="macro_f1")

    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        compute_metrics=lambda found: {"macro_f1": macro_f1(np.stack([found[1], found[0].argmax(-1)], 1))},
    )
    begun = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - begun
    found = trainer.predict(data["test"])
    return {
        "train": trained,
        "whole": time.perf_counter() - started,
        "rows": np.stack([found.label_ids, found.predictions.argmax(-1)], 1).tolist(),
        "images": given.epochs * len(data["train"]) / trained,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def run_tunesmith(given: argparse.Namespace) -> dict[str, Any]:
    import pyarrow.parquet  # noqa: PLC0415

    import tunesmith  # noqa: PLC0415

    started = time.perf_counter()
    settings = {
        "task": {"name": "image-classification", "metric": "macro_f1"}
        | ({"image_size": given.size} if given.size else {}),
        "model": str(given.model),
        "data": {"train": str(given.data / "splits.csv"), "split_column": "split", "input": "file", "target": "label"},
        "method": given.method,
        "train": {"epochs": given.epochs, "batch_size": given.batch, "learning_rate": given.rate, "patience": 100},
        "evaluate": {"resamples": 200},
        "seed": given.seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        run = tunesmith.finetune(settings, run=Path(folder) / "run")
        report = json.loads(run.report.read_text())
        table = pyarrow.parquet.read_table(run.predictions).to_pylist()
    table.sort(key=lambda row: int(row["id"].split(":")[1]))
    labels = sorted({label for _, label in rows_of(given.data)["train"]})
    seconds = report["training"]["seconds"]
    rows = [[labels.index(row["truth"]), labels.index(row["prediction"])] for row in table]
    if abs(macro_f1(rows) - report["metrics"]["test"]["macro_f1"]["value"]) > 1e-9:
        raise SystemExit("the figure of the report is not that of its predictions")
    return {
        "train": seconds,
        "whole": time.perf_counter() - started,
        "rows": rows,
        "images": report["training"]["epochs"] * report["data"]["train"] / seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def macro_f1(rows: Any) -> float:
    """Of (rows, 2) true and found classes; a class that no row has and none was told does not count."""
    truth, told = np.asarray(rows).T
    right = [2 * ((truth == one) & (told == one)).sum() for one in np.union1d(truth, told)]
    either = [(truth == one).sum() + (told == one).sum() for one in np.union1d(truth, told)]
    return float(np.mean(np.divide(right, either)))


def main() -> None:
    names = ["tunesmith", "best", "tutorial"]
    options = side_by_side.options(__doc__, names, epochs=5, rate=1e-4, batch=16)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--size", type=int, help="of the images, in pixels; absent, as the weights come")
    given = options.parse_args()
    found = side_by_side.run(
        given, lambda given, name: run_tunesmith(given) if name == "tunesmith" else run_trainer(given, name)
    )
    for runs in found.values():
        for run in runs:
            run["score"] = macro_f1(run["rows"])
    columns = {
        "macro-F1 of each seed": side_by_side.each("score", "{:.3f}"),
        "mean": side_by_side.mean("score", "{:.3f}"),
        "training": side_by_side.mean("train"),
        "images a second": side_by_side.mean("images", "{:.0f}"),
        "whole": side_by_side.mean("whole"),
        "peak memory": side_by_side.most("peak", "{:.2f} GB", 1e-9),
    }
    side_by_side.table(found, columns)
    side_by_side.told(found, macro_f1, truth=0, form="{:+.3f}", scale=1)


if __name__ == "__main__":
    main()
