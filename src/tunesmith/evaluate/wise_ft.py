"""WiSE-FT: weights from before and after training, mixed by the share that is best on validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith.contracts import Batch, Examples, Model, Task
from tunesmith.evaluate import retention
from tunesmith.evaluate.retention import Reference
from tunesmith.metrics import direction
from tunesmith.models.backbones import merged_copy
from tunesmith.models.forward import scores
from tunesmith.models.running_statistics import reestimate
from tunesmith.plans import Plan
from tunesmith.train import statistics, weights
from tunesmith.train.guards import mix
from tunesmith.train.weights import Tensors, copy_of, load_into, of

ALPHAS = tuple(number / 10 for number in range(11))


@dataclass(frozen=True)
class Scales:
    """What mixtures are weighed with."""

    task: Task
    plan: Plan
    train: Examples
    """For the running statistics of batch normalisation, where there are any."""
    validation: Examples
    references: Sequence[Reference]
    retain: float | None
    seed: int


@dataclass(frozen=True)
class Point:
    """One mixture: `alpha` of the trained weights, the rest of those from before."""

    alpha: float
    metric: float
    """Primary metric on validation."""
    loss: float
    sign: int
    """-1 where less of the metric is better."""
    kept: Mapping[str, float]
    """Share of each reference's score, on its validation rows."""

    def as_dict(self) -> dict[str, Any]:
        """An entry of report.json's `wise_ft`."""
        return {"alpha": self.alpha, "metric": self.metric} | ({"retention": dict(self.kept)} if self.kept else {})


def start_of(model: Model, path: Path) -> Tensors:
    """The weights of `model` as `path` kept them before training, adapters folded in; `model` is left as it is.

    Args:
        model: the trained network, its adapters not yet folded in.
    """
    before = dataclasses.replace(merged_copy(dataclasses.replace(model, adapter=None)), adapter=model.adapter)
    weights.read(before.module, path)
    return of(before.module if model.adapter is None else merged_copy(before).module)


def curve(model: Model, start: Tensors, how: Scales) -> tuple[Point, ...]:
    """Every mixture measured (Wortsman et al. 2022, equation 1); `model` ends as it began.

    Args:
        start: from `start_of`, of the same names as the weights of `model`.
    """
    end = copy_of(of(model.module))
    found = []
    try:
        for alpha in ALPHAS:
            put(model, start, end, alpha, how)
            said = scores(how.task, model, how.validation, how.plan.precision)
            kept = {one.name: retention.kept(one, model) for one in how.references}
            metric = how.task.primary_metric
            found.append(Point(alpha, said[metric], said["loss"], direction.sign(metric), kept))
    finally:
        load_into(model.module, end)
    return tuple(found)


def put(model: Model, start: Tensors, end: Tensors, alpha: float, how: Scales) -> None:
    """Let `model` have (1 - alpha) · start + alpha · end."""
    mixed = copy_of(start)
    mix(mixed, end, alpha)
    load_into(model.module, mixed)
    norms = [
        child
        for name, child in model.module.named_modules()
        if f"{name}.running_mean" in end and not end[f"{name}.running_mean"].equal(start[f"{name}.running_mean"])
    ]
    if norms and 0 < alpha < 1:  # a mixture of statistics is not what mixed weights give
        collate: Callable[..., Batch] = partial(how.task.inputs, how.train, model=model)
        parts = statistics.parts(how.train.lengths, how.plan.batch, how.seed)
        reestimate(model.module, norms, map(collate, parts), how.plan.precision)


def choose(points: Sequence[Point], retain: float | None) -> tuple[Point, str]:
    """The best mixture on validation, among those that keep enough of every reference; and why, in a sentence.

    Of two with the same metric the lower loss wins. Where none keeps enough, the one that keeps most is taken.
    """

    chosen, why = _chosen(points, retain)
    return chosen, why if chosen.alpha else f"{why} The trained weights are rejected: these are the ones from before."


def _chosen(points: Sequence[Point], retain: float | None) -> tuple[Point, str]:
    def best(among: Sequence[Point]) -> Point:
        return max(among, key=lambda point: (point.sign * point.metric, -point.loss))

    if retain is None or not points[0].kept:
        chosen = best(points)
        return chosen, f"Of {len(points)} mixtures, {_share(chosen)} is best on validation."
    enough = [point for point in points if min(point.kept.values()) >= retain]
    if not enough:
        chosen = max(points, key=lambda point: min(point.kept.values()))
        return chosen, (
            f"No mixture keeps {100 * retain:.0f} % of every reference score; {_share(chosen)} keeps most, "
            f"{100 * min(chosen.kept.values()):.1f} %."
        )
    chosen = best(enough)
    return chosen, (
        f"Of the {len(enough)} mixtures (of {len(points)}) that keep at least {100 * retain:.0f} % of every reference score, "
        f"{_share(chosen)} is best on validation."
    )


def _share(point: Point) -> str:
    return f"the one with {100 * point.alpha:.0f} % of the trained weights"
