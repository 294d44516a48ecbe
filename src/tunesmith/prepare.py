"""The first half of the line: settings → data → model → plan. Trains nothing."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunesmith import methods, settings, tasks
from tunesmith.contracts import Examples, Facts, Method, Model, Task
from tunesmith.data.load import Dataset
from tunesmith.models import adapters, precision
from tunesmith.models.load import tiny_batch
from tunesmith.plans import Frontier, Plan
from tunesmith.registry import look_up
from tunesmith.settings import Named, Settings, TrainSettings
from tunesmith.train.cache import Store
from tunesmith.train.course import Job

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """All that training needs, and what was found on the way."""

    settings: Settings
    task: Task
    dataset: Dataset
    model: Model
    """Pre-trained, with a new head; with the plan's adapters where there is but one plan."""
    train: Examples
    validation: Examples
    frontier: Frontier
    truncation: dict[str, Any]
    device: torch.device


def make(kind: str, named: Named) -> Any:
    """The task or the method that `named` stands for, with its own settings checked."""
    table = {"task": tasks.TABLE, "method": methods.TABLE}[kind]
    found = look_up(kind, named.name, table)
    return found(settings.check(found.Settings, named.own, f"{kind} {named.name!r}"))


def load_data(wanted: Settings, cache: Path) -> tuple[Task, Dataset]:
    """The task, and its data, audited and split."""
    task: Task = make("task", wanted.task)
    return task, task.load_data(wanted.data, cache, wanted.seed)


def prepare(wanted: Settings, cache: Path, device: torch.device, say: Say) -> Prepared:
    """Read the data, load the model, tokenise, and make the plan.

    Raises:
        TunesmithError: a setting, the data or the model cannot be used.
    """
    method: Method = make("method", wanted.method)  # a wrong name or key should not wait for the data
    task, dataset = load_data(wanted, cache)
    for guess in dataset.columns.guesses:
        say(guess)
    for warning in dataset.audit["warnings"]:
        say(f"Note: {warning}")
    model = task.load_model(wanted.model, dataset.labels, seed=wanted.seed, remote_code=wanted.trust_remote_code)
    train, validation = (task.encode(dataset.splits[name], model) for name in ("train", "validation"))
    truncation = task.truncation(train, model)
    if truncation["rows_cut"]:
        say(
            f"Note: {truncation['rows_cut']:,} of {dataset.splits['train'].num_rows:,} training rows are longer than "
            f"{truncation['limit']:,} tokens; {truncation['share_of_tokens']:.1%} of all tokens are cut from their ends."
        )
    decided = method.plan(model.stages, facts_of(wanted.train, model, train, device))
    frontier = Frontier((decided,)) if isinstance(decided, Plan) else decided
    if len(frontier.candidates) == 1:
        model = _adapted(model, frontier.candidates[0], wanted.seed)
        model.module.to(device)
    return Prepared(wanted, task, dataset, model, train, validation, frontier, truncation, device)


def network(ready: Prepared, plan: Plan) -> Model:
    """The network that `plan` trains: a copy of its own where several plans start from the same one."""
    if len(ready.frontier.candidates) == 1:
        return ready.model
    model = dataclasses.replace(ready.model, module=copy.deepcopy(ready.model.module))
    model = _adapted(model, plan, ready.settings.seed)
    model.module.to(ready.device)
    return model


def job(ready: Prepared, plan: Plan, checkpoints: Path, store: Store) -> Job:
    """What training needs to carry out `plan`."""
    return Job(
        task=ready.task,
        model=network(ready, plan),
        plan=plan,
        train=ready.train,
        validation=ready.validation,
        seed=ready.settings.seed,
        checkpoints=checkpoints,
        store=store,
        checkpoint_seconds=ready.settings.train.checkpoint_seconds,
    )


def _adapted(model: Model, plan: Plan, seed: int) -> Model:
    if plan.adapter is None:
        return model
    return adapters.inject(model, plan.adapter, tiny_batch(model.module.config), seed)


def facts_of(settings: TrainSettings, model: Model, train: Examples, device: torch.device) -> Facts:
    """What a method may know of the job."""
    config: Any = model.module.config
    return Facts(
        rows=train.rows,
        pieces=len(train),
        classes=config.num_labels,
        hidden=config.get_text_config().hidden_size,
        native_bf16=precision.native_bf16(device),
        linear_blocks=bool(adapters.targets(model, [stage.name for stage in model.stages])),
        settings=settings,
    )
