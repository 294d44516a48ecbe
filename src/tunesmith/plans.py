"""The plan: one total table that says what trains, how fast, and why. Frozen, printable, JSON; knows no torch.

A stage without a learning rate is frozen. Every stage stands in every phase; a plan that breaks a rule cannot be made.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.errors import SettingsError
from tunesmith.settings import ScheduleName

HEAD = "head"
"""The name of the stage that is added for the task; all others belong to the backbone."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate's factor as a pure function of the step, so that a resumed run cannot restart it.

    "linear", "cosine", "constant" and "warmup-stable-decay" climb in a straight line over the first `warmup` share of the
    steps. Then: down to zero in a straight line; along half a cosine (Loshchilov & Hutter 2017, equation 5); not at all;
    not at all until the last fifth, which goes down to zero in a straight line (Hu et al. 2024, section 4).
    "slanted-triangular" is equation 3 of Howard & Ruder 2018 with their values; "one-cycle" is Smith & Topin 2018: along
    cosines up from a 25th over three tenths of the steps, then down to a 10,000th of that.
    """

    name: ScheduleName = "linear"
    warmup: float = 0.1

    def factor(self, step: int, steps: int) -> float:
        """Factor in (0, 1] for optimiser step `step` (from 0) of `steps`."""
        if self.name == "slanted-triangular":
            return _slanted_triangular(step, steps)
        if self.name == "one-cycle":
            return _one_cycle(step, steps)
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / (math.floor(rising) + 1)
        left = (steps - step) / max(1.0, steps - rising)
        if self.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (1 - left)))
        if self.name == "constant":
            return 1.0
        return min(1.0, (steps - step) / (DECAY * steps)) if self.name == "warmup-stable-decay" else left


DECAY = 0.2


def _slanted_triangular(step: int, steps: int, rising: float = 0.1, ratio: float = 32) -> float:
    cut = max(1, math.floor(steps * rising))
    share = step / cut if step < cut else 1 - (step - cut) / max(1, steps - cut)
    return (1 + share * (ratio - 1)) / ratio


def _one_cycle(step: int, steps: int, rising: float = 0.3, first: float = 1 / 25, last: float = 1e-4 / 25) -> float:
    top = max(1.0, rising * steps - 1)
    if step < top:
        return first + (1 - first) * 0.5 * (1 - math.cos(math.pi * step / top))
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (step - top) / max(1.0, steps - top)))


Refit = Literal["no", "best", "whole"]
AdapterKind = Literal["lora", "dora", "rslora", "pissa", "ia3", "adalora", "vera", "prompt", "prefix"]
Part = Literal["all", "biases", "norms", "adapter"]
"""Which of a stage's parameters train."""


@dataclass(frozen=True)
class Row:
    """One stage in one phase. `learning_rate` None means frozen."""

    stage: str
    learning_rate: float | None
    weight_decay: float = 0.0
    part: Part = "all"
    upper_factor: float = 1.0
    """LoRA+'s ratio: the rate of adapters' B matrices over that of all else."""

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not (0 < self.learning_rate < math.inf):
            raise SettingsError(
                f"The plan gives stage {self.stage!r} the learning rate {self.learning_rate}.",
                "A rate is positive; a stage that should stay as it is has none.",
            )


@dataclass(frozen=True)
class Comparison:
    """Rows of a step are compared with each other by their class, in what the head receives of them."""

    together: int = 4
    """Rows of one class that stand in a step together."""
    scale: float = 5.0
    """Of cosines in the loss, one over the temperature."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one table.

    `head` = "solve": nothing trains by gradient; the head is the exact solution of a regularised linear problem on
    frozen features. `head` = "train": the rows with a rate train for `epochs`.
    """

    name: str
    head: Literal["solve", "train"]
    rows: tuple[Row, ...]
    epochs: int = 0
    schedule: Schedule = Schedule()
    statistics: Literal["kept", "head", "all"] = "kept"
    """Whose batch-norm follows the batches where it trains. Elsewhere it keeps the pre-trained statistics, which the solved
    head knows; then a row's gradient does not depend on the rows beside it. A new head has none to keep."""
    gentle: bool = True
    """Where the head is solved for: with a strong penalty, to start training from, or as well as it can be."""
    compares: Comparison | None = None
    """What teaches in place of the task's own loss. The head has no part in it, and is solved for anew after each epoch."""
    strength: float | None = None
    """Penalty of the head that is solved for, where it is known already; None chooses the one that is best on validation."""

    def __post_init__(self) -> None:
        names = [row.stage for row in self.rows]
        if len(set(names)) != len(names):
            raise SettingsError(f"Phase {self.name!r} of the plan names a stage twice: {', '.join(names)}.")
        trains = any(row.learning_rate is not None for row in self.rows)
        if self.head == "solve" and (trains or self.epochs):
            raise SettingsError(f"Phase {self.name!r} solves for the head, so it has neither epochs nor rates.")
        if self.head == "train" and not (trains and self.epochs > 0):
            raise SettingsError(f"Phase {self.name!r} trains, so it needs at least one rate and one epoch.")


def cut_of(phase: Phase) -> str | None:
    """The first stage of `phase` that trains: all before it can be kept. None where that is the very first."""
    for place, row in enumerate(phase.rows):
        if row.learning_rate is not None:
            return row.stage if place else None
    return None


@dataclass(frozen=True)
class RankBudget:
    """AdaLoRA's course: every layer starts with `initial` ranks, and the least important ones go (see models/budget.py)."""

    initial: int
    before: float = 0.1
    """Share of the steps before the first ranks go."""
    after: float = 0.4
    """Share of the steps at the end, in which the ranks that stay are settled."""
    orthogonality: float = 0.5
    """Weight of the penalty that keeps singular vectors orthogonal."""


