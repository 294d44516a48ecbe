"""Several plans tried within a budget: which come next, which one wins, and what a kill in the middle changes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies

import tunesmith
from tunesmith import api, budget, prepare, record, run, settings, settings_file
from tunesmith.errors import SettingsError
from tunesmith.plans import BatchShape, Frontier, Phase, Plan, Row
from tunesmith.train import choice, frontier
from tunesmith.train.choice import LEAST_SHARE, SLACK, Limits, Option, expected, following, time_of, winner
from tunesmith.train.events import Event, LeftOut, StepDone, Trained, Tried, Trying
from tunesmith.train.frontier import Means, Watch, alone, explore
from tunesmith.train.trial import Predicted

parse = settings.parse
AUTO = {"name": "auto", "candidates": ["probe", {"name": "partial", "last": 1}, "full"]}


def option(name: str, seconds: float, *, memory: int = 10, trained: int = 5) -> Option:
    row = Row("head", 1e-3)
    plan = Plan(name, (Phase("all", "train", (row,), 1),), "fp32", BatchShape(8, 64))
    return Option(plan, {"parameters_trainable": trained}, Predicted(seconds, memory, 0.0, seconds, 0.0, 0.0))


def entry(name: str, value: float, retention: float | None = None, *, cost: float = 1.0, epochs: int = 1) -> Tried:
    metric = {"value": value, "low": value - 0.02, "high": value + 0.02}
    return Tried(name, name, 1, cost, metric, 1.0, epochs, 1, retention=retention)


OPTIONS = [option("probe", 0.0), option("small", 20.0), option("middle", 40.0), option("large", 100.0)]


@pytest.mark.parametrize(
    ("done", "left", "expected"),
    [
        ((), 0.0, "probe"),
        (("probe",), 500.0, "small"),
        (("probe", "small"), 480.0, "middle"),
        (("probe", "small", "middle"), 440.0, "large"),
        (("probe",), 1.3 * 110, "large"),  # nothing else fits beside it
        (("probe",), 1.3 * 130, "small"),
        (("probe", "small"), 1.3 * 110, "large"),
        (("probe",), 1.3 * 35, "large"),  # with more than a third of its steps
        (("probe",), 1.3 * 25, "middle"),
        (("probe", "middle"), 5.0, None),
        (("probe",), 7.0, None),
        (("probe", "small", "middle", "large"), 1000.0, None),
    ],
)
def test_time_is_kept_for_the_fullest_plan_that_fits(done: Sequence[str], left: float, expected: str | None) -> None:
    found = following(OPTIONS, done, left)
    assert (found.label if found else None) == expected


def test_time_is_kept_for_who_is_preferred_and_there_is_enough_of_it() -> None:
    """Of few rows all others are quick, and time that goes by what they take would leave none for it."""
    options = [
        option("probe", 0.0),
        option("small", 20.0),
        option("long", 300.0, trained=1),
        option("full", 40.0, trained=9),
    ]
    assert time_of(options, Limits()) == 2 * 40.0
    wanted = Limits(preferred="long")
    assert time_of(options, wanted) == 2 * 300.0
    assert set(expected(options, wanted)) == {"probe", "small", "long", "full"}
    assert "long" not in expected(options, Limits())
    chosen = following(options, ("probe",), 1.3 * 310, "long")
    assert chosen is options[2]  # nothing else fits beside it


@given(strategies.lists(strategies.floats(0.1, 100), min_size=1, max_size=6, unique=True), strategies.floats(0, 400))
def test_what_is_tried_fits_into_the_time(costs: list[float], left: float) -> None:
    """When every plan takes what was predicted, whole or shortened as far as allowed, the time is kept."""
    options = [option("probe", 0.0), *(option(f"plan {cost}", cost) for cost in costs)]
    done, spent = ["probe"], 0.0
    while (chosen := following(options, done, left - spent)) is not None:
        done.append(chosen.label)
        spent += SLACK * chosen.seconds * chosen.share(left - spent)
    assert spent <= left + 1e-6
    assert all(one.label in done or one.share(left - spent) < LEAST_SHARE for one in options)


def test_the_best_on_validation_wins_and_of_equals_the_cheaper() -> None:
    tried = [entry("probe", 0.8), entry("large", 0.9, cost=9.0), entry("small", 0.9)]
    assert winner(tried, Limits()) is tried[2]
    assert winner([], Limits()) is None


def test_who_is_preferred_gives_way_only_to_what_is_better_beyond_its_interval() -> None:
    tried = [entry("probe", 0.8), entry("contrastive", 0.79), entry("full", 0.805)]
    low, high = tried[1].metric["low"], tried[1].metric["high"]
    assert high > 0.805
    assert winner(tried, Limits(preferred="contrastive")) is tried[1]
    assert winner([*tried, entry("large", high + 0.01)], Limits(preferred="contrastive")).label == "large"  # type: ignore[union-attr]
    assert winner(tried[:1], Limits(preferred="contrastive")) is tried[0]
    assert winner(tried, Limits(preferred="contrastive", sign=-1)) is tried[1]  # less is better
    assert winner([*tried, entry("small", low - 0.01)], Limits(preferred="contrastive", sign=-1)).label == "small"  # type: ignore[union-attr]


def test_who_forgets_too_much_does_not_win() -> None:
    tried = [entry("probe", 0.8, 1.0), entry("small", 0.85, 0.96), entry("large", 0.9, 0.7)]
    assert winner(tried, Limits(retention=0.95)) is tried[1]
    assert winner(tried[1:], Limits(retention=0.99)) is tried[1]
    assert winner(tried, Limits()) is tried[2]


def test_plans_beyond_the_limits_are_named_with_the_reason() -> None:
    assert Limits(memory_bytes=5).exceeded(OPTIONS[1]) == "it is predicted to need 0.0 GB"
    assert Limits(parameters=4).exceeded(OPTIONS[1]) == "it trains 5 parameters"
    assert Limits(memory_bytes=10, parameters=5).exceeded(OPTIONS[1]) is None


def curve(*metrics: float) -> list[dict[str, float]]:
    return [{"epoch": number, "metric": metric} for number, metric in enumerate(metrics, 1)]


@pytest.mark.parametrize(
    ("metrics", "left", "stopped"),
    [
        ((0.5,), 3, False),  # less than a third of the way
        ((0.5, 0.6), 4, False),  # four more gains like the last one reach it
        ((0.5, 0.6), 2, True),
        ((0.5, 0.45), 4, True),
        ((0.6, 0.55), 3, False),  # a single fall is noise
        ((0.895, 0.89), 2, False),  # within the noise of the measurement
        ((0.95,), 1, False),
    ],
)
def test_a_curve_that_cannot_reach_the_best_is_stopped(metrics: tuple[float, ...], left: int, *, stopped: bool) -> None:
    watch = Watch([entry("probe", 0.4, epochs=0), entry("best", 0.9)], until=float("inf"))
    assert (watch.after_epoch(curve(*metrics), left) is not None) == stopped
    assert Watch([], until=float("inf")).after_epoch(curve(*metrics), left) is None


def test_a_gain_is_counted_from_the_probe_or_from_the_epoch_before() -> None:
    """Another method's end is not where this one starts."""
    watch = Watch([entry("full", 0.9)], until=float("inf"))
    assert watch.after_epoch(curve(0.84), 2) is None
    assert watch.after_epoch(curve(0.84, 0.841), 1) is not None


