"""The verdict says what the figures say, and the page shows users' text as text."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.report import figures
from tunesmith.report import format as formats
from tunesmith.report.card import model_card
from tunesmith.report.page import page
from tunesmith.report.verdict import verdict


def report(gain: tuple[float, float, float] = (0.08, 0.05, 0.11), **more: Any) -> dict[str, Any]:
    value = {"value": 0.88, "low": 0.86, "high": 0.9}
    return {
        "tunesmith_version": "0.1.0", "task": "text-classification", "problem": "single-label", "labels": ["a", "b<script>"],
        "model": {"name": "builtin:minilm", "architecture": "X", "parameters": 10, "loader": "pipeline", "pooling": "own",
                  "pretrained": True},
        "method": "full", "status": "finished", "seed": 0, "created": "2026-01-01T00:00:00+00:00", "confidence": 0.95,
        "data": {
            "train": 800, "validation": 100, "test": 100, "rejected": 0,
            "columns": {"inputs": ["text"], "target": "label", "ignored": [], "guesses": []},
        },
        "plan": {"phases": [], "reasons": ["because"], "predicted": {"seconds": 61.0, "peak_memory_bytes": 1e9}},
        "primary_metric": "accuracy",
        "metrics": {"test": {"accuracy": value, "mcc": value}, "validation": {}},
        "baselines": {"probe": {"accuracy": value}},
        "comparisons": [
            {"against": "probe", "metric": "accuracy", "difference": dict(zip(("value", "low", "high"), gain, strict=True))}
        ],
        "training": {
            "seconds": 72.0, "epochs": 2, "steps": 10, "peak_memory_bytes": 1.1e9, "parameters_total": 22_713_986,
            "parameters_trainable": 770, "precision": "bf16", "stopped_early": False, "best_epoch": 1,
        },
        "timings": {"train": 72.0}, "warnings": [], "environment": {"python": "3.11"}, "command": "tunesmith train x",
        "truncation": {
            name: {"limit": 512, "rows_cut": 0, "share_of_tokens": 0.0, "longest": 40, "rows_in_windows": 0}
            for name in ("train", "validation", "test")
        },
    } | more  # fmt: skip


AUDIT = {"duplicates": {"exact": 0, "near": 0}, "rejected": {}, "classes": {"train": {"a": 1, "b<script>": 2}}}


@pytest.mark.parametrize(
    ("gain", "sentence"),
    [
        ((0.08, 0.05, 0.11), "That is 8.0 points more than a probe on the frozen backbone (interval +5.0 to +11.0)."),
        ((0.01, -0.01, 0.03), "A gain over a probe on the frozen backbone is not proven"),
        ((-0.04, -0.06, -0.02), "That is 4.0 points less than a probe on the frozen backbone"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(gain: tuple[float, float, float], sentence: str) -> None:
    assert any(found.startswith(sentence) or found == sentence for found in verdict(report(gain)))


def test_a_baseline_that_is_better_is_recommended() -> None:
    found = verdict(report((-0.04, -0.06, -0.02)))
    assert "A probe on the frozen backbone is better: use that instead." in found


def test_text_of_users_is_shown_as_text() -> None:
    evil = {"id": "1", "text": "<script>alert(1)</script>" * 100, "truth": "a", "prediction": "<b>", "confidence": 0.9}
    shown = page(report(mistakes=[evil], memorising="The model is <i>memorising</i>."), AUDIT, [])
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<i>memorising" not in shown


def test_sections_that_were_not_asked_for_are_absent() -> None:
    shown = page(report(baselines={}, comparisons=[]), AUDIT, [])
    for title in ("Can its confidence be trusted", "mistakes</h2>", "Learning</h2>", "By class"):
        assert title not in shown


def test_the_card_has_the_hubs_block_and_the_code() -> None:
    card = model_card(report(), "print('open me')")
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-classification\n")
    assert "print('open me')" in card
    assert "88.0 %" in card


def tried(label: str, value: float, *, chosen: bool = False) -> dict[str, Any]:
    metric = {"value": value, "low": value - 0.02, "high": value + 0.02}
    return {"label": label, "method": label, "metric": metric, "seconds": 5.0, "chosen": chosen,
            "parameters_trainable": 5, "predicted_seconds": 5.0, "epochs": 1, "peak_memory_bytes": 1}  # fmt: skip


@pytest.mark.parametrize(("value", "close"), [(0.85, False), (0.87, True)])
def test_a_winner_within_the_intervals_of_the_next_is_called_so(value: float, close: bool) -> None:
    found = report((0.1, 0.05, 0.2), frontier=[tried("probe", value), tried("full", 0.9, chosen=True)])
    (said,) = [one for one in verdict(found) if one.startswith("Of 2 methods")]
    assert ("intervals overlap on 100 rows" in said) == close


def test_a_preferred_plan_that_is_not_the_best_on_a_few_rows_says_so() -> None:
    kept = tried("contrastive", 0.8, chosen=True) | {"preferred": True}
    found = report((0.1, 0.05, 0.2), frontier=[tried("probe", 0.9), kept])
    (said,) = [one for one in verdict(found) if one.startswith("Of 2 methods")]
    assert "probe reached 90.0 %, but on 100 rows that says little" in said
    assert "The best on validation was kept" not in page(found, AUDIT, [])


def calibrated(temperature: float) -> dict[str, Any]:
    bins = [{"confidence": 0.9, "accuracy": 0.8, "low": 0.7, "high": 0.9, "count": 50.0}]
    return {"ece": 0.1, "brier": 0.2, "temperature": temperature, "ece_scaled": 0.04, "brier_scaled": 0.15, "bins": bins,
            "bins_scaled": [{**bins[0], "confidence": 0.8}]}  # fmt: skip


def test_without_a_temperature_there_is_nothing_to_compare() -> None:
    made = page(report((0.1, 0.05, 0.2), calibration=calibrated(1.0)), AUDIT, [])
    assert "10.0 % as trained. No temperature was fitted" in made
    assert "with temperature" not in made
    assert 'class="hollow"' not in made
    made = page(report((0.1, 0.05, 0.2), calibration=calibrated(1.7)), AUDIT, [])
    assert "and 4.0 % with the temperature 1.70" in made
    assert "0.200 as trained, 0.150 with the temperature" in made
    assert 'class="hollow"' in made


def test_the_card_tells_the_temperature() -> None:
    assert "divide the logits by 1.700" in model_card(report((0.1, 0.05, 0.2), calibration=calibrated(1.7)), "code")
    assert "divide" not in model_card(report((0.1, 0.05, 0.2), calibration=calibrated(1.0)), "code")


def test_amounts_have_units() -> None:
    assert formats.duration(72) == "1 min 12 s"
    assert formats.duration(0.84) == "0.8 s"
    assert formats.duration(3600 * 2 + 300) == "2 h 5 min"
    assert formats.size(1.13e9) == "1.1 GB"
    assert formats.value("accuracy", 0.886) == "88.6 %"
    assert formats.value("mcc", 0.7312) == "0.731"
    assert formats.signed("accuracy", -0.012) == "−1.2"


def kept(before: float, after: float, low: float, high: float) -> dict[str, Any]:
    gap = {"value": after - before, "low": low, "high": high}
    found = {
        name: {"value": value, "low": value, "high": value} for name, value in (("before", before), ("after", after))
    }
    more = {"cka": {"embeddings": 1.0, "block 0": 0.9}, "kept": after / before, "rows": 100, "head": "own"}
    return {"name": "cifar10", "metric": "accuracy", "difference": gap, **found, **more}


@pytest.mark.parametrize(
    ("entry", "retain", "sentences"),
    [
        (
            kept(0.87, 0.841, -0.05, -0.01),
            0.98,
            [
                "Of what the backbone could do before, 96.7 % is kept (87.0 % → 84.1 % accuracy on cifar10; interval of the "
                "difference −5.0 to −1.0).",
                "That is less than the 98 % that train.retain asks for on cifar10.",
            ],
        ),
        (
            kept(0.87, 0.86, -0.03, 0.01),
            0.95,
            [
                "A loss of what the backbone could do before is not proven (87.0 % → 86.0 % accuracy on cifar10; interval of "
                "the difference −3.0 to +1.0).",
                "Everywhere at least the 95 % that train.retain asks for is kept.",
            ],
        ),
        (
            kept(134.0, 145.4, 10.2, 12.9) | {"metric": "perplexity", "kept": 0.9216},
            0.9,
            [
                "Of what the backbone could do before, 92.2 % is kept (134.0 → 145.4 perplexity on cifar10; interval of the "
                "difference +10.200 to +12.900).",
                "Everywhere at least the 90 % that train.retain asks for is kept.",
            ],
        ),
        (
            kept(0.8, 0.9, 0.05, 0.15),
            None,
            [
                "The backbone can do more than before: 80.0 % → 90.0 % accuracy on cifar10 (interval of the difference +5.0 "
                "to +15.0)."
            ],
        ),
    ],
)
def test_what_is_kept_is_said_as_the_interval_allows(
    entry: dict[str, Any], retain: float | None, sentences: list[str]
) -> None:
    given = report(retention=[entry]) | ({"retain": retain} if retain else {})
    assert [one for one in verdict(given) if one in sentences] == sentences
    assert "What it still knows" in page(given, AUDIT, [])
    assert "What it still knows" not in page(report(), AUDIT, [])


@pytest.mark.parametrize(("ends", "anchor"), [((1e-05, 0.00123), "end"), ((1, 9), "middle")])
def test_what_stands_under_the_last_tick_does_not_leave_the_figure(ends: tuple[float, float], anchor: str) -> None:
    drawn = figures.lines([("loss", [(ends[0], 1.0), (ends[1], 2.0)])], "rate", "loss")
    assert f'text-anchor="middle" class="tick">{ends[0]:g}<' in drawn
    assert f'text-anchor="{anchor}" class="tick">{ends[1]:g}<' in drawn
