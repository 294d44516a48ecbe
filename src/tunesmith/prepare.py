"""The first half of the line: settings → data → model → plan. Trains nothing."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tunesmith import methods, tasks
from tunesmith.contracts import UNSOLVED, Examples, Facts, Loading, Method, Model, Task
from tunesmith.data.cut import where
from tunesmith.data.load import Dataset
from tunesmith.errors import SettingsError
from tunesmith.methods.changes import changed
from tunesmith.methods.defaults import precision_for
from tunesmith.models import adapters, blocks, heads, precision
from tunesmith.plans import Frontier, Plan
from tunesmith.registry import make
from tunesmith.run import scratch
from tunesmith.settings import Settings, UserModel
from tunesmith.train import processes
from tunesmith.train.cache import Store
from tunesmith.train.course import Job
from tunesmith.train.evidence import relative_gradients
from tunesmith.train.rehearsal import Rehearsal

Say = Callable[[str], None]


@dataclass(frozen=True)
class Material:
    """All that a plan is made for."""

    settings: Settings
    source: str | UserModel
    """Where the pre-trained weights are: what the settings name, or the folder of their adaptation."""
    task: Task
    dataset: Dataset
    model: Model
    """Pre-trained, with a new head; with the plan's adapters where there is but one plan."""
    train: Examples
    validation: Examples
    truncation: dict[str, Any] | None
    device: torch.device
    loading: Loading
    """How the method wanted the network."""
    store: Store
    """For what plans share."""


@dataclass(frozen=True)
class Prepared(Material):
    """All that training needs."""

    frontier: Frontier


def load_data(wanted: Settings, cache: Path) -> tuple[Task, Dataset]:
    """The task, and its data, audited and split."""
    task: Task = make("task", tasks.TABLE, wanted.task)
    return task, task.load_data(wanted.data, cache, wanted.seed)


def prepare(
    wanted: Settings, cache: Path, device: torch.device, say: Say, source: str | UserModel | None = None
) -> Prepared:
    """Read the data, load the model, tokenise, and make the plan.

    Args:
        source: where the pre-trained weights are, if not where the settings say.

    Raises:
        TunesmithError: a setting, the data or the model cannot be used.
    """
    method: Method = make("method", methods.TABLE, wanted.method)  # a wrong name or key should not wait for the data
    task, dataset = load_data(wanted, cache)
    for guess in dataset.columns.guesses:
        say(guess)
    for warning in dataset.audit["warnings"]:
        say(f"Note: {warning}")
    source = wanted.model if source is None else source
    model = task.load_model(
        source,
        dataset.labels,
        seed=wanted.seed,
        loading=method.loading,
        remote_code=wanted.trust_remote_code,
    )
    train, validation = (task.encode(dataset.splits[name], model) for name in ("train", "validation"))
    if not method.loading.fresh:
        task.calibrate(model, train)
    if task.relative:
        model.module.to(device)
        kept_in = precision_for(wanted.train, precision.native_bf16(device))
        train, validation = (task.anchored(one, model, kept_in) for one in (train, validation))
    for note in task.noted():
        say(f"Note: {note}")
    truncation = task.truncation(train, model)
    for note in _lost(truncation or {}, dataset.splits["train"].num_rows):
        say(f"Note: {note}")
    store = Store(cache / "activations")
    found = Material(wanted, source, task, dataset, model, train, validation, truncation, device, method.loading, store)
    decided = method.plan(model.stages, facts_of(found, model))
    frontier = (
        Frontier((changed(decided, wanted.plan, wanted.train.weight_decay),)) if isinstance(decided, Plan) else decided
    )
    if wanted.plan and frontier is decided:
        raise SettingsError(
            "Lines of a plan can be set for one method, not for auto, which tries several.", "Name one."
        )
    if len(frontier.candidates) == 1:
        model = with_adapters(model, frontier.candidates[0], wanted.seed)
        model.module.to(device)
    return Prepared(**vars(dataclasses.replace(found, model=model)), frontier=frontier)


def fresh_copy(ready: Prepared, device: torch.device, loading: Loading, source: str | UserModel | None = None) -> Model:
    """The network once more, as `loading` wants it and nothing trained.

    Args:
        source: where its weights are, if not where the run's own come from.
    """
    wanted = ready.settings
    model = ready.task.load_model(
        ready.source if source is None else source,
        ready.dataset.labels,
        seed=wanted.seed,
        loading=loading,
        remote_code=wanted.trust_remote_code,
    )
    if not loading.fresh:
        ready.task.calibrate(model, ready.train)
    model.module.to(device)
    return model