def test_a_curve_that_fell_below_the_probe_climbs_from_where_it_fell_to() -> None:
    """Seen on magnetic tiles: it was stopped at 0.60, as the probe had 0.65, and reaches 0.83."""
    watch = Watch([entry("probe", 0.65, epochs=0), entry("full", 0.8)], until=float("inf"))
    assert watch.after_epoch(curve(0.42, 0.52, 0.6), 5) is None
    assert watch.after_epoch(curve(0.42, 0.52, 0.6), 1) is not None
    sank = curve(0.6, 0.48, 0.4, 0.45, 0.5, 0.53)  # convolutions may fall for longer
    assert watch.after_epoch(sank, 12) is None
    assert watch.after_epoch(sank, 4) is not None
    assert watch.after_epoch(curve(0.6, 0.55, 0.5), 6) is not None  # nothing climbs yet


def test_plans_that_cannot_fit_are_spared_their_trials(several: dict[str, Any], tmp_path: Path) -> None:
    ready = prepare.prepare(parse(several), tmp_path / "cache", torch.device("cpu"), lambda _: None)
    job = api._jobs(ready, run.Run(tmp_path), ())
    timed = record.tried_out(ready, job, lambda _: 1e6)
    assert all(one.predicted.timed for one in timed)
    spared = record.tried_out(ready, job, lambda _: 0.0)
    assert [one.predicted.timed for one in spared] == [True, False, False]
    assert all(one.share(0.0) < LEAST_SHARE for one in spared[1:])
    for one in spared[1:]:  # less than any step could take on the same rows
        assert 0 < one.predicted.stepping < 1e6


