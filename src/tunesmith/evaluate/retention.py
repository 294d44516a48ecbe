"""Retention: what the pre-trained backbone could do before, and what the fine-tuned one still can, on reference data.

Where the checkpoint brings a head for the reference, as language models do, that head is put behind either backbone.
Otherwise a linear probe and a nearest-neighbour classifier are fitted anew for either. Stages are compared by centred kernel
alignment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from tunesmith.contracts import Array, Head, Model, Task
from tunesmith.data.load import opened
from tunesmith.errors import DataError, SettingsError
from tunesmith.evaluate import capability
from tunesmith.evaluate import references as references_
from tunesmith.evaluate.capability import Measured
from tunesmith.evaluate.measure import groups_of
from tunesmith.evaluate.references import Data, Say
from tunesmith.metrics.cka import linear_cka
from tunesmith.metrics.direction import share_kept
from tunesmith.metrics.interval import Interval
from tunesmith.models import probes
from tunesmith.models.forward import device_of
from tunesmith.settings import EvaluateSettings, Named, ReferenceSettings
from tunesmith.train.rehearsal import Rehearsal


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
        """The share of the primary figure that is left; 1 where there was nothing to lose."""
        return share_kept(self.metric, self.primary.before.value, self.primary.after.value)

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
    device: torch.device | None = None,
) -> tuple[Reference, ...]:
    """Read the references and measure the original backbone on them, once. `original` must not be trained yet.

    Args:
        task: the run's own; references without a task take its name.
        cache: a folder for memory-mapped rows, which must stay while the references are used.
        precision: of matrix products, "bf16" or "fp32".
        evaluate: how intervals are made.
        say: is told what was found.
        device: where references are measured; that of `original` when absent.

    Raises:
        TunesmithError: reference data cannot be used, or the checkpoint has no such head as is asked for.
    """
    if wanted and original.four_bit:
        raise SettingsError(
            "evaluate.retention cannot be measured for weights of 4 bits (method: qlora).",
            "Leave it away, or use method=lora.",
        )
    found, device = [], device or device_of(original.module)
    for number, one in enumerate(wanted):
        with _named(one):
            data = references_.read(one, original, task, cache / "references" / str(number), seed, say)
        data.model.module.to(device)
        before, probe = capability.measured(data, original, seed, precision)
        found.append(Reference(data, evaluate or EvaluateSettings(), seed, precision, before, probe))
    return tuple(found)


def insist(wanted: Sequence[ReferenceSettings]) -> None:
    """Insist that the data of the references are there, without reading them.

    Raises:
        DataError: a file is missing, or of a kind that cannot be read.
    """
    for one in wanted:
        with _named(one):
            opened(one.data)


@contextmanager
def _named(one: ReferenceSettings) -> Iterator[None]:
    """Let an error of the data say which reference it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"evaluate.retention {one.name!r}: {error.what}", error.mend) from error


def measure(reference: Reference, model: Model) -> Retained:
    """What the backbone of `model` still can; `model` is left as it is."""
    data, task = reference.data, reference.data.task
    after, _ = capability.measured(data, model, reference.seed, reference.precision)
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
    """The share that is left on the reference's validation rows: for choosing by, so that its test rows stay unread."""
    now = capability.validated(reference.data, model, reference.seed, reference.precision)
    return share_kept(reference.data.task.primary_metric, reference.before.validated, now)


def compared(
    references: Sequence[Reference], task: Task, train: pa.Table, threshold: float, say: Say
) -> tuple[Reference, ...]:
    """`references`, each with a warning where its test rows stand among the rows `train` of the run's own `task`."""
    found = []
    for one in references:
        rows = one.data.rows["test"]
        count = task.repeated(rows, train, threshold)
        warning = (
            f"{count:,} of {rows.num_rows:,} test rows of the reference {one.name!r} ({100 * count / rows.num_rows:.1f} %) "
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
