"""What a task can be asked: what teaches, what scores, and all that a run needs beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import torch
from pydantic import BaseModel

from tunesmith.contracts.network import Loading, Model
from tunesmith.contracts.planning import Packing, Variation
from tunesmith.contracts.values import Array, Batch, Batched, Examples, Features, Indices, Loss, Solved
from tunesmith.data.canonical import Canonical
from tunesmith.data.cells import Cells
from tunesmith.data.columns import Columns
from tunesmith.data.load import Dataset
from tunesmith.data.targets import Settled
from tunesmith.metrics.interval import Interval
from tunesmith.plans import Comparison, Phase, Plan
from tunesmith.settings import DataSettings, EvaluateSettings, UserModel


class Objective(Protocol):
    """What teaches a network."""

    name: str
    besides: Sequence[str]
    """What is logged of each step beside its loss; means, as the loss is one."""

    alike: bool
    """Whether rows of one step may be of similar length. Where a loss is a mean over tokens, those of short rows would count
    more than others."""

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
        loading: Loading = Loading(),  # noqa: B008 - frozen
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

    def asked(self, examples: Any, indices: Indices) -> Indices | None:
        """(places,) which of `indices` each row of logits belongs to, where the network is asked for tokens at some places of
        each example; None elsewhere."""
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

    def weighed(self) -> tuple[str, ...]:
        """How much rows count, as sentences, in what trains and in heads that are solved for."""
        ...

    def noted(self) -> tuple[str, ...]:
        """What should be said of this machine, as sentences; nothing of it is in the plan, which holds on another one too."""
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

    def class_intervals(
        self, examples: Any, logits: Array, settings: EvaluateSettings, seed: int, groups: Array | None
    ) -> tuple[str, Sequence[Interval | None]]:
        """The name of the figure of `per_class` in `details` that has intervals, and these; no name where there are none."""
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

    def tried(self, rows: pa.Table, model: Model) -> tuple[list[list[str]], Any]:
        """Raw inputs of a few rows to try a saved model with, and the Examples that its public loader makes of them."""
        ...

    def loading_code(self, model: Model, folder: str, inputs: int) -> str:
        """The lines of Python that open the saved model without Tunesmith; `inputs` columns make a row."""
        ...
