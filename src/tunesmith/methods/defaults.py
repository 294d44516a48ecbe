"""What `auto` stands for in the training settings, with the reason for each choice, in one place for all methods."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from tunesmith.contracts import NEW_HEADS, Facts
from tunesmith.errors import SettingsError
from tunesmith.plans import BatchShape
from tunesmith.settings import TrainSettings

RATE_AT_384 = 1e-4
"""Rate for all weights of a network of width 384 at batches of 64; wider networks bear less (inverse to the width)."""
HIGHEST_RATE = 5e-4
MOST_EPOCHS = 10
CONVOLUTIONS_WIDE = 64
"""What convolutions that were trained before count as, where their head is solved for: their blocks are narrower than what it
reads, and with normalisation of their own they bear more than attention does. Chosen on defects, clothes and digits with
two networks, see docs/benchmarks.md."""
FRESH_CONVOLUTIONS_WIDE = 192
"""What convolutions of random weights count as, at most: the head reads more channels than blocks have, and by their number
the rate would be too low. So wide, they get Adam's usual 1e-3 at batches of 64."""
CONVOLUTIONS_TIMES = 2
"""Times the epochs, for the same reason."""
NEW_RATE = 5
"""Times the rate that pre-trained weights bear."""
HEAD_TIMES = {"linear": 1, "none": 1, "kept": 1, "replaced": 2, "new": 5}
"""Times the epochs, by what there is of the head at the start: one that is solved for is learned already."""
PATIENCE, TIRED, CONVOLUTIONS_TIRED = 2, 5, 2
"""Epochs without a gain after which training stops; or a part of the epochs, where these are many. At the rate that
convolutions bear, validation falls at first and swings until the rate is low, so that they are given half of theirs."""


@dataclass(frozen=True)
class Choices:
    """The resolved training settings."""

    epochs: int
    learning_rate: float
    batch: BatchShape
    patience: int
    precision: Literal["bf16", "fp32"]
    reasons: tuple[str, ...]
    tests_rates: bool = True
    """Whether a range test may lower the rate."""


def choose(
    facts: Facts, *, passes: float = 1, rate: float = 1, most: int = MOST_EPOCHS, fresh: bool = False
) -> Choices:
    """Resolve every `auto` of the training settings from the facts of the job.

    Args:
        passes: times the epochs that full fine-tuning takes: fewer parameters need more steps.
        rate: times the rate that all weights bear: fewer parameters bear more.
        most: epochs, however few the rows are.
        fresh: whether the weights are random ones at the start.

    Raises:
        SettingsError: bf16 is asked for on a processor that only emulates it.
    """
    reasons: list[str] = []
    wanted = facts.settings
    batch = 64 if facts.rows >= 5_000 else 32 if facts.rows >= 1_000 else 16
    if wanted.batch_size != "auto":
        batch = wanted.batch_size
    else:
        reasons.append(f"Batches of {batch} rows, as the training split has {facts.rows:,} rows.")
    epochs = _how_long(facts, batch, passes, most, reasons)
    # Ten times the rate, as the fewest weights get it, was tried with the test only; random weights have nothing to win back.
    tests_rates = fresh or not convolutional(facts) or rate > 1
    bearable = _how_fast(facts, batch, rate, _width(facts, fresh=fresh), reasons, tests_rates=tests_rates)
    tokens = 4096 if wanted.micro_batch_tokens == "auto" else wanted.micro_batch_tokens
    found = epochs if fresh else patience(facts, epochs)
    if wanted.patience != "auto":
        found = wanted.patience
    elif fresh:
        reasons.append("No epoch is left out, as random weights show nothing for some time; the best one is kept.")
    precision = _precision(facts, reasons)
    return Choices(epochs, bearable, BatchShape(batch, tokens), found, precision, tuple(reasons), tests_rates)