def begin(values: dict[str, Any], folder: Path) -> tuple[list[Option], Means]:
    ready = prepare.prepare(settings.parse(values), folder / "cache", torch.device("cpu"), lambda _: None)
    job = api._jobs(ready, run.Run(folder), ())
    options = record.tried_out(ready, job)
    slow = [  # long enough for all, in an order that no busy machine changes
        dataclasses.replace(one, predicted=dataclasses.replace(one.predicted, seconds=1e3, stepping=1e-6 * one.trained))
        for one in options
    ]

    def judge(trained: Trained) -> frontier.Judged:
        return budget.judge(ready, (), trained)

    return slow, Means(job, judge, record.tests_rates(ready), folder / "checkpoints")


@pytest.fixture
def several(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"method": AUTO, "train": {**settings["train"], "epochs": 2, "checkpoint_seconds": 0}}


def weights(events: Iterator[Event]) -> tuple[Trained, dict[str, torch.Tensor], list[Event]]:
    seen = list(events)
    last = seen[-1]
    assert isinstance(last, Trained)
    return last, {name: tensor.clone() for name, tensor in last.model.module.state_dict().items()}, seen


def test_a_frontier_that_is_killed_anywhere_ends_as_if_it_never_was(several: dict[str, Any], tmp_path: Path) -> None:
    options, means = begin(several, tmp_path / "whole")
    whole, expected, events = weights(explore(options, Limits(), means))
    assert [event.label for event in events if isinstance(event, Trying)] == ["probe", "partial, last 1", "full"]
    steps = sum(isinstance(event, StepDone) for event in events)
    assert steps
    for stop_after in (1, steps // 2, steps - 2):
        folder = tmp_path / f"cut {stop_after}"
        done = 0
        options, means = begin(several, folder)
        cut = explore(options, Limits(), means)
        for event in cut:
            done += isinstance(event, StepDone)
            if done == stop_after:
                break
        cut.close()  # type: ignore[attr-defined]
        options, means = begin(several, folder)
        resumed, found, rest = weights(explore(options, Limits(), means))
        assert resumed.plan == whole.plan
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        assert sum(isinstance(event, StepDone) for event in rest) == steps - stop_after
        assert [one.label for one in resumed.frontier] == [one.label for one in whole.frontier]
        for one, other in zip(resumed.frontier, whole.frontier, strict=True):
            assert isinstance(one, Tried)
            assert isinstance(other, Tried)
            assert one.metric == other.metric


def test_the_winner_comes_back_whole_when_others_came_after_it(several: dict[str, Any], tmp_path: Path) -> None:
    """Its network left memory when the next plan was begun."""
    several["method"] = {"name": "auto", "candidates": ["full", "probe"]}
    options, means = begin(several, tmp_path)
    kept: dict[str, torch.Tensor] = {}

    def judge(trained: Trained) -> frontier.Judged:
        if trained.plan.method == "full":
            kept.update({name: tensor.clone() for name, tensor in trained.model.module.state_dict().items()})
        value = 0.9 if trained.plan.method == "full" else 0.5
        return frontier.Judged({"value": value, "low": value, "high": value})

    last, found, _ = weights(explore(options, Limits(), dataclasses.replace(means, judge=judge)))
    assert last.plan.method == "full"
    assert all(torch.equal(kept[name], found[name]) for name in kept)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, {"probe": 1.0, "small": 1.0, "large": 1.0, "middle": 1.0}),  # twice what the fullest takes
        (1.3 * 161, {"probe": 1.0, "small": 1.0, "middle": 1.0, "large": 1.0}),
        (1.3 * 50, {"probe": 1.0, "large": 0.5, "small": 0.75 / 1.3}),  # and what the slack leaves
        (-5.0, {"probe": 1.0}),
    ],
)
def test_what_a_budget_will_be_spent_on_is_foretold(seconds: float | None, expected: dict[str, float]) -> None:
    options = [*OPTIONS[:3], option("large", 100.0, trained=6)]
    assert choice.expected(options, Limits(seconds)) == pytest.approx(expected)


