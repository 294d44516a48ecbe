"""contrastive: the backbone learns which rows are of one class by comparing them; then a head is solved for on what it gives.

SetFit (Tunstall et al. 2022): where there are few labels, comparing rows with each other teaches more than labelling each.
Theirs is a loss of sampled pairs; this one compares all rows of a step at once (supervised contrastive, Khosla et al. 2020,
equation 2), with several of each class in it. The head is solved for anew after each epoch, so that the best epoch is known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from tunesmith.contracts import Facts, Loading, Stage
from tunesmith.errors import SettingsError
from tunesmith.methods.defaults import Choices, choose, patience
from tunesmith.methods.phases import assemble, solved_head, trained
from tunesmith.plans import HEAD, Comparison, Plan, Refit
from tunesmith.settings import Strict, switch

STEPS = 60
"""At least so many, also where the epochs that full fine-tuning takes would be fewer."""
SMALLEST_BATCH, LARGEST_BATCH = 16, 64
"""Rows, of those that are chosen here; the more are compared at once, the more there is to learn of each."""
FEW = 16
"""Rows a class up to which comparing them is worth trying where nobody names a method, and up to which validation is too
small to end training by."""


class Contrastive:
    """Rows compared by their class, then a solved head."""

    name = "contrastive"
    loading = Loading()

    class Settings(Strict):
        """Settings of `contrastive`."""

        together: Annotated[int, Field(ge=2)] = 4
        """Rows of one class that stand in a step together."""
        scale: Annotated[float, Field(gt=0)] = 5.0
        """Of cosines in the loss, one over its temperature."""
        refit: Literal["auto", "on", "off"] = "auto"
        """Train once more on the rows of training and validation together, when all is chosen; `auto` where rows are few."""

        @pydantic.field_validator("refit", mode="before")
        @classmethod
        def _switched(cls, value: Any) -> Any:
            return switch(value)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan:
        """Raise SettingsError where rows have not one class each, or there is no head to solve for."""
        own = self.settings
        if facts.rows_a_class is None or facts.head != "linear":
            raise SettingsError(
                "The method contrastive compares rows by their class, and here rows have not one class each, or the head "
                "cannot be solved for.",
                "Use another method, such as full.",
            )
        choices = _choices(facts)
        rates = {stage.name: choices.learning_rate for stage in stages if stage.name != HEAD}
        reasons = [
            "Every stage of the backbone trains by comparing the rows of a step: those of one class are brought together, "
            f"others apart (supervised contrastive); up to {own.together} rows of one class stand in a step.",
            "After each epoch the head is solved for on what the backbone then gives, with the pooling that the files "
            "of the model name, or that is best before training, and the penalty that is best on validation.",
        ]
        phase = trained("comparing", stages, rates, choices.epochs, facts)
        phase = dataclasses.replace(phase, gentle=False, compares=Comparison(own.together, own.scale))
        phases = [*solved_head(stages, facts, gentle=False), phase]
        refit = self._refit(facts)
        if refit != "no":
            reasons.append(
                "When all is chosen, the same is trained once more on the rows of training and validation together, which "
                "takes as long again, and that is kept."
            )
        return assemble(self.name, phases, choices, facts, reasons, standard_head=False, refit=refit)

    def _refit(self, facts: Facts) -> Refit:
        wanted, why = self.settings.refit, facts.kept_apart
        if facts.settings.wise_ft:
            why = "train.wise_ft chooses by validation when training is over"
        if facts.settings.retain is not None:
            why = "what is kept of the reference, which train.retain asks for, would not be known before it"
        if wanted == "on" and why:
            raise SettingsError(f"method.refit is on, but {why}.", "Leave method.refit away.")
        if wanted == "on" or (wanted == "auto" and not why and _few(facts)):
            return "whole" if _few(facts) else "best"
        return "no"


def _choices(facts: Facts) -> Choices:
    """As for all weights; with batches that hold a good part of the rows, and more epochs where these are few."""
    wanted = facts.settings
    if wanted.batch_size == "auto":
        batch = min(LARGEST_BATCH, max(SMALLEST_BATCH, 2 ** int(math.log2(facts.rows))))
        facts = dataclasses.replace(facts, settings=wanted.model_copy(update={"batch_size": batch}))
    choices = choose(facts)
    reasons = [f"Batches of {choices.batch.rows} rows, as they are compared with each other.", *choices.reasons]
    epochs = choices.epochs
    if wanted.epochs == "auto" and (least := math.ceil(STEPS / math.ceil(facts.pieces / choices.batch.rows))) > epochs:
        reasons.append(f"{least} epochs instead, so that there are {STEPS} steps.")
        epochs = least
    if wanted.patience != "auto":
        waits = wanted.patience
    elif _few(facts):
        reasons.append("No epoch is left out, as so few rows a class leave few to validate by; the best one is kept.")
        waits = epochs
    else:
        waits = patience(facts, epochs)
    return dataclasses.replace(choices, epochs=epochs, patience=waits, reasons=tuple(reasons))


def _few(facts: Facts) -> bool:
    return facts.rows_a_class is not None and facts.rows_a_class <= FEW
