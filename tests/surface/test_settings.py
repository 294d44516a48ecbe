"""Settings: unknown keys are refused with the nearest good one; the file and the flags say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith import settings, settings_file
from tunesmith.errors import SettingsError, TunesmithError
from tunesmith.plans import BatchShape, Phase, Plan, Row, Schedule
from tunesmith.registry import look_up


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": "x.csv", "modle": "a"}, "unknown key 'modle'; did you mean 'model'"),
        ({"data": {"train": "x.csv", "lable": "a"}}, r"unknown key 'data.lable'.*Known here: train, validation"),
        ({"data": "x.csv", "train": {"epoch": 3}}, "unknown key 'train.epoch'; did you mean 'epochs'"),
        ({}, "the key 'data' is missing"),
        ({"data": "x.csv", "train": {"epochs": "many"}}, r"train\.epochs = 'many' is not usable"),
        ({"data": "x.csv", "train": {"learning_rate": -1}}, r"train\.learning_rate = -1 is not usable"),
        ({"data": {"train": "x.csv", "split": [1, 2, 3]}}, "add up to 1"),
        ({"data": "x.csv", "seed": 1.5}, "seed = 1.5 is not usable"),
        ({"data": "x.csv", "train": {"epochs": 0}}, "should be 'auto' or input should be greater than 0"),
        ({"data": {"train": "x.csv", "separator": ""}}, "at least 1 character"),
        ({"data": ["a.csv"]}, r"data = \['a.csv'\] is not usable"),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_its_key(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings.parse(values)


def test_what_is_written_is_read_again_the_same(tmp_path: Path) -> None:
    first = settings.parse({"data": "x.csv", "method": {"name": "full", "layer_decay": 0.9}, "seed": 3})
    (tmp_path / "settings.yaml").write_text(settings_file.to_yaml(first))
    assert settings.parse(settings_file.read_yaml(tmp_path / "settings.yaml")) == first


def test_assignments_go_over_the_file_and_reach_inside_short_forms() -> None:
    values = settings_file.override(
        {"data": "x.csv", "method": "full"}, ["method.layer_decay=0.9", "train.epochs=5", "data.group=who"]
    )
    found = settings.parse(values)
    assert found.method.own == {"layer_decay": 0.9}
    assert found.train.epochs == 5
    assert (found.data.train, found.data.group) == ("x.csv", "who")


@pytest.mark.parametrize("values", [{"train": 3}, {"train": ["a"]}])
def test_an_assignment_into_what_holds_no_keys_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"train = .* holds no keys, so train\.epochs cannot be set"):
        settings_file.override(values, ["train.epochs=3"])


def test_the_cache_can_be_switched_off_as_the_docs_say() -> None:
    """YAML reads a plain off as false."""
    assert settings.parse(settings_file.override({"data": "x.csv"}, ["train.cache=off"])).train.cache == "off"


@pytest.mark.parametrize("content", ["a: [", "just words", "\x00"])
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.yaml").write_text(content)
    with pytest.raises(SettingsError, match=r"settings\.yaml"):
        settings_file.read_yaml(tmp_path / "settings.yaml")


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(TunesmithError, match="There is no method 'ful'; did you mean 'full'"):
        look_up("method", "ful", {"full": "x:y", "probe": "x:y"})


def plan(**changes: object) -> Plan:
    rows = (Row("embeddings", None), Row("head", 1e-3))
    values: dict[str, object] = {
        "method": "m",
        "phases": (Phase("p", "train", rows, 2),),
        "precision": "fp32",
        "batch": BatchShape(8, 512),
    }
    return Plan(**values | changes)  # type: ignore[arg-type]


def test_a_plan_that_breaks_a_rule_cannot_be_made() -> None:
    with pytest.raises(SettingsError, match="has none"):
        Row("head", 0.0)
    with pytest.raises(SettingsError, match="at least one rate"):
        Phase("p", "train", (Row("head", None),), 2)
    with pytest.raises(SettingsError, match="neither epochs nor rates"):
        Phase("p", "solve", (Row("head", 1e-3),))
    with pytest.raises(SettingsError, match="names a stage twice"):
        Phase("p", "solve", (Row("head", None), Row("head", None)))
    other = Phase("q", "train", (Row("head", 1e-3),), 1)
    with pytest.raises(SettingsError, match="every stage"):
        plan(phases=(*plan().phases, other))


def test_the_schedule_climbs_then_falls_to_nearly_nothing_and_is_never_zero() -> None:
    factors = [Schedule(0.1).factor(step, 100) for step in range(100)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert max(factors) == 1.0
    assert 0 < factors[-1] < 0.02
