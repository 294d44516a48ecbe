"""One phase of gradient steps, as a generator of events. It reads the phase's table and knows no method by name.

At every `yield` the state is that after a whole step; closing the generator there writes a checkpoint first.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tunesmith import seeds
from tunesmith.contracts import Batch, Batched, Collate, Examples, Features, Indices, Model, Objective, Task
from tunesmith.data import batches
from tunesmith.errors import RunError
from tunesmith.models import heads
from tunesmith.models.dropout import set_dropout
from tunesmith.models.forward import scores
from tunesmith.models.freezing import apply_phase
from tunesmith.models.running_statistics import reestimate
from tunesmith.models.unread import unread_skipped
from tunesmith.plans import Phase, Plan, cut_of
from tunesmith.train import checkpoint, contrast, optimiser, processes, statistics
from tunesmith.train.ahead import ahead
from tunesmith.train.anchors import Anchors
from tunesmith.train.cache import Served, Source, Store, served
from tunesmith.train.checkpoint import Checkpoint, Progress
from tunesmith.train.events import EpochDone, Event, MicroBatchHalved, Saved, StartMeasured, StepDone
from tunesmith.train.guards import Average, mix
from tunesmith.train.passes import insist_on_dropout
from tunesmith.train.rehearsal import Rehearsal
from tunesmith.train.step import Stepper, parts_of
from tunesmith.train.weights import Tensors, copy_of, load_into, of


class Watch(Protocol):
    """Ends training before its time. Each answers with the reason, or None to go on."""

    def after_step(self) -> str | None: ...

    def after_epoch(self, curve: Sequence[Mapping[str, Any]], left: int) -> str | None:
        """`curve` so far, with `left` epochs to come."""
        ...


@dataclass(frozen=True)
class Job:
    """What training needs to know."""

    task: Task
    model: Model
    plan: Plan
    train: Examples
    validation: Examples
    seed: int
    checkpoints: Path
    store: Store
    checkpoint_seconds: float = 60.0
    references: tuple[Rehearsal, ...] = ()
    """Rows that guards of the plan go back to."""
    watch: Watch | None = None
    """Who may end training before its time."""
    cuts: tuple[str, ...] = ()
    """Stages at which plans that come later enter; what they need is kept by the pass that solves for the head."""
    settled: bool = False
    """Whether nothing is left to choose on validation: its rows train too, and the last weights are kept."""

    @property
    def together(self) -> int:
        """How many neighbouring examples make what batches are counted in."""
        return self.task.together(self.train)

    @property
    def steps_an_epoch(self) -> int:
        steps = batches.steps_per_epoch(len(self.train) // self.together, self.plan.batch.rows)
        return math.ceil(steps * self.plan.share_of_epoch)

    @cached_property
    def seen(self) -> Examples:
        """What training passes: the training rows, in all views that the plan has of them."""
        views, tokens = self.plan.views, self.plan.batch.packed
        if tokens:
            return self.task.packed(self.train, tokens)
        return self.train if views == 1 else self.task.varied(self.train, views, self.seed)

    def steps(self, epoch: int, phase: Phase) -> list[Indices]:
        """The examples of `seen` in each step of one epoch of the whole run, which is one of `phase`."""
        view = epoch % self.plan.views * len(self.train)
        order = contrast.order(self.task, self.train, phase, self.seed, epoch)
        rows, lengths = self.plan.batch.rows, self.train.lengths
        alike = self.task.alike
        found = batches.steps(lengths, rows, self.seed, epoch, order, self.together, alike=alike)
        return [view + indices for indices in found[: self.steps_an_epoch]]

    def parts(self, indices: Indices) -> list[Indices]:
        """The forward passes that the examples `indices` of a step, or of a process's share of it, are cut into."""
        return parts_of(self.task, self.plan, self.seen, indices, self.plan.batch.micro_batch_tokens)

    def drawn(self, purpose: str) -> Indices:
        """What batches are counted in, in an order of chance; rows that the loss compares stay neighbours."""
        order = self.task.order(self.train, seeds.derive(self.seed, purpose), 0)
        count = len(self.train) // self.together
        return seeds.generator(self.seed, purpose).permutation(count) if order is None else order

    @contextmanager
    def served(self, phase: int, sample: Batch) -> Iterator[Served]:
        """The batches of a phase, from kept activations where frozen stages come first in it and in those that follow."""
        train = Source("train", self.seen, self._inputs(self.seen), self.task.rows_each)
        validation = Source("validation", self.validation, self._inputs(self.validation), self.task.rows_each)
        to_come = self.plan.phases[phase:]
        stages = [cut_of(one) for one in to_come for _ in range(one.epochs)]
        if to_come[0].head == "solve":  # one more pass, over all stages, of which the first can be read as well
            stages += [cut for cut in self.cuts for _ in range(2)]  # later plans have epochs
            stages = [*[one for one in stages if one][:1], *stages] or [None]
        with ExitStack() as stack:
            if self.model.modality == "image":  # texts are put into batches at once
                made = stack.enter_context(ahead(train.collate))
                train = train._replace(collate=made, expect=made.expect)
            cuts = stages if self.plan.cache else [None]
            sources = [train, validation]
            yield stack.enter_context(served(self.model, cuts, sources, self.store, self.plan.precision, sample))

    def _inputs(self, examples: Examples) -> Collate:
        return partial(self.task.inputs, examples, model=self.model)

    def unread_skipped(self, sample: Batch) -> AbstractContextManager[object]:
        """While it lasts, what the loss does not read is not computed."""
        return nullcontext() if self.plan.guards.reads_beyond_head else unread_skipped(self.model, sample)

    def sample(self) -> Batch:
        """A small batch of short and long rows."""
        order = np.argsort(self.validation.lengths, kind="stable")
        return self.task.inputs(self.validation, np.concatenate([order[:3], order[-1:]]), self.model)


