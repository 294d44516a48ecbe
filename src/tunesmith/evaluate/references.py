"""Reference data: read, encoded for the pre-trained network, with the head that goes with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith import seeds, tasks
from tunesmith.contracts import UNSOLVED, Batched, Examples, Loading, Model, Scoring, Task
from tunesmith.data.targets import voted
from tunesmith.errors import SettingsError
from tunesmith.models import own_head
from tunesmith.registry import make
from tunesmith.settings import Named, ReferenceSettings

Say = Callable[[str], None]
OWN, PROBE = "own", "probe"
INHERITED = ("image_size",)
"""Settings of the run's task that a reference of the same task has too, unless it says otherwise."""


@dataclass(frozen=True)
class Data:
    """Rows of a reference, and a network of their task with the pre-trained backbone."""

    name: str
    task: Scoring
    model: Model
    """Its backbone is the original one; its head the checkpoint's own, or one to solve for."""
    probing: Task | None
    """What solves for a head; None where the checkpoint's own is used."""
    rows: dict[str, pa.Table]
    """train, validation, test."""
    examples: dict[str, Examples]
    """The same, as the network takes them."""
    classes: int
    """How many labels there are; 0 for scores."""

    @property
    def head(self) -> str:
        """ "own" or "probe"."""
        return OWN if self.probing is None else PROBE

    def batched(self, split: str) -> Batched:
        """A split with what makes batches of it."""
        examples = self.examples[split]
        return Batched(examples, partial(self.task.inputs, examples, model=self.model))


def read(wanted: ReferenceSettings, original: Model, task: Named, cache: Path, seed: int, say: Say) -> Data:
    """The reference `wanted`, ready to be measured.

    Args:
        task: the run's own; the reference takes its name where it has no task of its own.
        cache: a folder of its own for memory-mapped rows.

    Raises:
        TunesmithError: the data cannot be used, or the checkpoint has no such head as is asked for.
    """
    named = wanted.task or Named(name=task.name)
    if named.name == task.name:  # the run's network reads images of that size
        own = {key: task.own[key] for key in INHERITED if key in task.own}
        named = Named(name=named.name, **(own | named.own))
    found = make("task", tasks.TABLE | tasks.REFERENCES, named, f"evaluate.retention {wanted.name!r}")
    if found.relative:
        raise SettingsError(
            f"evaluate.retention {wanted.name!r} is about {named.name}, which says how a network differs from the one before "
            "training: of that one by itself it says nothing.",
            "Name another task for it, such as causal-lm, with data of that kind.",
        )
    if found.writes:
        raise SettingsError(
            f"evaluate.retention {wanted.name!r} is to be measured by {found.primary_metric}, for which texts would have to "
            "be written; of references the loss alone is measured.",
            f"Give it a task of its own: {{name: {named.name}, metric: perplexity}}.",
        )
    dataset = found.load_data(wanted.data, cache, seed)
    load = partial(found.load_model, original.source, remote_code=original.remote_code)
    if found.keeps_head:
        model, probing = _with_own_head(wanted, load(dataset.labels, seed=seed, loading=Loading(apart=True))), None
    else:
        model, probing = _classifier(wanted, found, original, dataset.labels, load, seed, say)
    model.module.eval()
    # The run may keep positions free for virtual tokens; rows that are replayed pass through its network.
    kept_free = original.adapter.tokens if original.adapter else 0
    limit = (
        max(1, model.limit - kept_free) if probing is None and found.keeps_head else min(model.limit, original.limit)
    )
    if probing is not None and model.head != "linear":
        raise SettingsError(
            f"evaluate.retention {wanted.name!r} is about {named.name}, whose head cannot be solved for anew as a probe's can"
            + (", and the checkpoint brings none for these classes." if wanted.head != PROBE else "."),
            "Give data with the checkpoint's own classes (head: auto), or name another task, such as image-classification.",
        )
    model = dataclasses.replace(model, limit=limit)
    rows = {name: _some(split, wanted.rows, seed, name) for name, split in dataset.splits.items()}
    examples = {name: found.encode(split, model) for name, split in rows.items()}
    if probing is not None:
        probing.calibrate(model, examples["train"])
    near = " and nearest neighbours" if probing is not None and voted(rows["test"]) else ""
    say(
        f"Reference {wanted.name!r}: {rows['test'].num_rows:,} test rows, measured with "
        + ("the checkpoint's own head." if probing is None else f"a probe{near}.")
    )
    return Data(wanted.name, found, model, probing, rows, examples, len(dataset.labels))


def _with_own_head(wanted: ReferenceSettings, model: Model) -> Model:
    """`model`, for which no other head can stand in."""
    if wanted.head not in ("auto", OWN):
        raise SettingsError(
            f"evaluate.retention {wanted.name!r} asks for head: {wanted.head}, but a language model keeps its own.",
            "Leave head away.",
        )
    if model.head != "kept":
        raise SettingsError(
            f"evaluate.retention {wanted.name!r} asks what {model.source} could write before, but its files only read.",
            "Measure this model by labelled data.",
        )
    return model


def _classifier(
    wanted: ReferenceSettings,
    task: Task,
    original: Model,
    labels: Sequence[str],
    load: Callable[..., Model],
    seed: int,
    say: Say,
) -> tuple[Model, Task | None]:
    """The network with the checkpoint's own head in the order of `labels`; or with one that the task must solve for."""
    model = load(labels, seed=seed)
    order = _order(wanted, original, task.outputs(labels), say)
    if order is None:
        return model, task
    if wanted.head == "own-in-order" and model.head in UNSOLVED:  # such a head is kept for the classes that it knows
        labels = own_head.names_of(original)
        model = load(labels, seed=seed)
    if not own_head.same_head(model, load(labels, seed=seed + 1)):
        _insist_probe(wanted, f"{original.source} names such labels, but brings no weights of a head for them")
        return model, task
    own_head.reorder(model, order)
    return model, None


def _order(wanted: ReferenceSettings, original: Model, labels: Sequence[str], say: Say) -> list[int] | None:
    """Which output of the checkpoint's head stands for each label; None where a probe is to be used."""
    if wanted.head == PROBE or (wanted.head == "auto" and not labels):
        return None
    names = own_head.names_of(original)
    if wanted.head == "own-in-order":
        if len(names) != len(labels):
            _insist_probe(wanted, f"its head has {len(names)} outputs, the data {len(labels)} labels")
        say(f"Reference {wanted.name!r}: labels taken in order: {_pairs(names, labels)}.")
        return list(range(len(labels)))
    order = own_head.order_by_name(names, labels)
    if order is None:
        _insist_probe(wanted, f"its labels are {_shown(names)}, those of the data {_shown(labels)}")
    return order


def _insist_probe(wanted: ReferenceSettings, why: str) -> None:
    """Refuse unless a probe may stand in for the head."""
    if wanted.head != "auto":
        raise SettingsError(
            f"evaluate.retention {wanted.name!r} asks for the checkpoint's own head, but {why}.",
            "Set its head to probe, or to own-in-order where both lists mean the same, one by one.",
        )


def _some(rows: pa.Table, most: int, seed: int, split: str) -> pa.Table:
    if rows.num_rows <= most:
        return rows
    return rows.take(np.sort(seeds.generator(seed, f"reference {split}").permutation(rows.num_rows)[:most]))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (" …" if len(names) > 3 else "")


def _pairs(names: Sequence[Any], labels: Sequence[str]) -> str:
    pairs = [f"{name} is {label}" for name, label in zip(names, labels, strict=True)]
    return ", ".join(pairs[:5]) + (" …" if len(pairs) > 5 else "")
