"""Rows a second of audit and tokenising, and the memory that they take, on short rows made for the purpose.

    python benchmarks/data_speed.py --rows 1000000

The rows are sentences of 3 to 12 words from a vocabulary of 20,000, in 8 classes; a hundredth of them are repeats.
Everything runs in a process of its own; its peak memory is what the operating system says (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write(path: Path, rows: int) -> None:
    """A CSV of `rows` short texts with labels."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(20_000)]
    kept: list[str] = []
    with open(path, "w", encoding="utf-8") as handle:
        handle.write("text,label\n")
        for _ in range(rows):
            repeat = kept and draw.random() < 0.01
            text = draw.choice(kept) if repeat else " ".join(draw.choices(words, k=draw.randint(3, 12)))
            if len(kept) < 1000:
                kept.append(text)
            handle.write(f"{text},class {draw.randrange(8)}\n")


def measure(path: Path) -> dict[str, float]:
    """Seconds of each step and the peak memory of this process."""
    from tunesmith.data.load import load  # noqa: PLC0415
    from tunesmith.models.load import load_classifier  # noqa: PLC0415
    from tunesmith.models.tokenize import Reading, tokenize  # noqa: PLC0415
    from tunesmith.settings import DataSettings  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as cache:
        begun = time.perf_counter()
        dataset = load(DataSettings(train=str(path)), Path(cache), 0)
        audited = time.perf_counter()
        model = load_classifier("builtin:minilm", dataset.labels, "single-label", seed=0)
        loaded = time.perf_counter()
        rows = 0
        for split in dataset.splits.values():
            rows += len(tokenize(model.processor, split, None, Reading(model.limit)))
        ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rows": rows, "audit": audited - begun, "tokenise": ended - loaded, "peak_bytes": peak}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        write(path, given.rows)
        command = [sys.executable, __file__, "--measure", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    seconds = found["audit"] + found["tokenise"]
    print(f"rows            {found['rows']:,}")
    print(f"audit           {found['audit']:.1f} s, {found['rows'] / found['audit']:,.0f} rows/s")
    print(f"tokenise        {found['tokenise']:.1f} s, {found['rows'] / found['tokenise']:,.0f} rows/s")
    print(f"both            {seconds:.1f} s, {found['rows'] / seconds:,.0f} rows/s")
    print(f"peak memory     {found['peak_bytes'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