def network(ready: Prepared, plan: Plan) -> Model:
    """The network that `plan` trains: a copy of its own where several plans start from the same one."""
    return ready.model if len(ready.frontier.candidates) == 1 else _copied(ready, plan)


def _copied(found: Material, plan: Plan) -> Model:
    model = dataclasses.replace(found.model, module=copy.deepcopy(found.model.module))
    model = with_adapters(model, plan, found.settings.seed)
    model.module.to(found.device)
    return model


def job(found: Material, model: Model, plan: Plan, checkpoints: Path, references: tuple[Rehearsal, ...] = ()) -> Job:
    """What training needs to carry out `plan` on `model`."""
    return Job(
        task=found.task,
        model=model,
        plan=plan,
        train=found.train,
        validation=found.validation,
        seed=found.settings.seed,
        checkpoints=checkpoints,
        store=found.store,
        checkpoint_seconds=found.settings.train.checkpoint_seconds,
        references=references,
    )


def with_adapters(model: Model, plan: Plan, seed: int) -> Model:
    """`model` with the adapters of `plan`, where it has some."""
    if plan.adapter is None:
        return model
    return adapters.inject(model, plan.adapter, seed)


def facts_of(found: Material, model: Model) -> Facts:
    """What a method may know of the job that it plans for `model`."""

    def gradients(plan: Plan) -> Mapping[str, float]:
        with scratch() as folder:
            # Rounding may differ between processes, and a near-tie with it.
            return processes.agree(relative_gradients(job(found, _copied(found, plan), plan, folder)))

    classes = found.task.classes_of(found.train)
    own_head = found.task.keeps_head and model.head == "kept"
    tells = own_head and found.task.asked(found.train, np.arange(1)) is not None
    one_vector: Literal["features", "nothing"] = "nothing" if model.head in UNSOLVED else "features"
    return Facts(
        rows=found.train.rows,
        pieces=len(found.train) // found.task.together(found.train),
        choices=found.task.choices(model),
        hidden=heads.backbone_width(model),
        native_bf16=precision.native_bf16(found.device),
        head=model.head,
        head_hidden=heads.width_of(model),
        linear_blocks=bool(adapters.targets(model, [stage.name for stage in model.stages])),
        relative_gradients=gradients,
        settings=found.settings.train,
        variation=found.task.variation(found.train),
        weighed=found.task.weighed(),
        told=found.task.told(),
        packing=found.task.packing(found.train, model),
        rows_a_class=None if classes is None else len(classes) / len(np.unique(classes)),
        pace=found.task.pace,
        kept_apart=_kept_apart(found),
        normalised=blocks.normalise(model.module, model.blocks),
        holds="answers" if tells else one_vector,
        replays="loss" if own_head else one_vector,
    )


def _lost(truncation: Mapping[str, Any], rows: int) -> Iterator[str]:
    """What of the training rows is not read, or not learned, as sentences."""
    if truncation.get("rows_cut"):
        yield (
            f"{truncation['rows_cut']:,} of {rows:,} training rows are longer than {truncation['limit']:,} tokens and are "
            f"cut at the {where(truncation)}: {100 * truncation['share_of_tokens']:.1f} % of all tokens."
        )
    if truncation.get("rows_left_out"):
        yield (
            f"{truncation['rows_left_out']:,} of {rows:,} training rows are left out, as nothing that is to be learned of "
            f"them stands within {truncation['limit']:,} tokens."
        )
    if truncation.get("rows_refused"):
        yield (
            f"{truncation['rows_refused']:,} of {rows:,} training rows are left out, as the chat template refuses them. "
            f"{truncation['refused']}"
        )
    targets = truncation.get("targets", {})
    if targets.get("rows_cut"):
        yield (
            f"the targets of {targets['rows_cut']:,} training rows are longer than {targets['limit']:,} tokens; "
            f"{targets['tokens_lost']:,} tokens are cut from their ends, where no end is learned."
        )


def _kept_apart(found: Material) -> str | None:
    """Why rows of validation cannot train too, even when nothing is left to choose by them."""
    if not found.task.joins:
        return f"{found.task.name} keeps what it validates by out of training"
    return (
        "budget.time is for all, and that would take as long again" if found.settings.budget.time is not None else None
    )
