"""Real preferences and a real language model, from the folder shared/ beside the checkout; skipped where it is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tunesmith.data.load import Dataset
from tunesmith.metrics.preference import PRIMARY
from tunesmith.models.forward import logits
from tunesmith.settings import DataSettings
from tunesmith.tasks.preference import Preference

SHARED = Path(__file__).parents[3] / "shared"
ROWS = 24


@pytest.fixture
def read(tmp_path: Path) -> Dataset:
    if not (SHARED / "data" / "dpo-300").is_dir():
        pytest.skip("no folder shared/data/dpo-300 beside the checkout")
    return Preference(Preference.Settings()).load_data(
        DataSettings(train=str(SHARED / "data" / "dpo-300")), tmp_path / "cache", 0
    )


def test_real_pairs_are_read_whole(read: Dataset) -> None:
    assert read.problem == "chat"
    assert sum(rows.num_rows for rows in read.splits.values()) + len(read.rejected) == 295
    assert not read.rejected
    assert read.splits["test"].num_rows == 59
    train, test = (set(read.splits[split].column("input").to_pylist()) for split in ("train", "validation"))
    assert not train & test


def test_a_real_network_has_no_rewards_before_training_and_the_cut_is_told_by_side(read: Dataset) -> None:
    if not (SHARED / "weights" / "gpt2-books").is_dir():
        pytest.skip("no folder shared/weights/gpt2-books beside the checkout")
    task = Preference(Preference.Settings(problem="chat", chat_template="chatml", max_length=64))
    model = task.load_model(str(SHARED / "weights" / "gpt2-books"), [], seed=0)
    rows: pa.Table = read.splits["test"].slice(0, ROWS)
    examples = task.anchored(task.encode(rows, model), model, "fp32")
    found = task.score(examples, logits(task, model, examples, "fp32"))
    assert found["loss"] == pytest.approx(np.log(2))
    assert found[PRIMARY] == 0.5
    cut = task.truncation(examples, model)
    assert 0 < cut["sides"]["chosen"] <= cut["rows_cut"] <= ROWS
    assert 0 < cut["sides"]["rejected"] <= cut["rows_cut"]
    assert (examples.reference < 0).all()
