"""What the floors say to each other: the Protocols Task and Method, and the small values that cross between them.

`train` receives a Task and a Plan as values and knows no task or method by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pydantic import BaseModel
from torch import nn

from tunesmith.data.canonical import Canonical
from tunesmith.data.cells import Cells
from tunesmith.data.columns import Columns
from tunesmith.data.load import Dataset
from tunesmith.data.targets import Settled
from tunesmith.metrics.interval import Interval
from tunesmith.plans import Adapter, BatchShape, Comparison, Frontier, Part, Phase, Plan
from tunesmith.settings import DataSettings, EvaluateSettings, TrainSettings, UserModel

Indices = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
Batch = Mapping[str, torch.Tensor]
Collate = Callable[[Indices], Batch]
"""Indices of examples to what the network is given."""


class Loss(NamedTuple):
    """A loss as a sum and a count; divided once, at the end, over all micro-batches and processes."""

    sum: torch.Tensor
    """Scalar, fp32, with its graph."""
    count: float  # type: ignore[assignment]  # hides tuple.count, which nobody asks of a loss
    """How many rows (or parts of rows) the sum runs over."""


@dataclass(frozen=True)
class Head:
    """A linear head: pooling, weight (outputs, width), bias (outputs,)."""

    pooling: str
    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    strength: float | None = None
    """Of the penalty that it was solved for with, where it was."""


@dataclass(frozen=True)
class Solved:
    """The head to go on with, the head of the best probe, and what was tried on the way."""

    start: Head
    probe: Head
    tried: Mapping[str, float]
    """Pooling to its score on validation."""


@dataclass(frozen=True)
class Features:
    """Of the pre-trained network: what heads are solved for on, and what was solved for; filled by who needs it first."""

    by_split: dict[str, dict[str, Array]] = field(default_factory=dict)
    """By split and pooling: (pieces, width)."""
    solved: dict[tuple[str, tuple[float, ...]], Any] = field(default_factory=dict)
    """By pooling and strengths."""


class Examples(Protocol):
    """Rows as the network takes them, not yet padded; a long row may lie in several pieces, each an example of its own."""

    @property
    def lengths(self) -> Indices:
        """(examples,) what each one costs, in tokens."""
        ...

    @property
    def read_lengths(self) -> Indices:
        """(examples,) how many of these the first blocks see: fewer where a decoder reads what was written so far."""
        ...

    @property
    def rows(self) -> int: ...

    @property
    def owner(self) -> Indices:
        """(examples,) the row that each belongs to, ascending."""
        ...

    @property
    def targets(self) -> Array | None:
        """(rows,) class index or score, or (rows, labels) of 0 and 1; None where nothing is known."""
        ...

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """(examples,) the share of its row that each is, so that every row counts once in the loss."""
        ...

    @property
    def key(self) -> str:
        """A checksum over what the network is given of them."""
        ...

    def __len__(self) -> int: ...

    def count(self, indices: Indices) -> float:
        """What `indices` add to a loss's count; known before the forward pass, so that processes can agree on it."""
        ...


class Batched(NamedTuple):
    """Examples and how batches of them are made."""

    examples: Any
    collate: Collate


@dataclass(frozen=True)
class Parameter:
    """A parameter of the network, by its full name."""

    name: str
    size: int
    """How many numbers it holds."""
    bias: bool
    norm: bool
    """Whether a normalisation layer owns it."""
    adapter: bool = False
    """Whether it was added for fine-tuning."""


_CHOOSE: Mapping[Part, Callable[[Parameter], bool]] = {
    "all": lambda _: True,
    "biases": lambda member: member.bias,
    "norms": lambda member: member.norm,
    "adapter": lambda member: member.adapter,
}


@dataclass(frozen=True)
class Stage:
    """One step of the network in depth order, with the parameters that it owns."""

    name: str
    members: tuple[Parameter, ...]
    bare: tuple[str, ...] = ()
    """Modules without parameters that run as part of it, such as the dropout after the embeddings."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Full names."""
        return tuple(member.name for member in self.members)

    @property
    def size(self) -> int:
        """How many numbers the parameters hold."""
        return sum(member.size for member in self.members)

    def chosen(self, part: Part) -> tuple[Parameter, ...]:
        """The parameters that a row of the plan with this `part` trains."""
        return tuple(member for member in self.members if _CHOOSE[part](member))


