"""A phase that compares the rows of a step by their class, in place of the task's own loss.

What is compared is what the head's last layer receives, as vectors of length 1; so whatever has such a layer and classes can
be taught so. Tunstall et al. 2022 (SetFit) do this with pairs of texts; here all rows of a step are compared at once, by the
loss of Khosla et al. 2020, and no pair is ever written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from tunesmith.contracts import Examples, Indices, Loss, Model, Objective, Task
from tunesmith.data import batches
from tunesmith.errors import SettingsError
from tunesmith.models.activations import HEAD_INPUT, watched
from tunesmith.plans import Comparison, Phase


class Contrast:
    """An objective for the backbone alone."""

    compares = True
    besides: Sequence[str] = ()
    alike = True

    def __init__(self, task: Task, how: Comparison, seen: dict[str, torch.Tensor]) -> None:
        """`seen`: where each forward pass leaves what the head receives."""
        self.name, self.task, self.how, self.seen = task.name, task, how, seen

    def read(self, output: Any) -> torch.Tensor:
        """(rows, width) of length 1, fp32.

        Raises:
            SettingsError: the head reads more than one vector a row.
        """
        vectors = self.seen[HEAD_INPUT]
        if vectors.ndim != 2:
            raise SettingsError(
                "Contrastive tuning compares one vector a row, but the head of this network reads each token by itself.",
                "Use another method, or set the model's pooling by another class.",
            )
        return functional.normalize(vectors.float(), dim=1)

    def loss(self, logits: torch.Tensor, examples: Any, indices: Indices) -> Loss:
        return self.task.contrast(logits, examples, indices, self.how)


@contextmanager
def objective(task: Task, model: Model, phase: Phase) -> Iterator[Objective]:
    """What teaches in `phase`, while it lasts."""
    if phase.compares is None:
        yield task
        return
    with watched(model, (HEAD_INPUT,)) as seen:
        yield Contrast(task, phase.compares, seen)


def order(task: Task, examples: Examples, phase: Phase, seed: int, epoch: int) -> Indices | None:
    """The order in which an epoch of `phase` takes the training rows; see `Task.order`."""
    if phase.compares is None:
        return task.order(examples, seed, epoch)
    classes = task.classes_of(examples)
    assert classes is not None  # or there is no such phase
    return batches.several_each(classes, phase.compares.together, seed, epoch)
