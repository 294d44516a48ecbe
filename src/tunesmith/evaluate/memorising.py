"""A plain sentence when the model learns the training rows by heart instead of what they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RISE = 1.1
"""A validation loss this much above its least value, while the training loss still falls, is no noise of a few rows."""


def memorising(curve: Sequence[Mapping[str, Any]], kept: int | None) -> str | None:
    """The sentence, or None when the curve shows nothing of the kind.

    Args:
        curve: per epoch: epoch, train_loss, validation_loss, metric (higher is better).
        kept: the epoch whose weights were kept; 0 for those from before the first step.
    """
    if len(curve) < 2:
        return None
    least = min(curve, key=lambda entry: entry["validation_loss"])
    last = curve[-1]
    fell = last["train_loss"] < least["train_loss"]
    rose = last["validation_loss"] >= RISE * least["validation_loss"]
    # Where the answers still get better, a rising loss only says that the model is too sure; the temperature mends that.
    better = last["metric"] > least["metric"]
    if least is last or not fell or not rose or better:
        return None
    return (
        f"The model is memorising: after epoch {least['epoch']} the training loss went on falling, from "
        f"{least['train_loss']:.3f} to {last['train_loss']:.3f}, while the validation loss rose from "
        f"{least['validation_loss']:.3f} to {last['validation_loss']:.3f}. "
        + ("The weights from before training were kept. " if kept == 0 else "")
        + (f"The weights of epoch {kept} were kept. " if kept else "")
        + "Fewer epochs, a lower learning rate or more rows would help."
    )
