"""What a run may spend on training, and how a trained network is judged on validation while several are tried."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.errors import SettingsError
from tunesmith.evaluate import retention
from tunesmith.evaluate.measure import Protocol, Reading, intervals
from tunesmith.evaluate.retention import Reference
from tunesmith.evaluate.wise_ft import ALPHAS
from tunesmith.metrics import direction
from tunesmith.models.forward import sampled
from tunesmith.prepare import Prepared
from tunesmith.train.choice import LEAST, Limits, Option
from tunesmith.train.events import Trained
from tunesmith.train.frontier import Judged

CONCLUDING_SECONDS = 7.0
"""Saving, intervals, report: nearly the same for all models and data."""
STARTING_SECONDS = 5.0
"""Of a fresh process, which opens the saved model, until it has imported what it needs; where it is not known. The test rows
pass through the model meanwhile."""
PASSES = 2
"""Over the test rows: the model's, and the probe's beside it."""


def limits_of(
    ready: Prepared,
    options: Sequence[Option],
    references: Sequence[Reference],
    elapsed: float,
    looking_back: float = 0.0,
    starting: float | None = None,
) -> Limits:
    """What is left of the budget for training, after `elapsed` seconds and with time kept for what comes after it.

    Less than nothing is left where the budget is too short even without training.

    Args:
        looking_back: seconds that it took to measure the references once.
        starting: seconds that this process took to start; the one that opens the saved model will take as long.
    """
    budget, forward = ready.settings.budget, options[0].predicted.forward
    seconds = None
    validating = forward * float(ready.validation.lengths.sum())
    judging = validating + (looking_back if references else 0.0)
    if budget.time is not None:
        rows = {name: table.num_rows for name, table in ready.dataset.splits.items()}
        testing = validating * rows["test"] / rows["validation"]
        mixing = len(ALPHAS) * judging if any(one.plan.guards.wise_ft for one in options) else 0.0
        opening = STARTING_SECONDS if starting is None else starting
        concluding = CONCLUDING_SECONDS + max(PASSES * testing, opening) + judging + mixing
        seconds = budget.time - elapsed - concluding
        if ready.settings.adapt is not None and "without_adapt" in ready.settings.evaluate.baselines:
            seconds /= 2  # what is trained is trained once more without the adaptation
    several = len(options) > 1
    return Limits(
        seconds,
        budget.memory,
        budget.parameters,
        ready.settings.train.retain,
        judging if several else 0.0,
        direction.sign(ready.task.primary_metric),
        ready.frontier.preferred,
    )


def overrun(limits: Limits, options: Sequence[Option]) -> str | None:
    """A sentence where not even the first plan can be carried out in the time that is left; None where it can."""
    if limits.seconds is None:
        return None
    first = options[0].predicted
    least = first.solving + first.validating + (1.0 if len(options) > 1 else LEAST) * first.stepping
    over = least + limits.judging - limits.seconds
    if over <= 0:
        return None
    return (
        f"The budget is too short: it will be overrun by about {over:.0f} s. The least that can be trained takes "
        f"{least:.0f} s, beside reading, measuring and saving."
    )


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
    found = sampled(task, trained.model, ready.validation, trained.plan.precision)
    rows = ready.dataset.splits["validation"]
    levelled = task.levelled(found, lambda: (ready.validation, found))
    kept = [retention.kept(one, trained.model) for one in references]
    metric = intervals(how, Reading(rows, ready.validation, levelled))[task.primary_metric]
    return Judged(metric, min(kept, default=None))
