"""Retention: the same rows, the original backbone before and the fine-tuned one after, behind the right head."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import tunesmith
from references import ready_of, referred
from tiny import write_model, write_rows
from tunesmith import seeds
from tunesmith.errors import DataError, SettingsError
from tunesmith.evaluate import capability, retention, wise_ft
from tunesmith.models.activations import features
from tunesmith.models.adapters import merge
from tunesmith.models.backbones import weights_of
from tunesmith.models.probes import with_head


@pytest.fixture(scope="module")
def reference_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("reference") / "rows.csv", rows=1000, seed=7)


@pytest.fixture
def headed(tmp_path: Path) -> Path:
    """A BERT that brings a head for two classes, in another order and case than the rows have."""
    folder = write_model(tmp_path / "headed")
    torch.manual_seed(3)
    names = {0: "Good", 1: "BAD"}
    config = transformers.AutoConfig.from_pretrained(folder, id2label=names, label2id={"Good": 0, "BAD": 1})
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder, config=config)
    with torch.no_grad():
        module.classifier.weight.mul_(50)
    module.save_pretrained(folder)
    return folder


def test_an_unchanged_backbone_keeps_everything(settings: dict[str, Any], reference_rows: Path, tmp_path: Path) -> None:
    ready = ready_of(settings, tmp_path)
    before = {name: tensor.clone() for name, tensor in ready.model.module.state_dict().items()}
    reference = referred(ready, reference_rows, tmp_path)
    found = retention.measure(reference, ready.model)
    assert found.kept == 1.0
    assert found.primary.difference.as_dict() == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found.primary.before.value > 0.6  # the rows can be told apart, so there is something to lose
    assert found.neighbours is not None
    assert found.neighbours.before == found.neighbours.after
    assert list(found.cka) == ["embeddings", "block 0", "block 1"]
    assert list(found.cka.values()) == pytest.approx([1.0] * 3)
    assert all(torch.equal(before[name], tensor) for name, tensor in ready.model.module.state_dict().items())
    assert json.dumps(found.as_dict())


def test_a_damaged_backbone_is_found_out_and_the_original_is_measured_as_before(
    settings: dict[str, Any], reference_rows: Path, tmp_path: Path
) -> None:
    ready = ready_of(settings, tmp_path)
    reference = referred(ready, reference_rows, tmp_path)
    broken = dataclasses.replace(ready.model, module=copy.deepcopy(ready.model.module))
    with torch.no_grad():
        broken.module.bert.embeddings.word_embeddings.weight.zero_()
    found = retention.measure(reference, broken)
    assert found.kept < 0.9
    assert retention.kept(reference, broken) < 0.9  # on the validation rows
    assert retention.kept(reference, ready.model) == 1.0
    assert found.primary.difference.high < 0
    assert found.neighbours is not None
    assert found.neighbours.after.value < found.neighbours.before.value
    assert found.cka.get("block 0", 0.0) < 0.9
    assert retention.measure(reference, ready.model).kept == 1.0


def test_the_checkpoints_own_head_is_put_behind_either_backbone(
    settings: dict[str, Any], reference_rows: Path, headed: Path, tmp_path: Path
) -> None:
    ready = ready_of(settings | {"model": str(headed)}, tmp_path)
    reference = referred(ready, reference_rows, tmp_path)
    assert (reference.data.head, reference.before.neighbours) == ("own", None)
    texts = reference.data.rows["test"].column("input").to_pylist()
    truth = reference.data.rows["test"].column("target").to_numpy()
    labels = [name.casefold() for name in ("bad", "good")]  # as the data have them, sorted
    for change in (0.0, 0.5):
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(headed).eval()
        tuned = dataclasses.replace(ready.model, module=copy.deepcopy(ready.model.module))
        for module in (theirs, tuned.module):
            with torch.no_grad():
                module.bert.encoder.layer[0].output.dense.weight.add_(change)
        tokens = transformers.AutoTokenizer.from_pretrained(headed)
        with torch.no_grad():
            said = theirs(**tokens(texts, padding=True, return_tensors="pt")).logits.argmax(1)
        right = np.mean(
            [labels.index({0: "good", 1: "bad"}[int(one)]) == row for one, row in zip(said, truth, strict=True)]
        )
        assert retention.measure(reference, tuned).primary.after.value == pytest.approx(right)


def test_which_head_is_used_is_decided_by_names_or_by_the_user(
    settings: dict[str, Any], reference_rows: Path, headed: Path, tmp_path: Path
) -> None:
    ready = ready_of(settings | {"model": str(headed)}, tmp_path)
    other = tmp_path / "other.csv"
    other.write_text(reference_rows.read_text().replace(",good", ",fine"))
    assert referred(ready, other, tmp_path / "a").data.head == "probe"
    with pytest.raises(SettingsError, match="its labels are 'Good', 'BAD', those of the data 'bad', 'fine'"):
        referred(ready, other, tmp_path / "b", head="own")
    said: list[str] = []
    assert referred(ready, other, tmp_path / "c", said, head="own-in-order").data.head == "own"
    assert any("labels taken in order: Good is bad, BAD is fine" in sentence for sentence in said)
    assert referred(ready, reference_rows, tmp_path / "d", head="probe").data.head == "probe"
    # A checkpoint may name labels and bring no head for them.
    bare = write_model(tmp_path / "bare")
    config = json.loads((bare / "config.json").read_text()) | {"id2label": {"0": "bad", "1": "good"}}
    (bare / "config.json").write_text(json.dumps(config))
    plain = ready_of(settings | {"model": str(bare)}, tmp_path / "plain")
    assert referred(plain, reference_rows, tmp_path / "e").data.head == "probe"
    with pytest.raises(SettingsError, match="brings no weights of a head"):
        referred(plain, reference_rows, tmp_path / "f", head="own")


def test_adapters_and_other_poolings_are_measured_as_what_they_amount_to(
    settings: dict[str, Any], reference_rows: Path, tmp_path: Path
) -> None:
    ready = ready_of(settings | {"method": "lora"}, tmp_path)
    reference = referred(ready, reference_rows, tmp_path)
    with torch.no_grad():
        for name, parameter in ready.model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    apart = retention.measure(reference, ready.model)
    merged = merge(ready.model)
    assert retention.measure(reference, merged).primary == apart.primary
    assert apart.cka["block 1"] < 0.999
    pooled = with_head(merged, dataclasses.replace(reference.probe, pooling="mean"))
    assert pooled.backbone == "backbone"
    assert retention.measure(reference, pooled).primary == apart.primary


def test_the_rehearsal_has_the_original_backbone_and_the_probe_whatever_was_measured(
    settings: dict[str, Any], reference_rows: Path, tmp_path: Path
) -> None:
    ready = ready_of(settings, tmp_path)
    reference = referred(ready, reference_rows, tmp_path, rows=60)
    rehearsal = reference.rehearsal()
    assert rehearsal.examples.rows == 60
    before = {name: tensor.clone() for name, tensor in rehearsal.model.module.state_dict().items()}
    other = dataclasses.replace(ready.model, module=copy.deepcopy(ready.model.module))
    with torch.no_grad():
        other.module.bert.encoder.layer[1].output.dense.weight.add_(1.0)
    retention.measure(reference, other)
    assert all(torch.equal(before[name], tensor) for name, tensor in rehearsal.model.module.state_dict().items())
    original = weights_of(ready.model, whole=False)
    again = weights_of(rehearsal.model, whole=False)
    assert all(torch.equal(original[name], again[name]) for name in original)


def test_reference_rows_that_are_training_rows_are_counted(
    settings: dict[str, Any], rows: Path, reference_rows: Path, tmp_path: Path
) -> None:
    ready = ready_of(settings, tmp_path)
    apart = referred(ready, reference_rows, tmp_path / "a")
    same = referred(ready, rows, tmp_path / "b", data={"train": str(reference_rows), "test": str(rows)}, rows=1000)
    said: list[str] = []
    one, other = retention.compared([apart, same], ready.task, ready.dataset.splits["train"], 0.9, said.append)
    assert one.warning is None
    assert other.warning is not None
    assert other.warning.startswith(
        "96 of 120 test rows of the reference 'other' (80.0 %) stand, exactly or nearly, among"
    )
    assert said == [f"Note: {other.warning}"]


def test_a_run_reports_what_it_kept_and_mixes_by_it(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference_rows = write_rows(tmp_path / "other.csv", rows=200, seed=7)
    assert pytest.approx(np.linspace(0, 1, 11)) == wise_ft.ALPHAS
    monkeypatch.setattr(wise_ft, "ALPHAS", (0.0, 0.5, 1.0))
    settings["evaluate"] |= {"retention": [{"name": "other", "data": str(reference_rows), "rows": 100}]}
    settings["train"] |= {"wise_ft": True, "retain": 0.9}
    said: list[Any] = []
    run = tunesmith.finetune(settings, run=tmp_path / "run", listen=said.append)
    report = json.loads(run.report.read_text())
    (entry,) = report["retention"]
    assert {"name", "metric", "before", "after", "difference", "kept", "cka", "neighbours"} <= set(entry)
    assert [point["alpha"] for point in report["wise_ft"]] == [0.0, 0.5, 1.0]
    assert report["wise_ft"][0]["retention"]["other"] == 1.0  # the backbone as it was
    chosen = next(point for point in report["wise_ft"] if point["alpha"] == report["mixture"]["alpha"])
    assert chosen["metric"] == max(p["metric"] for p in report["wise_ft"] if p["retention"]["other"] >= 0.9)
    assert entry["kept"] == entry["after"]["value"] / entry["before"]["value"]
    page = run.page.read_text().replace("\u00a0", " ")
    assert "What it still knows" in page
    assert ("Everywhere at least the 90 % that train.retain asks for is kept." in page) == (entry["kept"] >= 0.9)
    assert any(isinstance(one, str) and one.startswith("Reference 'other'") for one in said)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"retain": 0.9}, "evaluate.retention names no reference data"),
        ({"replay": 0.2}, "evaluate.retention names no rows to replay"),
        ({"swa": 0.3, "ema": 0.9}, "both say which average is kept"),
        ({"r_drop": 1.0}, "train.dropout is 0"),
    ],
)
def test_keys_that_make_no_sense_together_are_refused(
    settings: dict[str, Any], train: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        tunesmith.plan(settings | {"train": settings["train"] | train})


def test_a_reference_that_cannot_be_read_is_named(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluate\.retention 'other': There is no data file .*gone\.csv"):
        referred(ready_of(settings, tmp_path), tmp_path / "gone.csv", tmp_path)


def test_a_plan_notices_that_a_reference_is_not_there(settings: dict[str, Any]) -> None:
    wanted = settings | {"evaluate": {"retention": [{"name": "gone", "data": "nowhere.csv"}]}}
    with pytest.raises(DataError, match=r"evaluate.retention 'gone': There is no data file nowhere\.csv"):
        tunesmith.plan(wanted)


def test_a_reference_with_a_wrong_key_or_a_name_twice_is_refused(settings: dict[str, Any]) -> None:
    one = {"name": "other", "data": "x.csv"}
    with pytest.raises(SettingsError, match=r"unknown key 'evaluate.retention.0.haed'; did you mean 'head'"):
        tunesmith.plan(settings | {"evaluate": {"retention": [one | {"haed": "own"}]}})
    with pytest.raises(SettingsError, match="a name of its own"):
        tunesmith.plan(settings | {"evaluate": {"retention": [one, one]}})


def test_stages_are_compared_on_rows_of_all_classes(
    settings: dict[str, Any], reference_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are often sorted by class, so that their first rows are of a few."""
    monkeypatch.setattr(capability, "COMPARED_ROWS", 20)
    reference = referred(ready_of(settings, tmp_path), reference_rows, tmp_path)
    rows = reference.data.rows["test"].num_rows
    chosen = seeds.generator(0, "compared rows").permutation(rows)[:20]
    assert max(chosen) > 20
    data = reference.data
    given = data.batched("test")
    whole = features(data.model, ["final"], given.examples.lengths, given.collate, "fp32")["final"]
    *_, last = reference.before.stages.values()
    np.testing.assert_allclose(last, whole[chosen], atol=1e-5)


