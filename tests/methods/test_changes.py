"""Lines of a plan that the user sets by hand."""

from __future__ import annotations

from typing import Any

import pytest

import tunesmith
from tunesmith.errors import SettingsError
from tunesmith.settings_file import override


def lines(plan: dict[str, Any], phase: int = -1) -> dict[str, dict[str, Any]]:
    return {row["stage"]: row for row in plan["phases"][phase]["rows"]}


def planned(settings: dict[str, Any], *assignments: str) -> dict[str, Any]:
    return tunesmith.plan(override(settings, assignments))


def test_any_line_of_a_plan_can_be_set(settings: dict[str, Any]) -> None:
    plan = planned(
        settings,
        "plan.block 1.learning_rate=2e-5",
        "plan.embeddings.learning_rate=frozen",
        "plan.block 0.part=biases",
        "plan.head.weight_decay=0.3",
        "plan.all weights.epochs=7",
        "plan.all weights.schedule=cosine",
        "plan.all weights.warmup=0.25",
    )
    rows, before = lines(plan), lines(planned(settings))
    assert rows["block 1"]["learning_rate"] == 2e-5
    assert rows["embeddings"]["learning_rate"] is None
    assert rows["embeddings"]["trained"] == 0
    assert 0 < rows["block 0"]["trained"] < rows["block 0"]["parameters"]
    assert rows["head"]["weight_decay"] == 0.3
    assert rows["head"]["learning_rate"] == before["head"]["learning_rate"]
    assert plan["phases"][-1]["epochs"] == 7
    assert plan["phases"][-1]["schedule"] == {"name": "cosine", "warmup": 0.25}
    assert "plan.embeddings" in plan["reasons"][-1]


def test_a_line_may_differ_in_one_phase_alone(settings: dict[str, Any]) -> None:
    plan = planned(settings | {"method": "gradual"}, "plan.from block 1 up.head.learning_rate=1e-6")
    rates = [lines(plan, number)["head"]["learning_rate"] for number in range(1, len(plan["phases"]))]
    changed = [phase["name"] == "from block 1 up" for phase in plan["phases"][1:]]
    assert [rate == 1e-6 for rate in rates] == changed
    assert any(changed)


def test_a_stage_that_thaws_decays_as_others_do(settings: dict[str, Any]) -> None:
    plan = planned(settings | {"method": {"name": "partial", "last": 1}}, "plan.block 0.learning_rate=1e-5")
    rows = lines(plan)
    assert rows["block 0"]["weight_decay"] == rows["block 1"]["weight_decay"] > 0


def test_beside_adapters_a_stage_without_any_cannot_train(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="puts no adapter there"):
        planned(settings | {"method": "lora"}, "plan.embeddings.learning_rate=1e-4")


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("plan.block 9.learning_rate=1", "did you mean 'block"),
        ("plan.block 1.learnin_rate=1", "did you mean 'learning_rate'"),
        ("plan.block 1.learning_rate=0", "greater than 0"),
        ("plan.all weights.epoch=1", "did you mean 'epochs'"),
        ("method=auto", "not for auto"),
    ],
)
def test_a_line_that_no_plan_can_hold_is_refused(settings: dict[str, Any], assignment: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        planned(settings, "plan.head.learning_rate=1e-3", assignment)
