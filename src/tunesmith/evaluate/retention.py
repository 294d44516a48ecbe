"""Retention: what the pre-trained backbone could do before, and what the fine-tuned one still can, on reference data.

Where the checkpoint brings a head for the reference, that head is put behind either backbone. Otherwise a linear probe and a
nearest-neighbour classifier are fitted anew for either, and stages are compared by centred kernel alignment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.contracts import Array, Head, Model, Task
from tunesmith.evaluate import references as references_
from tunesmith.evaluate.measure import groups_of
from tunesmith.evaluate.references import OWN, Data, Say
from tunesmith.metrics.cka import linear_cka
from tunesmith.metrics.interval import Interval
from tunesmith.metrics.neighbours import votes
from tunesmith.models import probes
from tunesmith.models.activations import depths, features
from tunesmith.models.backbones import backbone_of, borrowed
from tunesmith.models.forward import logits
from tunesmith.models.stages import FINAL
from tunesmith.plans import BatchShape, Phase, Plan, Row
from tunesmith.settings import EvaluateSettings, Named, ReferenceSettings
from tunesmith.train.rehearsal import Rehearsal

COMPARED_ROWS = 300
"""Rows of the test split on which stages are compared."""
NEIGHBOURS = 5


@dataclass(frozen=True)
class Measured:
    """What one backbone says of the reference test rows."""

    logits: Array
    """(rows, outputs) through the own head or the refitted probe."""
    validated: float
    """The primary metric on the reference's validation rows."""
    neighbours: Array | None
    """(rows, outputs) of the nearest-neighbour classifier; None where the checkpoint's own head is used."""
    stages: Mapping[str, Array]
    """Stage to (compared rows, width)."""


@dataclass(frozen=True)
class Reference:
    """Reference data with what the original backbone says of them."""

    data: Data
    settings: EvaluateSettings
    seed: int
    precision: str
    before: Measured
    probe: Head | None
    """The probe on the original backbone; None where the checkpoint's own head is used."""

    warning: str | None = None
    """Set where test rows are training rows of the run."""

    @property
    def name(self) -> str:
        return self.data.name

    def rehearsal(self) -> Rehearsal:
        """The training rows, with the original network and the head that was measured before."""
        model = self.data.model if self.probe is None else probes.with_head(self.data.model, self.probe)
        return Rehearsal(self.name, self.data.task, model, self.data.examples["train"])


@dataclass(frozen=True)
class Change:
    """One figure before and after, and the difference, paired by row."""

    before: Interval
    after: Interval
    difference: Interval

    def as_dict(self) -> dict[str, Any]:
        return {
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "difference": self.difference.as_dict(),
        }


@dataclass(frozen=True)
class Retained:
    """What a fine-tuned backbone kept of one reference."""

    name: str
    metric: str
    head: str
    """"own": the checkpoint's head; "probe": a linear probe, refitted for either backbone."""
    rows: int
    primary: Change
    neighbours: Change | None
    cka: Mapping[str, float]

    @property
    def kept(self) -> float:
        """After over before, of the primary figure; 1 where there was nothing to lose."""
        before, after = self.primary.before.value, self.primary.after.value
        return after / before if before > 0 else 1.0

    def as_dict(self) -> dict[str, Any]:
        """An entry of report.json's `retention`."""
        found: dict[str, Any] = {
            "name": self.name, "metric": self.metric, "head": self.head, "rows": self.rows, "kept": self.kept,
        }  # fmt: skip
        found |= self.primary.as_dict()
        if self.neighbours is not None:
            found["neighbours"] = self.neighbours.as_dict()
        return found | {"cka": dict(self.cka)}


def prepare(
    wanted: Sequence[ReferenceSettings],
    original: Model,
    task: Named,
    cache: Path,
    seed: int,
    precision: str,
    *,
    evaluate: EvaluateSettings | None = None,
    say: Say = lambda _: None,
) -> tuple[Reference, ...]:
    """Read the references and measure the original backbone on them, once. `original` must not be trained yet.

    Args:
        task: the run's own; references without a task take its name.
        cache: a folder for memory-mapped rows, which must stay while the references are used.
        precision: of matrix products, "bf16" or "fp32".
        evaluate: how intervals are made.
        say: is told what was found.

    Raises:
        TunesmithError: reference data cannot be used, or the checkpoint has no such head as is asked for.
    """
    found = []
    for number, one in enumerate(wanted):
        data = references_.read(one, original, task, cache / "references" / str(number), seed, say)
        before, probe = _measured(data, original, seed, precision)
        found.append(Reference(data, evaluate or EvaluateSettings(), seed, precision, before, probe))
    return tuple(found)


def measure(reference: Reference, model: Model) -> Retained:
    """What the backbone of `model` still can; `model` is left as it is."""
    data, task = reference.data, reference.data.task
    after, _ = _measured(data, model, reference.seed, reference.precision)
    before = reference.before
    cka = {name: linear_cka(before.stages[name], after.stages[name]) for name in before.stages}
    neighbours = None
    if before.neighbours is not None and after.neighbours is not None:
        neighbours = _change(reference, before.neighbours, after.neighbours)
    return Retained(
        name=reference.name,
        metric=task.primary_metric,
        head=data.head,
        rows=data.rows["test"].num_rows,
        primary=_change(reference, before.logits, after.logits),
        neighbours=neighbours,
        cka={name: value for name, value in cka.items() if value is not None},
    )