def test_virtual_tokens_leave_reference_rows_as_little_room_as_the_run_has(
    settings: dict[str, Any], reference_rows: Path, tmp_path: Path
) -> None:
    ready = ready_of(settings | {"method": {"name": "prompt", "tokens": 10}}, tmp_path)
    reference = referred(ready, reference_rows, tmp_path)
    assert reference.data.model.limit == ready.model.limit == 54


def test_a_network_of_four_bits_has_no_retention(
    settings: dict[str, Any], reference_rows: Path, tmp_path: Path
) -> None:
    ready = ready_of(settings, tmp_path)
    packed = dataclasses.replace(ready, model=dataclasses.replace(ready.model, four_bit=True))
    with pytest.raises(SettingsError, match="weights of 4 bits"):
        referred(packed, reference_rows, tmp_path)


@pytest.mark.parametrize("guard", ["l2_sp", "ewc", "distil", "wise_ft"])
def test_from_scratch_there_is_nothing_to_hold_on_to(settings: dict[str, Any], guard: str) -> None:
    value = True if guard == "wise_ft" else 0.1
    with pytest.raises(SettingsError, match=f"train.{guard} holds on to the pre-trained network"):
        tunesmith.plan(settings | {"method": "scratch", "train": {**settings["train"], guard: value}})


def test_from_scratch_retention_is_against_the_pre_trained_network(
    settings: dict[str, Any], reference_rows: Path, tmp_path: Path
) -> None:
    found = []
    for method in ("scratch", "probe"):
        given = settings | {
            "method": method,
            "evaluate": {"retention": [{"name": "other", "data": str(reference_rows)}]},
        }
        done = tunesmith.finetune(given, run=tmp_path / method)
        found.append(json.loads(done.report.read_text())["retention"][0])
    assert found[0]["before"] == found[1]["before"]
    assert found[0]["cka"] != found[1]["cka"]