Modality = Literal["text", "image"]
HeadKind = Literal["linear", "replaced", "new", "kept", "none"]
"""What the head is at the start: "linear" in its last layer, which can be solved for; a trained one, of which some layers are
"replaced" by new ones; all "new"; "kept": the one that the files bring, which goes on as it is; or "none", where what the
backbone gives is all that is wanted."""
NEW_HEADS: Sequence[HeadKind] = ("replaced", "new")
"""Those with weights that nothing was learned with yet."""
UNSOLVED: Sequence[HeadKind] = (*NEW_HEADS, "kept")
"""Those that train by gradient from the first step, if at all."""


@dataclass(frozen=True)
class Model:
    """A network with what prepares its input. `module(**batch)` returns an object with `.logits`."""

    module: nn.Module
    processor: Any
    stages: tuple[Stage, ...]
    blocks: tuple[str, ...]
    """The modules that its blocks are, by full name, in depth order."""
    source: str | UserModel
    """What the user asked for: Hub id, folder, builtin name, or a network of their own."""
    folder: str
    """Where the pre-trained files were found."""
    limit: int
    """Longest input, in tokens."""
    backbone: str
    """The attribute of `module` that holds the pre-trained part; empty where that is `module` itself, head and all."""
    example: Batch
    """A batch that the network takes, as small as may be, to see with how it is made."""
    modality: Modality
    """What it reads."""
    pooling: str
    """How a row becomes one vector: "own" is the way of the model's own class."""
    opens: str
    """transformers' class that opens it once it is saved, such as "AutoModelForSequenceClassification"."""
    remote_code: bool = False
    """Whether Python code that lies beside the weights may run; it was allowed for all of them or for none."""
    adapter: Adapter | None = None
    """Set while adapters stand beside its weights."""
    head: HeadKind = "linear"
    head_inside: tuple[str, ...] = ()
    """Modules of the head that stand inside the backbone."""
    absent: tuple[str, ...] = ()
    """Parameters of the backbone that the files do not hold, and that are new: a pooler, often."""
    four_bit: bool = False
    """Whether the linear layers of its blocks are kept in 4 bits."""
    resized: bool = False
    """Whether its weights differ from those in its files, as it reads images of another size, or writes where these only
    read."""
    decoder: str = ""
    """The module that writes what it writes, of a network of two halves, of which the other one reads; empty elsewhere."""

    @property
    def start(self) -> str:
        """How the full names of what the backbone holds begin."""
        return f"{self.backbone}." if self.backbone else ""

    @property
    def reading(self) -> tuple[str, ...]:
        """Those of its blocks that see nothing but the input: all but a decoder's."""
        return tuple(name for name in self.blocks if not (self.decoder and name.startswith(f"{self.decoder}.")))

    @property
    def language(self) -> bool:
        """Whether it is a language model, which gives a logit to each token of its vocabulary, wherever it is asked."""
        return self.opens in ("AutoModelForCausalLM", "AutoModelForMaskedLM")


@dataclass(frozen=True)
class Loading:
    """How a method wants the network, before there is a plan."""

    fresh: bool = False
    """New weights throughout: the same network from scratch."""
    four_bit: bool = False
    """The linear layers of its blocks in 4 bits."""
    reserved: int = 0
    """Positions that virtual tokens take from the text."""
    apart: bool = False
    """A matrix of its own for a head that shares one with the embeddings, as language models have it, so that it can train
    alone."""


@dataclass(frozen=True)
class Variation:
    """How training rows are varied at random from epoch to epoch."""

    views: int | None
    """Fixed variants of each row; None for a new one each epoch."""
    told: str
    """What is varied, as a sentence."""