@dataclass(frozen=True)
class Adapter:
    """Small trainable parts beside frozen weights: which, how large, where."""

    kind: AdapterKind
    blocks: tuple[str, ...]
    """The stages that have them."""
    rank: int = 8
    """Of the update of each layer; with a budget, the mean that is left at the end."""
    alpha: float = 16.0
    dropout: float = 0.0
    merge: bool = True
    """Whether they are folded into the weights at the end."""
    budget: RankBudget | None = None
    tokens: int = 0
    """Virtual tokens of a prompt or a prefix."""


@dataclass(frozen=True)
class Guards:
    """What is done beside following the gradient; each goes with any method."""

    l2_sp: float = 0.0
    """Strength of the pull back to the pre-trained weights."""
    ema: float | None = None
    """Decay of the moving average of the weights that is validated and kept instead of the weights themselves."""
    swa: float | None = None
    """Last share of the steps over which the weights are averaged equally; that average is validated and kept."""
    ewc: float = 0.0
    """Strength of the pull back to the pre-trained weights, each by its importance."""
    distil: float = 0.0
    """Strength that holds features of training rows, or the tokens told, near those of the pre-trained network."""
    replay: float = 0.0
    """Share of each batch that is reference rows, whose features are held near those of the pre-trained network, or which a
    language model learns."""
    wise_ft: bool = False
    """Whether weights from before and after training are mixed at the end."""
    r_drop: float = 0.0
    """Strength that makes two passes of different dropout agree."""
    mixup: float = 0.0
    """Alpha of the Beta distribution from which shares of mixed rows are drawn."""
    mixup_of: Literal["hidden", "inputs"] = "hidden"
    """What `mixup` mixes: what the last layer receives, or images."""
    cutmix: float = 0.0
    """Alpha of the Beta distribution from which shares of mixed images are drawn, of which one is pasted into the other."""
    sam: float = 0.0
    """Length of the step up that each gradient is taken after."""

    @property
    def reads_beyond_head(self) -> bool:
        """Whether the loss may depend on more of what the backbone gives than the head reads of it."""
        return self.distil > 0 or self.replay > 0

    @property
    def mixes_inputs(self) -> bool:
        """Whether the network is given images that are made of two, so that what a stage puts out belongs to no row."""
        return self.cutmix > 0 or (self.mixup > 0 and self.mixup_of == "inputs")

    @property
    def needs_start(self) -> bool:
        """Whether the weights from before training are needed again later."""
        return self.wise_ft or self.ewc > 0 or self.reads_beyond_head

    def without_origin(self) -> Guards:
        """Those that need no pre-trained network to hold on to."""
        return dataclasses.replace(self, l2_sp=0.0, ewc=0.0, distil=0.0, replay=0.0, wise_ft=False)


@dataclass(frozen=True)
class BatchShape:
    """`rows` make one optimiser step over all processes; `micro_batch_tokens` bounds one forward pass, padding included."""

    rows: int
    micro_batch_tokens: int
    packed: int = 0
    """Tokens of a sequence into which training rows are packed; 0 where each is a sequence of its own."""


@dataclass(frozen=True)
class Plan:
    """Everything that training needs to know besides model and data."""

    method: str
    phases: tuple[Phase, ...]
    precision: Literal["bf16", "fp32"]
    batch: BatchShape
    clip_norm: float = 1.0
    patience: int = 2
    tests_rates: bool = True
    """Whether a range test may lower the rates: what convolutions lose at first, they win back."""
    dropout: float | None = 0.0
    """None keeps what the model's configuration says."""
    adapter: Adapter | None = None
    guards: Guards = Guards()
    cache: bool = True
    """Whether what frozen stages put out may be kept; `train` finds out whether it can be, and pays."""
    standard_head: bool = True
    """The head must be the one that the model's own class has, so that `pipeline` opens the result."""
    reasons: tuple[str, ...] = ()
    variant: str = ""
    """What tells it from other plans of the same method: "last 2"."""
    views: int = 1
    """Variants of each training row that epochs go through in turn; the first is the row as it is."""
    share_of_epoch: float = 1.0
    """The share of the rows that makes an epoch, where time does not allow for all; each epoch draws others."""
    refit: Refit = "no"
    """Whether all is trained once more, on the rows of training and validation together, when nothing is left to choose: for
    as many epochs as the best one took, or, where validation is too small to tell epochs apart, for the whole of them."""

    def __post_init__(self) -> None:
        tables = [tuple(row.stage for row in phase.rows) for phase in self.phases]
        if not tables:
            raise SettingsError("The plan has no phase, so nothing would be trained.")
        if any(table != tables[0] for table in tables):
            raise SettingsError("Every phase of a plan names every stage, in the same order.")

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(row.stage for row in self.phases[0].rows)

    @property
    def label(self) -> str:
        """The method, and what tells the plan from others of that method."""
        return f"{self.method}, {self.variant}" if self.variant else self.method

    @property
    def epochs(self) -> int:
        """Of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Frontier:
    """Several plans, cheapest first: they are tried on the same rows, and the best by validation is kept."""

    candidates: tuple[Plan, ...]
    reasons: tuple[str, ...] = ()
    preferred: str | None = None
    """The label of the plan that is kept unless another is better beyond its interval, where validation is too small to say
    which is best."""

    def __post_init__(self) -> None:
        labels = [plan.label for plan in self.candidates]
        if not labels:
            raise SettingsError("There is nothing to try.", "Name at least one method under method.candidates.")
        if len(set(labels)) != len(labels):
            raise SettingsError(f"A method is to be tried twice with the same settings: {', '.join(labels)}.")
