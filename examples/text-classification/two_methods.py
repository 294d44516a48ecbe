"""Fine-tune the same model by two methods, compare them, and use the better one.

    python examples/text-classification/two_methods.py FOLDER_FOR_THE_RUNS

Run it from the root of the repository. It takes about two minutes on two cores.
"""

import sys
from pathlib import Path

import tunesmith

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
settings = {"data": {"train": "src/tunesmith/demo/tickets.csv", "input": "message", "target": "topic"}}

runs = {
    method: tunesmith.finetune(settings | {"method": method}, run=folder / f"tickets-{method}")
    for method in ("probe", "full")
}
for row in tunesmith.compare([run.folder for run in runs.values()])["runs"]:
    print(row)

message = "I was charged twice this month, please give one of them back"
for method, run in runs.items():
    print(method, tunesmith.load(run.folder).predict([message])[0]["prediction"])
