"""Training once more, on the rows of training and validation together, when nothing is left to choose.

Where rows are few, those that were held out to choose by are worth more as rows to learn from: of 8 rows a class they are
one. What was chosen stays: pooling, penalties, epochs. Figures on validation are those of the training before, and so is
the number that is fitted there; the test split has no part in either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesmith import prepare
from tunesmith.contracts import Head, Model
from tunesmith.evaluate import baselines
from tunesmith.evaluate.retention import Reference
from tunesmith.models import probes
from tunesmith.plans import Frontier, Plan
from tunesmith.prepare import Prepared, fresh_copy
from tunesmith.train.cache import Store
from tunesmith.train.events import EpochDone, HeadSolved, StartMeasured, Trained
from tunesmith.train.loop import PROBE_HEAD

FOLDER = "refit"
"""In the checkpoints folder of the training before."""


@dataclass(frozen=True)
class Refitted:
    """What came of it."""

    model: Model
    probe: Head
    """The best head on frozen features, solved for on the same rows."""
    rows: int
    epochs: int
    seconds: float
    peak_memory_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """As the report has it, which has the peak of both trainings."""
        return {"rows": self.rows, "epochs": self.epochs, "seconds": round(self.seconds, 3)}


def refit(
    ready: Prepared,
    trained: Trained,
    checkpoints: Path,
    references: Sequence[Reference],
    listen: Callable[[Any], None],
) -> Refitted | None:
    """Carry out the plan of `trained` once more, every process taking part; None where it does not ask for that, or the start
    was better than all epochs.

    Args:
        checkpoints: of the training before; those of this one lie in a folder in it.
    """
    if trained.plan.refit == "no" or not trained.best_epoch:
        return None
    listen("Training once more, on the rows of training and validation together.")
    probe = probes.read(checkpoints / PROBE_HEAD)
    model = probes.with_head(fresh_copy(ready, ready.device, ready.loading), probe)
    plan = settled(trained, probe.strength)
    rows = pa.concat_tables([ready.dataset.splits[name] for name in ("train", "validation")])
    store = Store(ready.store.folder.with_name(FOLDER))  # what was kept is of other rows
    train = ready.task.encode(rows, model)
    other = dataclasses.replace(ready, model=model, train=train, store=store, frontier=Frontier((plan,)))
    job = prepare.job(other, model, plan, checkpoints, tuple(one.rehearsal() for one in references))

    def heard(event: Any) -> None:
        if not isinstance(event, EpochDone | HeadSolved | StartMeasured):  # their figures are of rows that train
            listen(event)

    again = baselines.beside(dataclasses.replace(job, settled=True), FOLDER, heard)
    # What this network calls its own pooling is the one that was chosen for it.
    solved = dataclasses.replace(probes.read(checkpoints / FOLDER / PROBE_HEAD), pooling=probe.pooling)
    return Refitted(again.model, solved, rows.num_rows, again.epochs, again.seconds, again.peak_memory_bytes)


def settled(trained: Trained, strength: float | None) -> Plan:
    """The plan of `trained`, with what was chosen in its course.

    Args:
        strength: penalty of the head on frozen features.
    """
    plan = trained.plan
    epochs = trained.epochs if plan.refit == "whole" else trained.best_epoch
    assert epochs
    solving, phase = plan.phases
    chosen = trained.curve[epochs - 1]["strength"]
    phases = (
        dataclasses.replace(solving, strength=strength),
        dataclasses.replace(phase, epochs=epochs, strength=chosen),
    )
    return dataclasses.replace(plan, phases=phases, standard_head=True)