@dataclass
class State:
    """What training carries from phase to phase."""

    progress: Progress
    best: Tensors
    """The best weights so far; empty before the first validation."""
    averaged: Tensors
    """The moving average of the weights, where the plan asks for one; empty otherwise."""
    anchors: Anchors
    """What the guards of the plan keep from before training."""


class Course:
    """One phase of gradient steps. Changes `state` as it goes."""

    def __init__(self, job: Job, phase: Phase, state: State, found: Checkpoint | None, clock: float) -> None:
        self.job, self.phase, self.clock = job, phase, clock
        self.state, self.progress = state, state.progress
        self.module = job.model.module
        self.module.train()
        apply_phase(self.module, job.model.stages, phase)
        if job.plan.dropout is not None:
            set_dropout(self.module, job.plan.dropout)
        insist_on_dropout(job.plan, phase, job.model)
        self.adamw = optimiser.build(self.module, job.model.stages, phase)
        self.per_epoch = job.steps_an_epoch
        self.planned_steps = self.per_epoch * job.plan.epochs
        self.hits = job.store.hits
        self.best_at = -1
        """The step after which the weights were the best ones, where this process saw it."""
        if found:
            optimiser.restore_state(self.adamw, self.module, found.optimiser)
        else:
            state.progress.stopped_early = False
        processes.broadcast(self.module)
        self.main = processes.state().is_main_process

    def events(self) -> Iterator[Event]:
        try:
            sample = self.job.sample()
            # In this order, so that what is kept holds whole blocks, whenever it is filled.
            with (
                self.job.served(self.progress.phase, sample) as found,
                self.job.unread_skipped(sample),
                contrast.objective(self.job.task, self.job.model, self.phase) as objective,
            ):
                if found.filled:
                    yield found.filled
                yield from self._epochs(found.by_source["train"], found.by_source["validation"], objective)
        except RunError:  # the disk refuses: what was saved before is what there is
            raise
        except (Exception, GeneratorExit):  # the weights are those after the last whole step
            if self.main:
                self._save()
            raise

    def _epochs(self, train: Batched, validation: Batched, objective: Objective) -> Iterator[Event]:
        job, progress, watch = self.job, self.progress, self.job.watch
        stepper = Stepper(
            objective, job.model, train, self.adamw, job.plan, job.seed, self.planned_steps, self.state.anchors
        )
        own = self.phase.epochs * self.per_epoch
        saved_at = time.perf_counter()
        if self._from_sound_head():
            yield self._measure_start(validation.collate)
        while progress.epoch < self.phase.epochs and not progress.stopped_early and not progress.ended:
            epoch = len(progress.curve)
            steps = job.steps(epoch, self.phase)[progress.step_in_epoch :]
            for place, indices in enumerate(steps):
                stepper.expect(steps[place : place + 2])
                rates = optimiser.set_rates(self.adamw, self.phase.schedule.factor(progress.step, own))
                done = stepper.step(indices, progress.steps_before + progress.step)
                rows = float(job.seen.weights[indices].sum())  # a loss may count parts of rows
                progress.add_step(done.loss_sum, done.count, rows)
                self._average()
                if done.halved_to:
                    yield MicroBatchHalved(done.halved_to)
                number, mean = progress.steps_before + progress.step, done.loss_sum / done.count
                yield StepDone(number, self.planned_steps, epoch + 1, mean, rates, rows, done.beside)
                if self.main and time.perf_counter() - saved_at > self.job.checkpoint_seconds:
                    yield self._save()
                    saved_at = time.perf_counter()
                if watch and (why := processes.agree(watch.after_step())):
                    progress.end(why)
                    break
            yield self._validate(train, validation)
            to_come = job.plan.epochs - len(progress.curve)
            if watch and to_come and (why := processes.agree(watch.after_epoch(progress.curve, to_come))):
                progress.end(why)
            if self.main:
                yield self._save()
                saved_at = time.perf_counter()

    def _from_sound_head(self) -> bool:
        """Whether nothing has trained yet, and the head is one that was solved for, or the model's own, so that the start is
        worth something."""
        progress = self.progress
        solved = any(phase.head == "solve" for phase in self.job.plan.phases[: progress.phase])
        sound = solved or self.job.model.head == "kept"
        return sound and progress.best_metric is None and progress.step == 0

    def _measure_start(self, collate: Collate) -> StartMeasured:
        """The weights from before the first step are candidates too: a short training may end below them."""
        loss, metric, _ = self._scores(collate)
        self.progress.consider(metric, loss, 0)
        self.state.best = copy_of(of(self.module))
        return StartMeasured(loss, metric)

    def _scores(self, collate: Collate) -> tuple[float, float, dict[str, float]]:
        """Loss and primary metric on validation, and what else the task tells of each epoch."""
        task, validation = self.job.task, self.job.validation
        found = dict(scores(task, self.job.model, validation, self.job.plan.precision, collate))
        found = processes.agree(found)  # rounding may differ between processes, and all must stop together
        return found.pop("loss"), found.pop(task.primary_metric), found

    def _average(self) -> None:
        """Let the weights after a step into the average that the plan asks for."""
        guards, progress, state = self.job.plan.guards, self.progress, self.state
        if guards.ema:
            Average(guards.ema, state.averaged).take(of(self.module), progress.steps_before + progress.step)
        if guards.swa and self._planned() > (1 - guards.swa) * self.planned_steps:
            # Stochastic weight averaging (Izmailov et al. 2018, algorithm 1), by steps: the n-th weighs 1 / n.
            progress.averaged_steps += 1
            state.averaged = state.averaged or copy_of(of(self.module))
            mix(state.averaged, of(self.module), 1 / progress.averaged_steps)

    def _planned(self) -> int:
        """Where in the plan the last step stands, phases that ended early counted whole."""
        phases = self.job.plan.phases
        return self.per_epoch * sum(phase.epochs for phase in phases[: self.progress.phase]) + self.progress.step

    def _validate(self, train: Batched, validation: Batched) -> EpochDone:
        """Loss and primary metric on validation; keeps the best weights and moves the marks of early stopping."""
        progress = self.progress
        with self._averaged(train.collate):
            strength = self._solve_head(train, validation) if self.phase.compares else None
            loss, metric, beside = self._scores(validation.collate)
            if strength is not None:
                beside["strength"] = strength
            self._note_cache()
            # The penalty of a head that is solved for is another each time, and its loss with it.
            later, settled = self.phase.compares is not None, self.job.settled
            done = progress.end_epoch(metric, loss, beside, later=later, settled=settled)
            if done.best:
                self.state.best = copy_of(of(self.module))
                self.best_at = progress.steps_before + progress.step
        last = progress.epoch == self.phase.epochs
        waiting = bool(self.job.plan.guards.swa) and not self.state.averaged  # the average is not begun yet
        tired = progress.without_improvement >= self.job.plan.patience and not self.job.settled
        progress.stopped_early = tired and not last and not waiting
        return done

    def _solve_head(self, train: Batched, validation: Batched) -> float | None:
        """Give the network the best head for its backbone as it is now, reading what it reads; returns the penalty."""
        job = self.job
        plan = dataclasses.replace(job.plan, standard_head=True)
        train = train._replace(examples=job.train)  # of several views the first, the rows as they are
        solved = job.task.solve_head(job.model, train, validation, plan, self.phase, job.seed, Features())
        start = processes.agree(solved).start
        heads.install(heads.last_layer(job.model), start.weight, start.bias)
        return start.strength

    def _note_cache(self) -> None:
        """Let the progress know what was read from the cache since it was told last."""
        store, before = self.job.store, self.progress.cache or {"hits": 0}
        if store.hits > self.hits:
            hits = before["hits"] + store.hits - self.hits
            self.progress.cache = {"stage": store.stage, "bytes": store.bytes, "hits": hits}
        self.hits = store.hits

    def _save(self) -> Saved:
        """A checkpoint; without what nobody will need again: the optimiser's state after the last step, weights twice."""
        progress = self.progress
        progress.seconds = time.perf_counter() - self.clock
        over = progress.epoch == self.phase.epochs or progress.stopped_early or progress.ended is not None
        state = {} if over else optimiser.state_tensors(self.adamw, self.module)
        weights = of(self.module)
        now = self.best_at == progress.steps_before + progress.step and not self.state.averaged
        best = weights if now else self.state.best
        kept = Checkpoint(progress, weights, state, best, self.state.averaged)
        return Saved(checkpoint.save(self.job.checkpoints, kept))

    @contextmanager
    def _averaged(self, collate: Collate) -> Iterator[None]:
        """The average in place of the weights, where one is kept, with running statistics of its own."""
        if not self.state.averaged:
            yield
            return
        own = copy_of(of(self.module))
        load_into(self.module, self.state.averaged)
        if norms := statistics.training_norms(self.module):
            job = self.job
            parts = statistics.parts(job.train.lengths, job.plan.batch, job.seed)
            reestimate(self.module, norms, map(collate, parts), job.plan.precision)
        try:
            yield
        finally:
            load_into(self.module, own)