@dataclass(frozen=True)
class Packing:
    """How training rows can be packed into sequences, in which none sees another."""

    tokens: int
    """Of a sequence."""
    wanted: bool
    """Whether the user asks for it; otherwise it is done where it saves work."""
    padding: Callable[[BatchShape], float]
    """The share of what an epoch passes forward in such batches that is padding, where rows are not packed."""


@dataclass(frozen=True)
class Facts:
    """What a method may know of the job when it makes its plan."""

    rows: int
    """Of the training split."""
    pieces: int
    """What batches of one epoch are made of: as many as rows, or more where long rows are read in windows."""
    choices: int
    """Among how many an answer is chosen: classes, or places."""
    hidden: int
    native_bf16: bool
    linear_blocks: bool
    """Whether the blocks have linear layers, which adapters go into."""
    head: HeadKind
    head_hidden: int
    """The head's own width, by which its rate goes where it cannot be solved for."""
    relative_gradients: Callable[[Plan], Mapping[str, float]]
    """Carries out a plan on a copy of the network; then the gradient's length over that of the weights, by stage."""
    settings: TrainSettings
    variation: Variation | None = None
    """None where each epoch passes the rows as they are."""
    told: tuple[str, ...] = ()
    """What the task decided of itself, as sentences."""
    packing: Packing | None = None
    """None where rows cannot be packed."""
    rows_a_class: float | None = None
    """Where each row has one class, how many rows a class has on average; None elsewhere."""
    pace: float = 1.0
    """Times the usual learning rate that the loss of the task bears."""
    kept_apart: str | None = None
    """Why rows of validation cannot train too, even when nothing is left to choose by them; None where they can."""


class Objective(Protocol):
    """What teaches a network."""

    name: str

    @property
    def compares(self) -> bool:
        """Whether the loss compares the rows of a step with each other, and so is of whole steps, not of each row."""
        ...

    def read(self, output: Any) -> torch.Tensor:
        """(rows, …): what the loss reads of the network's output, its logits often."""
        ...

    def loss(self, logits: torch.Tensor, examples: Any, indices: Indices) -> Loss:
        """The loss of `logits`, as `read` gives them, for the examples `indices`, as a sum and a count."""
        ...


