"""One optimiser step over any number of micro-batches and processes: sums to the end, one division, one update."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tunesmith import seeds
from tunesmith.contracts import Batched, Examples, Indices, Model, Objective
from tunesmith.data import batches
from tunesmith.errors import TrainingError
from tunesmith.models import adapters
from tunesmith.models.forward import device_of
from tunesmith.plans import Plan
from tunesmith.train import compared, processes
from tunesmith.train.anchors import Anchors
from tunesmith.train.guards import Pull
from tunesmith.train.passes import Passes
from tunesmith.train.sharpness import climbed


@dataclass(frozen=True)
class Done:
    """Sums over all processes."""

    loss_sum: float
    count: float
    halved_to: int | None
    """The new bound of tokens when memory ran out on the way."""
    beside: Mapping[str, float]
    """What the objective tells beside its loss; means."""


class Stepper:
    """Takes steps on one network. Remembers how many tokens a forward pass can hold."""

    def __init__(
        self,
        objective: Objective,
        model: Model,
        rows: Batched,
        optimiser: torch.optim.Optimizer,
        plan: Plan,
        seed: int,
        steps: int,
        anchors: Anchors = Anchors(),  # noqa: B008 - frozen
    ) -> None:
        """`steps`: of the optimiser, over the whole plan; `anchors`: what the guards of `plan` hold on to."""
        self.model = model
        self.rows, self.examples = rows, rows.examples
        self.passes = Passes(objective, model, rows, plan, seed, anchors)
        self.pulls = _pulls(model, plan, anchors)
        self.optimiser, self.plan, self.seed, self.steps = optimiser, plan, seed, steps
        self.tokens = plan.batch.micro_batch_tokens
        self.trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def expect(self, steps: Sequence[Indices]) -> None:
        """Let the batches of `steps`, which come next, be made ahead where that is done."""
        if self.rows.expect is not None:
            self.rows.expect([part for indices in steps for part in self._parts(processes.share(indices))])

    def _parts(self, own: Indices) -> list[Indices]:
        return parts_of(self.passes.objective, self.plan, self.examples, own, self.tokens)

    def step(self, indices: Indices, number: int) -> Done:
        """One update from the rows `indices` (of all processes).

        Args:
            number: the optimiser step, which seeds dropout and all else that is drawn.

        Raises:
            TrainingError: loss or gradient is not finite (nothing was updated), or a single row does not fit.
        """
        if not self.examples.count(indices):
            raise TrainingError(
                f"Nothing of the rows of step {number + 1} is labelled, as the network is given them.",
                "Leave such rows away, give the network larger inputs, or raise train.batch_size.",
            )
        loss_sum, halved = self._gradient(indices, number)
        beside = processes.sum_over(self.passes.beside)
        if self.plan.guards.sam:
            with climbed(self.model.module, self.trained, self.plan.guards.sam):
                _, again = self._gradient(indices, number)
            halved = again or halved
        count = self.examples.count(indices)
        total = float(processes.sum_over(loss_sum))
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self.plan.clip_norm))
        if not math.isfinite(total) or not math.isfinite(norm):
            self.optimiser.zero_grad()
            what = f"The loss is {total / count}" if not math.isfinite(total) else f"The gradient's norm is {norm}"
            raise TrainingError(
                f"{what} at step {number + 1}, so training cannot go on.",
                "The weights from before this step are kept. Try a lower train.learning_rate, or train.precision=fp32.",
            )
        self.optimiser.step()
        adapters.after_step(self.model, number, self.steps)
        self.optimiser.zero_grad()
        told = dict(zip(self.passes.objective.besides, (beside / count).tolist(), strict=True))
        return Done(total, count, halved, told)

    def _gradient(self, indices: Indices, number: int) -> tuple[torch.Tensor, int | None]:
        """The whole gradient of a step, over all processes, with what guards add.

        Returns:
            The sum of this process's losses, and the new bound of tokens where memory ran out.
        """
        own = processes.share(indices)
        halved = None
        while True:
            try:
                loss_sum = self._backward(indices, own, number)
                break
            except torch.OutOfMemoryError as error:
                if self.passes.objective.compares and processes.state().num_processes > 1:
                    raise TrainingError(  # the others wait for what this process was to tell them
                        "The accelerator's memory ran out, in one of several processes that compare their rows.",
                        "Lower train.micro_batch_tokens or train.batch_size.",
                    ) from error
                self.optimiser.zero_grad()
                self.tokens = self._half(own)
                halved = self.tokens
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        processes.sum_gradients(self.trained)
        for pull in self.pulls:
            pull.add()
        if (penalty := adapters.penalty(self.model)) is not None:
            penalty.backward()  # type: ignore[no-untyped-call]
        return loss_sum, halved

    def _backward(self, whole: Indices, own: Indices, number: int) -> torch.Tensor:
        """Gradients of (sum of losses / count of the whole step); returns the sum of this process's losses."""
        count = self.examples.count(whole)
        self.passes.begin()
        # A step draws its own dropout, so that a resumed run draws what the other one drew.
        rank = processes.state().process_index
        chance = seeds.derive(self.seed, "dropout", number, rank)
        torch.manual_seed(chance)
        random = seeds.generator(self.seed, "mixup", number, rank)
        loss_sum = torch.zeros((), device=device_of(self.model.module))
        parts = self._parts(own)
        pulls: list[torch.Tensor] | None = None
        if self.passes.objective.compares and (len(parts) != 1 or processes.state().num_processes > 1):
            loss_sum, pulls = compared.pulls(self.passes, parts, whole)
            torch.manual_seed(chance)
        for place, part in enumerate(parts):
            loss, added = self.passes.loss(part, random, pulls[place] if pulls else None)
            ((loss + added) / count).backward()
            if pulls is None:
                loss_sum += loss.detach()
        for added in self.passes.replayed(number, self.tokens):
            added.backward()  # type: ignore[no-untyped-call]
        return loss_sum

    def _half(self, own: Indices) -> int:
        replayed = self.passes.longest_replayed
        longest = max(int(self.examples.lengths[own].max()), replayed)
        if self.tokens <= longest:
            whose = " of evaluate.retention" if longest == replayed else ""
            raise TrainingError(
                f"One row{whose} of {longest:,} tokens alone does not fit into the accelerator's memory.",
                f"Lower {'the max_length of its task' if whose else 'task.max_length'}, or take a smaller model.",
            )
        largest = max(len(part) * int(self.examples.lengths[part].max()) for part in self._parts(own))
        return max(longest, largest // 2)


def parts_of(objective: Objective, plan: Plan, examples: Examples, own: Indices, tokens: int) -> list[Indices]:
    """The forward passes, of up to `tokens` each, that the examples `own` of a step are cut into."""
    spare = not objective.alike and not plan.batch.packed  # rows of a sequence need no padding
    return batches.micro_batches(own, examples.lengths, tokens, spare=spare)


def _pulls(model: Model, plan: Plan, anchors: Anchors) -> list[Pull]:
    guards = plan.guards
    found = []
    if guards.l2_sp:
        found.append(Pull(model.module, anchors.origin, guards.l2_sp))
    if guards.ewc:
        found.append(Pull(model.module, anchors.origin, guards.ewc, anchors.importance))
    return found
