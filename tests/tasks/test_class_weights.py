"""Rows that count by their class: the loss is the weighted one, and as large as before over all training rows."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from steps import prepared
from tiny import write_masks, write_rows
from tunesmith.contracts import Batched, Features
from tunesmith.errors import SettingsError
from tunesmith.models import part_probe, probes, solver
from tunesmith.models.solver import solve
from tunesmith.tasks.classifying import ClassifyingSettings, weights_of
from tunesmith.tasks.tiny_masks import write_segformer


@given(st.lists(st.integers(1, 500), min_size=2, max_size=8), st.sampled_from(["root", "balanced"]))
def test_all_rows_together_count_as_many_as_they_are(counts: list[int], how: str) -> None:
    sizes = np.array(counts)
    found = weights_of(how, sizes, [str(number) for number in range(len(sizes))])
    assert float((found * sizes).sum()) == pytest.approx(sizes.sum(), rel=1e-5)
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(found[order]) <= 1e-6).all()  # the rarer, the more
    if how == "balanced":
        assert np.ptp(found * sizes) == pytest.approx(0, abs=1e-3 * sizes.max())


def unbalanced(folder: Path) -> Path:
    """Three of four rows are of one class."""
    path = write_rows(folder / "rows.csv", rows=200)
    with open(path, newline="") as handle:
        rows = list(csv.DictReader(handle))
    kept = [row for number, row in enumerate(rows) if row["label"] == "good" or number % 3 == 0]
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, ["text", "label"])
        writer.writeheader()
        writer.writerows(kept)
    return path


@pytest.mark.parametrize("how", ["balanced", {"good": 1.0, "bad": 4.0}])
def test_the_loss_is_the_weighted_one(settings: dict[str, Any], tmp_path: Path, how: Any) -> None:
    data = {"train": str(unbalanced(tmp_path)), "input": "text", "target": "label"}
    ready = prepared(settings | {"data": data, "task": {"name": "text-classification", "class_weights": how}}, tmp_path)
    every = np.arange(len(ready.train))
    logits = torch.randn((len(every), 2), generator=torch.Generator().manual_seed(0))
    targets = torch.from_numpy(ready.train.targets)
    wanted = weights_of(how, np.bincount(ready.train.targets), ready.dataset.labels)
    loss = ready.task.loss(logits, ready.train, every)
    each = functional.cross_entropy(logits, targets, reduction="none") * torch.from_numpy(wanted)[targets]
    assert float(loss.sum) == pytest.approx(float(each.sum()), rel=1e-5)
    assert loss.count == len(every)
    (told,) = [one for one in ready.frontier.candidates[0].reasons if "by their class" in one]
    assert f"{wanted.max():.2g}" in told
    # What is measured on validation is not weighted, so that runs can be held against each other.
    plain = functional.cross_entropy(logits, targets).item()
    assert ready.task.score(ready.train, logits.numpy())["loss"] == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(("rare", "said"), [(5, True), (60, False)])
def test_the_plan_says_how_unbalanced_classes_count(
    rare: int, said: bool, settings: dict[str, Any], tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "rows.csv", rows=200)
    with open(path, newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows = [row for row in rows if row["label"] == "good"] + [row for row in rows if row["label"] != "good"][:rare]
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    data = {"train": str(path), "input": "text", "target": "label"}
    for method in ("full", "probe"):
        ready = prepared(settings | {"data": data, "method": method}, tmp_path / method)
        assert any("all rows count alike" in one for one in ready.frontier.candidates[0].reasons) is said


@pytest.mark.parametrize(
    ("how", "message"),
    [({"god": 1.0, "bad": 1.0}, "did you mean 'good'"), ({"good": 1.0}, "no weight for 'bad'")],
)
def test_weights_name_every_class_and_no_other(
    settings: dict[str, Any], tmp_path: Path, how: dict[str, float], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        prepared(settings | {"task": {"name": "text-classification", "class_weights": how}}, tmp_path)


def test_classes_that_are_numbers_are_named_as_yaml_reads_them() -> None:
    settings = ClassifyingSettings.model_validate({"class_weights": {0: 1, 1: 5}})
    assert settings.class_weights == {"0": 1.0, "1": 5.0}
    with pytest.raises(ValidationError, match="into quotes"):
        ClassifyingSettings.model_validate({"class_weights": {True: 1, False: 5}})


def test_a_plan_that_only_solves_for_a_head_says_how_rows_count(settings: dict[str, Any], tmp_path: Path) -> None:
    task = {"name": "text-classification", "class_weights": "root"}
    ready = prepared(settings | {"task": task, "method": "probe"}, tmp_path)
    assert [one for one in ready.frontier.candidates[0].reasons if "by their class" in one]


def test_scores_have_no_classes(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = tmp_path / "scores.csv"
    rows.write_text("text,score\n" + "".join(f"word{number} word1,{number / 7}\n" for number in range(60)))
    task = {"name": "text-classification", "class_weights": "root"}
    with pytest.raises(SettingsError, match="are for single labels"):
        prepared(settings | {"data": str(rows), "task": task}, tmp_path)


@pytest.mark.parametrize("searched", [20, 20_000])
def test_a_head_is_solved_for_where_the_weighted_loss_is_least(searched: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On all rows, even where the penalty is chosen on some."""
    monkeypatch.setattr(solver, "SEARCHED", searched)
    random = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2], [30, 12, 6])
    features = random.normal(size=(48, 5)).astype(np.float32) + 0.4 * targets[:, None].astype(np.float32)
    weights = weights_of("balanced", np.bincount(targets), ["a", "b", "c"])[targets]
    found = solve(features, targets, features, lambda _: 0.0, 3, strengths=(0.1, 0.05), weights=weights)
    assert found.strength == 0.1  # the stronger one, as all are equal
    scale = features.std(axis=0)
    standardised = torch.from_numpy((features - features.mean(axis=0)) / scale)
    weight = torch.tensor(found.weight * scale, dtype=torch.float32, requires_grad=True)
    bias = torch.tensor(found.bias + found.weight @ features.mean(axis=0), dtype=torch.float32, requires_grad=True)
    losses = functional.cross_entropy(standardised @ weight.T + bias, torch.from_numpy(targets), reduction="none")
    ((losses * torch.from_numpy(weights)).mean() + 0.5 * 0.1 / 5 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert float(weight.grad.abs().max()) < 1e-3
    assert float(bias.grad.abs().max()) < 1e-3


@pytest.mark.parametrize("how", ["none", "balanced"])
@pytest.mark.parametrize("task", ["text-classification", "semantic-segmentation"])
def test_the_probe_counts_classes_as_training_does(
    task: str, how: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings | {"task": {"name": task, "class_weights": how}, "method": "probe"}
    if task == "semantic-segmentation":
        net, scans = write_segformer(tmp_path / "net"), write_masks(tmp_path / "scans", 30)
        given |= {"model": str(net), "data": str(scans)}
    else:
        given |= {"data": {"train": str(unbalanced(tmp_path)), "input": "text", "target": "label"}}
    ready = prepared(given, tmp_path / "run")
    seen: list[tuple[Any, Any]] = []

    def noting(own: Any, targets: Any, *more: Any, weights: Any, **named: Any) -> Any:
        seen.append((targets, weights))
        return solve(own, targets, *more, weights=weights, **named)

    monkeypatch.setattr(probes if task == "text-classification" else part_probe, "solve", noting)
    plan = ready.frontier.candidates[0]
    splits = (ready.train, ready.validation)
    both = [Batched(rows, partial(ready.task.inputs, rows, model=ready.model)) for rows in splits]
    ready.task.solve_head(ready.model, *both, plan, plan.phases[0], 0, Features())
    assert seen
    for targets, weights in seen:
        if how == "none":
            assert weights is None
            continue
        sizes = np.bincount(targets)
        means = np.array([weights[targets == label].mean() for label in range(len(sizes))])
        assert all(np.ptp(weights[targets == label]) == 0 for label in range(len(sizes)))
        assert (np.diff(means[np.argsort(sizes)]) <= 0.3 * means.max()).all()
        assert means[sizes.argmin()] > 1.3 * means[sizes.argmax()]
