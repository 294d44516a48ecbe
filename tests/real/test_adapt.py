"""A real encoder goes on with its pre-training; skipped, and said so, where no folder shared/ lies beside the checkout."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import transformers

import tunesmith
from tunesmith.data.asked import NOTHING
from tunesmith.data.load import load_unlabelled
from tunesmith.data.masked import SHARE
from tunesmith.models import sources
from tunesmith.models.hidden_words import hidden_words
from tunesmith.settings import DataSettings

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.real


def questions(rows: int) -> tuple[list[str], list[list[str]]]:
    """Header and some rows of TREC."""
    if not (DATA / "trec").is_dir():
        pytest.skip("no folder shared/data/trec beside the checkout")
    with open(DATA / "trec" / "train.csv", newline="", encoding="utf-8") as handle:
        header, *table = csv.reader(handle)
    return header, table[:rows]


def test_words_of_real_questions_are_hidden_whole_in_their_share(tmp_path: Path) -> None:
    questions(0)
    found = load_unlabelled(DataSettings(train=str(DATA / "trec" / "train.csv"), input="text"), tmp_path, 0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(sources.locate("builtin:minilm"))
    rows = found.splits["train"]
    hidden = hidden_words(tokenizer, rows, 128, 0)
    assert hidden.left_out == 0
    begins = np.diff(hidden.words, prepend=-1) > 0
    asked = hidden.wanted != NOTHING
    assert asked[begins].mean() == pytest.approx(SHARE, abs=0.01)
    continued = np.char.startswith(np.array(tokenizer.convert_ids_to_tokens(hidden.whole.tolist())), "##")
    assert np.array_equal(asked[1:][continued[1:]], asked[:-1][continued[1:]])


def test_minilm_learns_to_tell_hidden_words_and_starts_a_task_from_there(tmp_path: Path) -> None:
    header, table = questions(400)
    with open(tmp_path / "few.csv", "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *table])
    wanted = {
        "data": {"train": str(tmp_path / "few.csv"), "input": "text", "target": "label"},
        "adapt": {"epochs": 1},
        "method": "probe",
        "evaluate": {"resamples": 100},
    }
    run = tunesmith.finetune(wanted, run=tmp_path / "run")
    report = json.loads(run.report.read_text())
    inner = json.loads(run.adaptation.report.read_text())
    guessing = transformers.AutoConfig.from_pretrained(run.adaptation.model).vocab_size
    assert inner["metrics"]["test"]["masked_perplexity"]["value"] < guessing / 10
    assert report["adapt"]["texts"] == inner["data"]["train"]
    assert "without_adapt" in report["baselines"]
    assert any("so it is new" in reason for reason in inner["plan"]["reasons"])
