"""What trl's DPOTrainer makes of the rows and networks of tests/tasks/test_preference.py, beside what Tunesmith makes.

    python -m venv --system-site-packages apart && apart/bin/pip install trl==1.16.0
    apart/bin/python benchmarks/preference_trl.py

The reference is the GPT-2 of the contract tests, the policy the same with noise on its weights; trl is given a blank before
each answer, as it joins texts as they stand.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
import transformers
import trl

from tunesmith.models.forward import logits
from tunesmith.tasks.preference import Preference
from tunesmith.tasks.tiny_preferences import write_pairs
from tunesmith.tasks.tiny_prompts import write_gpt2

LOSSES = {"dpo": "sigmoid", "ipo": "ipo", "hinge": "hinge"}
ROWS = 8


def moved(module: Any) -> Any:
    """`module` with noise on its weights."""
    with torch.no_grad():
        torch.manual_seed(1)
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def theirs(folder: Path, rows: list[dict[str, str]], loss: str, scratch: Path) -> dict[str, float]:
    """What `evaluate` of trl's trainer gives."""
    joined = [{name: text if name == "prompt" else f" {text}" for name, text in row.items()} for row in rows]
    data = datasets.Dataset.from_list(joined)
    how = trl.DPOConfig(
        output_dir=str(scratch), loss_type=[loss], report_to=[], use_cpu=True, bf16=False, max_length=None
    )
    open_ = transformers.GPT2LMHeadModel.from_pretrained
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    trainer = trl.DPOTrainer(
        moved(open_(folder)), open_(folder), args=how, train_dataset=data, eval_dataset=data, processing_class=tokenizer
    )
    found = trainer.evaluate()
    return {name: found[f"eval_{name}"] for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins")}


def ours(folder: Path, rows: list[dict[str, str]], loss: str) -> dict[str, float]:
    """The same figures of Tunesmith."""
    task = Preference(Preference.Settings.model_validate({"loss": loss}))
    before, policy = (task.load_model(str(folder), [], seed=0) for _ in range(2))
    moved(policy.module)
    cells = {name: [row[name] for row in rows] for name in ("prompt", "chosen", "rejected")}
    read = pa.table({"id": [str(row) for row in range(len(rows))], "input": cells.pop("prompt"), **cells})
    examples = task.anchored(task.encode(read, before), before, "fp32")
    return dict(task.score(examples, logits(task, policy, examples, "fp32")))  # type: ignore[arg-type]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = write_gpt2(scratch / "model")
        rows = [json.loads(line) for line in write_pairs(scratch / "rows.jsonl", ROWS).read_text().splitlines()]
        for loss, their_name in LOSSES.items():
            print(loss, "trl", theirs(folder, rows, their_name, scratch / "out"))
            print(loss, "tunesmith", ours(folder, rows, loss))


if __name__ == "__main__":
    main()