class Scoring(Objective, Protocol):
    """What a network can be asked to do and scored on: the task of a run, or that of reference data. `outcome` takes what
    `read` gives, too."""

    Settings: type[BaseModel]
    cells: Cells
    """What one input is."""
    keeps_head: bool
    """Whether `load_model` brings the checkpoint's own head, without which there is nothing to score."""

    relative: bool
    """Whether it is scored against the network from before training, so that one network by itself says nothing."""

    @property
    def writes(self) -> bool:
        """Whether its primary metric is one of texts, which have to be written first."""
        ...

    @property
    def primary_metric(self) -> str:
        """The metric that counts; `metrics.direction` says which way it gets better."""
        ...

    def load_data(self, settings: DataSettings, cache: Path, seed: int) -> Dataset: ...

    def load_model(
        self,
        source: str | UserModel,
        labels: Sequence[str],
        *,
        seed: int,
        loading: Loading = Loading(),
        remote_code: bool = False,
    ) -> Model:
        """The pre-trained network, as `loading` wants it, with a new head or with its own."""
        ...

    def encode(self, rows: pa.Table, model: Model) -> Any:
        """`rows` as Examples, in the task's own class."""
        ...

    def inputs(self, examples: Any, indices: Indices, model: Model) -> Batch:
        """What the network takes, padded."""
        ...

    def outcome(self, logits: torch.Tensor, examples: Any, indices: Indices) -> torch.Tensor:
        """(len(indices), outputs): what is kept of `logits` for the examples `indices`, to be scored."""
        ...

    def decode(self, examples: Any, logits: Array) -> Array:
        """Outcomes per row, (rows, outputs), from those per piece of a row."""
        ...

    def levelled(self, logits: Array, validation: Callable[[], tuple[Any, Array]]) -> Array:
        """Outcomes of one network, to be measured beside another's: where a number that is fitted on validation decides what
        is answered, each has its own.

        Args:
            validation: makes the examples of validation, with the outcomes of the same network.
        """
        ...

    def score(self, examples: Any, logits: Array) -> Mapping[str, float]:
        """`loss` and the primary metric of logits per row, for the learning curve, and what else belongs there."""
        ...

    def intervals(
        self, examples: Any, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Mapping[str, Interval]:
        """All metrics, each with its interval."""
        ...

    def difference(
        self, examples: Any, logits: Array, other: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> Interval:
        """Primary metric of `logits` minus that of `other`, paired by row."""
        ...


class Task(Scoring, Protocol):
    """What the model must do. One file a task in `tasks`."""

    constant: str
    """What its baseline is called that looks at no input: "majority", the commonest answer."""
    pace: float
    """Times the usual learning rate that its loss bears."""
    joins: bool
    """Whether rows of validation have answers of the same kinds as those of training, so that they can train too."""
    rows_each: int
    """How many rows of a batch one example takes."""

    @staticmethod
    def tiny(folder: Path) -> dict[str, Any]:
        """Settings (model, data) of a run that takes a second, with a few rows and a two-block backbone in `folder`."""
        ...

    def adopt(self, problem: str) -> None:
        """Settle what the data decide: the kind of target."""
        ...

    def outputs(self, labels: Sequence[str]) -> Sequence[str]:
        """What the outputs of a network for `labels` are called, in their order."""
        ...

    def choices(self, model: Model) -> int:
        """Among how many an answer is chosen."""
        ...

    def calibrate(self, model: Model, train: Any) -> None:
        """Set what of a new head nothing but data can tell, before anything is trained; the same for the same rows."""
        ...

    def anchored(self, examples: Any, original: Model, precision: str) -> Any:
        """`examples` with what is kept of the network from before training, where the task is scored against it.

        Args:
            original: that network, on the device that is to compute.
        """
        ...

    def reopen(self, folder: Path, *, remote_code: bool = False) -> Model:
        """The model that a run left in `folder`, ready for new inputs."""
        ...

    def together(self, examples: Any) -> int:
        """How many neighbouring examples make a row that has a loss only as a whole, and is never parted; mostly 1."""
        ...

    def load_labelled(
        self, source: str, settings: DataSettings, columns: Columns, settled: Settled, cache: Path
    ) -> Canonical:
        """Other rows like those of the training data, for a model that is trained already.

        Args:
            columns, settled: as the training data had them.
        """
        ...

    def order(self, examples: Any, seed: int, epoch: int) -> Indices | None:
        """The order in which an epoch takes the rows of `examples`, where neighbours belong into one step; None where chance
        and length decide."""
        ...

    def classes_of(self, examples: Any) -> Indices | None:
        """(examples,) the class of each, by which they can be compared; None where they have not one class each."""
        ...

    def contrast(self, vectors: torch.Tensor, examples: Any, indices: Indices, how: Comparison) -> Loss:
        """A loss that compares the examples `indices` by their class; `vectors`: (rows, width) of length 1."""
        ...

    def sampled(self, model: Model, examples: Any, logits: Array, precision: str) -> Array:
        """`logits`, as `decode` gives them, with what `score` needs beside them: texts written for a few rows."""
        ...

    def answered(self, model: Model, examples: Any, logits: Array, precision: str, *, every: bool = False) -> Array:
        """`logits`, as `decode` gives them, with what takes more than one pass: texts that the network writes.

        Args:
            every: for all rows, and not only for as many as the settings say, to measure by.
        """
        ...

    def samples(self, rows: pa.Table, examples: Any, said: Mapping[str, Array], model: Model) -> list[dict[str, Any]]:
        """A few rows with what is written for them by each of `said`, name to `answered`; none where nothing is written."""
        ...

    def learned(self, rows: pa.Table, examples: Any, model: Model) -> list[dict[str, Any]]:
        """A few rows in their tokens, `id` and `tokens` as pairs of text and whether it is learned; none where rows are
        labelled whole."""
        ...

    def complete(self, model: Model, train: Any, precision: str) -> None:
        """Set what of the head follows from the trained network and the training rows, before the model is measured."""
        ...

    def repeated(self, rows: pa.Table, others: pa.Table, threshold: float) -> int:
        """How many of `rows` stand among `others` too, exactly or at least this alike."""
        ...

    def truncation(self, examples: Any, model: Model) -> dict[str, Any] | None:
        """How many rows were cut, and how much of them; None where inputs have no length."""
        ...

    def told(self) -> tuple[str, ...]:
        """What its settings and the data made it decide about training, as sentences."""
        ...

    def variation(self, examples: Any) -> Variation | None:
        """How the training rows `examples` are to be varied; None where they are passed as they are."""
        ...

    def varied(self, examples: Any, views: int, seed: int) -> Examples:
        """`examples` in so many views: example v · len(examples) + i is view v of example i; view 0 is as it is."""
        ...

    def packing(self, examples: Any, model: Model) -> Packing | None:
        """How the training rows `examples` can be packed; None where they cannot be, or must not."""
        ...

    def packed(self, examples: Any, tokens: int) -> Examples:
        """`examples`, which `inputs` then packs into sequences of so many tokens."""
        ...

    def shown_views(self, rows: pa.Table, examples: Any, views: int, seed: int) -> list[dict[str, Any]]:
        """A few training rows in some of their views, as the report shows them: `id`, and `images` as data URIs."""
        ...

    def solve_head(
        self, model: Model, train: Batched, validation: Batched, plan: Plan, phase: Phase, seed: int, kept: Features
    ) -> Solved:
        """The head as the solution of a regularised linear problem on frozen features, for a "solve" phase of `plan`.

        Args:
            kept: features that were computed before, and those that are computed now, for the next plan that needs them.
        """
        ...

    def solved_on(self, examples: Any) -> int:
        """How many rows of features a head is solved for on, of the training rows `examples`."""
        ...

    def commonest(self, train: Any, examples: Any, model: Model) -> Array:
        """Outcomes (rows, outputs) for `examples` of always giving the commonest answer of the training rows."""
        ...

    def fitted(self, examples: Any, logits: Array) -> float | None:
        """The number that is fitted on validation to make answers of outcomes: of classes the temperature, of boxes the
        score from which one counts. None where there is none."""
        ...

    def keep(self, fitted: float | None) -> None:
        """Measure from now on by the number that was fitted, where that decides what is answered."""
        ...

    def details(self, examples: Any, logits: Array, labels: Sequence[str], fitted: float | None) -> dict[str, Any]:
        """Further sections of the report: per-class table, confusion, calibration, …"""
        ...

    def mistakes(
        self, rows: pa.Table, examples: Any, logits: Array, labels: Sequence[str], fitted: float | None, most: int
    ) -> list[dict[str, Any]]:
        """The worst mistakes, as people can read them."""
        ...

    def predictions(self, rows: pa.Table, logits: Array, labels: Sequence[str], fitted: float | None) -> pa.Table:
        """id, group and truth where they are known, prediction, scores."""
        ...

    def compared(
        self,
        first: pa.Table,
        second: pa.Table,
        labels: Sequence[str],
        settings: EvaluateSettings,
        seed: int,
        groups: Array | None,
    ) -> Interval:
        """Primary metric of the `predictions` in `first` minus that of those in `second`, paired by row."""
        ...

    def tried(self, rows: pa.Table, model: Model, most: int) -> tuple[list[list[str]], Any]:
        """A few raw inputs to try a saved model with, and the Examples that its public loader makes of them."""
        ...

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        """The lines of Python that open the saved model without Tunesmith; `inputs` columns make a row."""
        ...


class Method(Protocol):
    """How the weights change. One file a method in `methods`."""

    name: str
    Settings: type[BaseModel]
    loading: Loading
    """How the network is to be loaded."""

    def plan(self, stages: Sequence[Stage], facts: Facts) -> Plan | Frontier:
        """What to do; or several ways, of which training keeps the best by validation."""
        ...