def test_a_budget_that_is_too_short_is_foretold_too() -> None:
    slow = [dataclasses.replace(OPTIONS[1], predicted=Predicted(30.0, 10, 10.0, 18.0, 2.0, 0.0)), OPTIONS[3]]
    assert budget.overrun(Limits(None), slow) is None
    assert budget.overrun(Limits(30.0), slow) is None
    assert "overrun by about 5 s" in str(budget.overrun(Limits(25.0), slow))
    assert "overrun by about 15 s" in str(budget.overrun(Limits(15.0), slow))
    assert budget.overrun(Limits(13.0), slow[:1]) is None  # alone it may be cut to a hundredth
    assert budget.overrun(Limits(11.0), slow[:1]) is not None


def test_plans_for_which_there_is_no_time_are_named(several: dict[str, Any], tmp_path: Path) -> None:
    options, means = begin(several, tmp_path)
    last, _, seen = weights(explore(options, Limits(seconds=1e-3, parameters=10**9), means))
    assert last.plan.method == "probe"
    assert [one.label for one in seen if isinstance(one, LeftOut)] == ["partial, last 1", "full"]
    assert [type(one) for one in last.frontier] == [Tried, LeftOut, LeftOut]


def test_a_single_method_is_shortened_to_its_budget(settings: dict[str, Any], tmp_path: Path) -> None:
    options, means = begin(settings, tmp_path / "half")
    half = dataclasses.replace(
        options[0], predicted=dataclasses.replace(options[0].predicted, solving=0.0, stepping=200.0, validating=0.0)
    )
    events = list(alone(half, Limits(seconds=SLACK * 100.0), means))
    options, means = begin(settings, tmp_path / "whole")
    whole = list(alone(options[0], Limits(), means))
    steps = [sum(isinstance(event, StepDone) for event in seen) for seen in (events, whole)]
    assert steps[0] == steps[1] // 2
    trained = events[-1]
    assert isinstance(trained, Trained)
    assert trained.epochs == options[0].plan.epochs
    assert "takes 50 % of the rows" in trained.plan.reasons[-1]


def test_the_usual_candidates_leave_out_what_a_guard_forbids(settings: dict[str, Any]) -> None:
    plan = tunesmith.plan(settings | {"method": "auto", "train": {**settings["train"], "ewc": 0.1}})
    assert "lora" not in {one["method"] for one in plan["candidates"]}
    assert any("lora is not tried: train.ewc" in reason for reason in plan["reasons"])


def test_time_is_kept_back_for_what_comes_after_training(settings: dict[str, Any], tmp_path: Path) -> None:
    """Mixtures are measured eleven times, references once more for every plan."""
    seconds = []
    for number, more in enumerate(({}, {"wise_ft": True})):
        given = parse(settings | {"method": AUTO, "budget": 1000, "train": {**settings["train"], **more}})
        ready = prepare.prepare(given, tmp_path / str(number), torch.device("cpu"), lambda _: None)
        options = [option(plan.label, 1.0) for plan in ready.frontier.candidates]
        guarded = [
            dataclasses.replace(one, plan=plan) for one, plan in zip(options, ready.frontier.candidates, strict=True)
        ]
        for references in ((), (object(),)):
            found = budget.limits_of(ready, guarded, references, 0.0, looking_back=10.0)  # type: ignore[arg-type]
            assert found.judging == (10.0 if references else 0.0)
            assert found.seconds is not None
            seconds.append(1000 - found.seconds)
    plain, referred, mixed, both = seconds
    assert referred == pytest.approx(plain + 10)
    assert mixed == pytest.approx(plain)  # a forward pass takes no time here
    assert both == pytest.approx(plain + 10 + 11 * 10)


def test_a_run_with_auto_reports_all_that_was_tried(several: dict[str, Any], tmp_path: Path) -> None:
    done = tunesmith.finetune(several | {"budget": "10 min"}, run=tmp_path / "run")
    report = json.loads(done.report.read_text())
    assert [one["label"] for one in report["frontier"]] == ["probe", "partial, last 1", "full"]
    chosen = [one for one in report["frontier"] if one["chosen"]]
    assert [one["method"] for one in chosen] == [report["method"]]
    assert chosen[0]["metric"]["value"] == max(one["metric"]["value"] for one in report["frontier"])
    assert report["training"]["seconds"] == pytest.approx(chosen[0]["seconds"], abs=1e-3)
    assert ("cache" in report["training"]) == chosen[0]["label"].startswith("partial")
    assert report["metrics"]["validation"]["accuracy"] == chosen[0]["metric"]
    assert {one["variant"] for one in json.loads(done.plan.read_text())["candidates"]} == {"", "last 1"}
    page = done.page.read_text()
    assert "What was tried" in page
    assert "methods tried in" in page


