"""Real sources with their targets, from the folder shared/ beside the checkout; skipped, and said so, where it is absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.contracts import Loading
from tunesmith.data.cells.sources import SOURCES
from tunesmith.data.load import Dataset, load
from tunesmith.data.targets.texts import Texts
from tunesmith.metrics import renderings
from tunesmith.models.load_seq2seq import load_seq2seq
from tunesmith.settings import DataSettings
from tunesmith.tasks.rendered_texts import references_of
from tunesmith.tasks.seq2seq import Seq2Seq

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.real


def read(name: str, cache: Path) -> Dataset:
    if not (DATA / name).is_dir():
        pytest.skip(f"no folder shared/data/{name} beside the checkout")
    return load(DataSettings(train=str(DATA / name)), cache, 0, Texts("text"), SOURCES)


@pytest.mark.parametrize(("name", "sizes"), [("e2e", (487, 60, 630)), ("scitldr", (1992, 619, 618))])
def test_every_row_is_read_with_all_its_targets(tmp_path: Path, name: str, sizes: tuple[int, ...]) -> None:
    found = read(name, tmp_path)
    assert not found.rejected
    assert tuple(found.audit["rows"].values()) == sizes
    assert (found.columns.inputs, found.columns.targets) == (("source",), ("targets",))
    for split, rows in found.splits.items():
        raw = [json.loads(line) for line in (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert rows.column("input").to_pylist() == [row["source"] for row in raw]
        assert references_of(rows) == [[text for text in row["targets"] if text.strip()] for row in raw]


def test_a_target_measured_against_its_row_is_perfect(tmp_path: Path) -> None:
    rows = read("e2e", tmp_path).splits["test"].slice(0, 50)
    known = references_of(rows) or []
    found = renderings.intervals(renderings.counted([one[-1] for one in known], known), seed=0, resamples=100)
    assert found["rouge_l"].value == found["exact_match"].value == 1
    assert found["bleu"].value == pytest.approx(100)
    assert found["chrf"].value == pytest.approx(100)


def test_minilm_reads_abstracts_whole_and_learns_where_each_summary_ends(tmp_path: Path) -> None:
    rows = read("scitldr", tmp_path).splits["train"].slice(0, 200)
    task = Seq2Seq(Seq2Seq.Settings())
    model = task.load_model("builtin:minilm", (), seed=0)
    examples = task.encode(rows, model)
    cut = task.truncation(examples, model)
    assert cut["limit"] == 512
    assert cut["rows_cut"] == (examples.cut[:, 0] > 0).sum()
    assert cut["targets"]["rows_cut"] == 0
    ends = examples.target.offsets[1:] - 1
    assert (examples.target.wanted[ends] == model.processor.sep_token_id).all()
    again = load_seq2seq("builtin:minilm", seed=0, loading=Loading(), languages=(None, None), remote_code=False)
    assert [stage.name for stage in again.stages] == [
        "embeddings",
        *(f"block {number}" for number in range(12)),
        "head",
    ]
