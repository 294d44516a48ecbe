"""What a run may spend on training, and how a trained network is judged on validation while several are tried."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.errors import SettingsError
from tunesmith.evaluate import retention
from tunesmith.evaluate.measure import Protocol, Reading, intervals
from tunesmith.evaluate.retention import Reference
from tunesmith.models.forward import logits
from tunesmith.prepare import Prepared
from tunesmith.train.choice import Limits, Option
from tunesmith.train.events import Trained
from tunesmith.train.frontier import Judged

CONCLUDING_SECONDS = 5.0
"""Saving, intervals, report: nearly the same for all models and data."""
STARTING_SECONDS = 5.0
"""Of a fresh process, which opens the saved model, until it has imported what it needs; where it is not known."""
PASSES = 2
"""Over the test rows: the model's, and the probe's beside it."""


def limits_of(
    ready: Prepared,
    options: Sequence[Option],
    references: Sequence[Reference],
    elapsed: float,
    starting: float | None = None,
) -> Limits:
    """What is left of the budget for training, after `elapsed` seconds and with time kept for what comes after it.

    Args:
        starting: seconds that this process took to start; the one that opens the saved model will take as long.
    """
    budget = ready.settings.budget
    seconds = None
    if budget.time is not None:
        rows = {name: table.num_rows for name, table in ready.dataset.splits.items()}
        tokens = float(ready.validation.lengths.sum()) * rows["test"] / rows["validation"]
        known = [examples for one in references for examples in one.data.examples.values()]
        tokens += sum(float(examples.lengths.sum()) for examples in known)
        passes = PASSES * tokens * options[0].predicted.forward
        concluding = CONCLUDING_SECONDS + passes + (STARTING_SECONDS if starting is None else starting)
        seconds = max(0.0, budget.time - elapsed - concluding)
    return Limits(seconds, budget.memory, budget.parameters, ready.settings.train.retain)


def insist(ready: Prepared, options: Sequence[Option]) -> None:
    """Insist that some plan is within the budget's memory and parameters.

    Raises:
        SettingsError: none is.
    """
    limits = Limits(None, ready.settings.budget.memory, ready.settings.budget.parameters)
    reasons = {option.label: limits.exceeded(option) for option in options}
    if all(reasons.values()):
        told = "; ".join(f"{label}: {why}" for label, why in reasons.items())
        raise SettingsError(f"No method is within the budget ({told}).", "Raise it, or take another method.")


def judge(ready: Prepared, references: Sequence[Reference], trained: Trained) -> Judged:
    """The primary metric on validation, with its interval, and the least share that is kept of any reference."""
    task, wanted = ready.task, ready.settings
    how = Protocol(task, ready.dataset.labels, wanted.evaluate, wanted.seed)
    found = logits(task, trained.model, ready.validation, trained.plan.precision)
    rows = ready.dataset.splits["validation"]
    kept = [retention.kept(one, trained.model) for one in references]
    metric = intervals(how, Reading(rows, ready.validation, found))[task.primary_metric]
    return Judged(metric, min(kept, default=None))