def _how_long(facts: Facts, batch: int, passes: float, most: int, reasons: list[str]) -> int:
    """Epochs; `reasons` gets why."""
    if facts.settings.epochs != "auto":
        return facts.settings.epochs
    convolutions = convolutional(facts)
    times = CONVOLUTIONS_TIMES if convolutions else HEAD_TIMES[facts.head]
    epochs = min(times * most, round(passes * times * _epochs(facts, batch)))
    if facts.head in NEW_HEADS:
        reasons.append(
            f"{times} times the usual epochs, and for the head {NEW_RATE} times the rate of its width: it is "
            f"{facts.head}, and cannot be solved for as a linear layer can."
        )
    if convolutions:
        reasons.append(f"{times} times the usual epochs, as the network is made of convolutions.")
    steps = epochs * math.ceil(facts.pieces / batch)
    reasons.append(
        f"{epochs} epochs: {steps:,} steps for {facts.rows:,} rows"
        f"{f', each a choice among {facts.choices:,}' if facts.choices > 1 else ''}; training stops earlier when "
        "validation no longer improves."
    )
    return epochs


def _how_fast(facts: Facts, batch: int, times: float, width: int, reasons: list[str], *, tests_rates: bool) -> float:
    """The learning rate, so many times that of all weights of a network so wide; `reasons` gets why."""
    if facts.settings.learning_rate != "auto":
        return facts.settings.learning_rate
    # Adam's noise is kept by the square root of the batch (Malladi et al. 2022, section 4).
    bearable = facts.pace * times * min(HIGHEST_RATE, RATE_AT_384 * (384 / width) * math.sqrt(batch / 64))
    slower = (
        f" That is {facts.pace:g} times the usual rate, as the loss of the task asks for." if facts.pace != 1 else ""
    )
    reasons.append(
        f"Learning rate {bearable:.2g}, as the network {'is' if width == facts.hidden else 'counts as'} {width} wide"
        f"{', being made of convolutions,' if convolutional(facts) else ''} and batches have {batch} rows.{slower}"
    )
    if not tests_rates:
        reasons.append("No range test lowers it: the loss of convolutions may go up at first, and comes down again.")
    return bearable


def patience(facts: Facts, epochs: int) -> int:
    """Epochs without a gain that are waited for, of so many."""
    return max(PATIENCE, epochs // (CONVOLUTIONS_TIRED if convolutional(facts) else TIRED))


def _width(facts: Facts, *, fresh: bool) -> int:
    """What the network counts as."""
    if fresh:
        return facts.hidden if facts.linear_blocks else min(facts.hidden, FRESH_CONVOLUTIONS_WIDE)
    return min(facts.hidden, CONVOLUTIONS_WIDE) if convolutional(facts) else facts.hidden


def convolutional(facts: Facts) -> bool:
    """Whether the rules for convolutions hold: there are no linear layers in the blocks, which normalise what they put out,
    and the head is solved for."""
    return not facts.linear_blocks and facts.normalised and facts.head == "linear"


def new_rate(facts: Facts) -> float:
    """The learning rate of weights that nothing was learned with yet."""
    return NEW_RATE * choose(dataclasses.replace(facts, hidden=facts.head_hidden)).learning_rate


def _epochs(facts: Facts, batch: int) -> int:
    """Enough steps for what there is to choose from to be told apart, at least two passes, at most ten."""
    steps = 200 + 10 * min(facts.choices, 100)
    return max(2, min(MOST_EPOCHS, round(steps * batch / facts.pieces)))


def _precision(facts: Facts, reasons: list[str]) -> Literal["bf16", "fp32"]:
    chosen = precision_for(facts.settings, facts.native_bf16)
    if facts.settings.precision == "auto":
        reasons.append(f"Precision {chosen}, as this machine {'has' if facts.native_bf16 else 'has no'} native bf16.")
    return chosen


def precision_for(wanted: TrainSettings, native_bf16: bool) -> Literal["bf16", "fp32"]:
    """What train.precision stands for on a machine with native bf16, or without.

    Raises:
        SettingsError: bf16 is asked for on a processor that only emulates it.
    """
    if wanted.precision == "bf16" and not native_bf16:
        raise SettingsError(
            "train.precision is bf16, but this processor would only emulate it, slower than fp32.",
            "Use train.precision=auto.",
        )
    if wanted.precision != "auto":
        return wanted.precision
    return "bf16" if native_bf16 else "fp32"