def test_features_and_activations_are_computed_once_for_all(
    several: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import probes  # noqa: PLC0415
    from tunesmith.train import cache  # noqa: PLC0415

    passes: list[str] = []
    features, fill = probes._features, cache._fill
    monkeypatch.setattr(probes, "_features", lambda *given: passes.append("features") or features(*given))
    monkeypatch.setattr(cache, "_fill", lambda *given: passes.append("activations") or fill(*given))
    monkeypatch.setattr(cache, "_pays", lambda *_: True)
    options, means = begin(several, tmp_path)
    weights(explore(options, Limits(), means))
    assert sorted(passes) == ["activations", "activations", "features", "features"]  # of train and validation


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"method": {"name": "auto", "candidates": ["probe", "auto"]}}, "auto itself"),
        ({"method": {"name": "auto", "candidates": []}}, "nothing to try"),
        ({"method": {"name": "auto", "candidates": [{"last": 1}]}}, "method.candidates: the key 'name' is missing"),
        ({"method": {"name": "auto", "candidates": [{"name": "partial", "lst": 1}]}}, "did you mean 'last'"),
        ({"budget": 60, "evaluate": {"baselines": ["scratch"]}}, "training from scratch"),
        ({"method": {"name": "auto", "candidates": ["prob"]}}, "did you mean 'probe'"),
        ({"method": {"name": "auto", "candidates": ["full", "full"]}}, "twice"),
        ({"budget": "soon"}, "alone or with one of the units s, sec, m, min, h, d"),
        ({"budget": {"time": 0}}, "greater than 0"),
        ({"budget": {"memory": "2 minutes"}}, "kb, mb, gb, tb"),
    ],
)
def test_a_wrong_choice_is_told(
    settings: dict[str, Any], tmp_path: Path, given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        tunesmith.plan(settings | given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("90", 90.0), (90, 90.0), ("90s", 90.0), ("10 min", 600.0), ({"time": "1.5h"}, 5400.0)],
)
def test_a_budget_is_read_in_its_unit(given: Any, expected: float) -> None:
    assert settings.parse({"data": "rows.csv", "budget": given}).budget.time == expected


def test_a_budget_of_memory_goes_beside_one_of_time() -> None:
    values = settings_file.override({"data": "rows.csv", "budget": "60s"}, ["budget.memory=2GB"])
    found = settings.parse(values).budget
    assert (found.time, found.memory) == (60.0, 2e9)


def test_a_frontier_needs_plans_that_can_be_told_apart() -> None:
    with pytest.raises(SettingsError, match="twice"):
        Frontier((OPTIONS[0].plan, OPTIONS[0].plan))


def test_auto_keeps_what_the_reference_asks_for_or_says_that_it_cannot(several: dict[str, Any], tmp_path: Path) -> None:
    """The probe changes nothing of the backbone, so that it keeps everything."""
    reference = {"name": "same rows", "data": several["data"]}
    given = several | {
        "train": {**several["train"], "retain": 0.999, "learning_rate": 0.05},
        "evaluate": {"retention": [reference]},
    }
    done = tunesmith.finetune(given, run=tmp_path / "run")
    report = json.loads(done.report.read_text())
    tried = {one["label"]: one for one in report["frontier"]}
    assert tried["probe"]["retention"] == pytest.approx(1.0)
    allowed = [one for one in tried.values() if one.get("retention", 0.0) >= 0.999]
    chosen = next(one for one in tried.values() if one["chosen"])
    assert chosen in allowed
    assert chosen["metric"]["value"] == max(one["metric"]["value"] for one in allowed)
    assert report["retention"][0]["name"] == "same rows"


@pytest.mark.parametrize("method", ["full", AUTO])
def test_a_budget_that_nothing_keeps_is_one_sentence(several: dict[str, Any], tmp_path: Path, method: Any) -> None:
    given = several | {"method": method, "budget": {"parameters": 3}}
    with pytest.raises(SettingsError, match=r"within the budget \(.*it trains"):
        tunesmith.finetune(given, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_time_that_is_over_before_training_leaves_the_first_plan(several: dict[str, Any], tmp_path: Path) -> None:
    done = tunesmith.finetune(several | {"budget": 0.1}, run=tmp_path / "run")
    report = json.loads(done.report.read_text())
    assert report["method"] == "probe"
    assert "there was no time left for it" in done.page.read_text()