def kept(reference: Reference, model: Model) -> float:
    """After over before on the reference's validation rows: for choosing by, so that its test rows stay unread."""
    data = reference.data
    with _behind(data, model):
        now = _validated(data, _probe(data, reference.seed, reference.precision), reference.precision)
    return now / reference.before.validated if reference.before.validated > 0 else 1.0


def compared(
    references: Sequence[Reference], task: Task, train: pa.Table, threshold: float, say: Say
) -> tuple[Reference, ...]:
    """`references`, each with a warning where its test rows stand among the rows `train` of the run's own `task`."""
    found = []
    for one in references:
        rows = one.data.rows["test"]
        count = task.repeated(rows, train, threshold)
        warning = (
            f"{count:,} of {rows.num_rows:,} test rows of the reference {one.name!r} ({count / rows.num_rows:.1%}) "
            f"{'stands' if count == 1 else 'stand'}, exactly or nearly, among the training rows: "
            "retention there flatters the model by as much."
        )
        if count:
            say(f"Note: {warning}")
        found.append(dataclasses.replace(one, warning=warning if count else None))
    return tuple(found)


def _change(reference: Reference, before: Array, after: Array) -> Change:
    task, test, wanted, seed = (
        reference.data.task, reference.data.examples["test"], reference.settings, reference.seed,
    )  # fmt: skip
    groups = groups_of(reference.data.rows["test"])
    one, other = (task.intervals(test, found, wanted, seed, groups)[task.primary_metric] for found in (before, after))
    return Change(one, other, task.difference(test, after, before, wanted, seed, groups))


def _measured(data: Data, model: Model, seed: int, precision: str) -> tuple[Measured, Head | None]:
    """What the backbone of `model` says, and the probe that was fitted for it."""
    with _behind(data, model):
        near = None if data.head == OWN else _neighbours(data, precision)
        stages, probe = _stages(data), _probe(data, seed, precision)
        validated = _validated(data, probe, precision)
        return Measured(_logits(data, probe, "test", precision), validated, near, stages), probe


def _probe(data: Data, seed: int, precision: str) -> Head | None:
    """A head for the backbone as it is now; None where the checkpoint's own is used."""
    if data.head == OWN:
        return None
    plan = _probing(data.model, precision)
    train, validation = data.batched("train"), data.batched("validation")
    return data.task.solve_head(data.model, train, validation, plan, plan.phases[0], seed).probe


def _logits(data: Data, probe: Head | None, split: str, precision: str) -> Array:
    """(rows, outputs) through `probe`, or through the checkpoint's own head."""
    model = data.model if probe is None else probes.with_head(data.model, probe)
    return logits(data.task, model, data.examples[split], precision)


def _validated(data: Data, probe: Head | None, precision: str) -> float:
    """The primary metric on validation."""
    found = _logits(data, probe, "validation", precision)
    return data.task.score(data.examples["validation"], found)[data.task.primary_metric]


def _behind(data: Data, model: Model) -> AbstractContextManager[None]:
    """While it lasts, the backbone of `model` stands behind the reference's head."""
    test = data.batched("test")
    return borrowed(data.model, backbone_of(model, test.collate(np.arange(min(3, len(test.examples))))))


def _probing(model: Model, precision: str) -> Plan:
    """The plan of a probe, which is all that solving for a head needs to know."""
    rows = tuple(Row(stage.name, None) for stage in model.stages)
    phase = Phase("head", "solve", rows, gentle=False)
    return Plan("probe", (phase,), "bf16" if precision == "bf16" else "fp32", BatchShape(1, 1), standard_head=False)


def _neighbours(data: Data, precision: str) -> Array:
    """(test rows, outputs) as logits: what the nearest training rows say, by what the backbone gives."""
    found = {}
    for split in ("train", "test"):
        given = data.batched(split)
        passed = features(data.model, [FINAL], given.examples.lengths, given.collate, precision)
        found[split] = data.task.decode(given.examples, passed[FINAL])  # one vector a row where rows lie in pieces
    targets, scores = _targets(data.rows["train"].column("target"), data.classes)
    said = votes(found["train"], targets, found["test"], NEIGHBOURS)
    # Logits, as metrics take them: the logarithm of odds does for classes and for labels that stand side by side.
    shares = np.clip(said, 1e-6, 1 - 1e-6)
    return (said if scores else np.log(shares / (1 - shares))).astype(np.float32)


def _targets(column: pa.ChunkedArray, classes: int) -> tuple[Array, bool]:
    """(rows, outputs) that neighbours vote with, and whether they are scores."""
    if pa.types.is_floating(column.type):
        return np.array(column.to_numpy(), dtype=np.float64)[:, None], True
    found = np.zeros((len(column), classes))
    for row, cell in enumerate(column.to_pylist()):
        found[row, cell] = 1.0
    return found, False


def _stages(data: Data) -> dict[str, Array]:
    """Pooled activations of some test rows, in fp32, so that rounding is no difference."""
    given = data.batched("test")
    count = min(COMPARED_ROWS, len(given.examples))
    found = features(data.model, depths(data.model), given.examples.lengths[:count], given.collate, "fp32")
    *_, last = (name for name in found if name != FINAL)
    if np.array_equal(found[last], found[FINAL]):  # nothing stands between the last block and the end
        del found[FINAL]
    return found
