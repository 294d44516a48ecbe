"""The loop: a generator of events over the plan's phases. It reads the table and knows no method by name.

At every `yield` the state is that after a whole step; closing the generator there writes a checkpoint first.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunesmith.contracts import Examples, Model, Task
from tunesmith.data import batches
from tunesmith.errors import RunError
from tunesmith.models import probes
from tunesmith.models.dropout import set_dropout
from tunesmith.models.forward import logits
from tunesmith.models.freezing import apply_phase
from tunesmith.plans import Phase, Plan
from tunesmith.train import checkpoint, optimiser, processes
from tunesmith.train.checkpoint import Checkpoint, Progress
from tunesmith.train.events import EpochDone, Event, HeadSolved, MicroBatchHalved, Saved, StepDone, Trained
from tunesmith.train.step import Stepper
from tunesmith.train.weights import Tensors, copy_of, load_into, of

PROBE_HEAD = "probe.safetensors"
"""In the checkpoints folder: the best linear head on frozen features, a baseline for what follows."""


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
    checkpoint_seconds: float = 60.0


def train(job: Job) -> Iterator[Event]:
    """Carry out the plan, from the newest sound checkpoint if there is one; the last event is Trained.

    Raises:
        TrainingError: the loss is not finite, or one row alone does not fit into memory.
        RunError: a checkpoint cannot be written.
    """
    started = time.perf_counter()
    found = checkpoint.newest(job.checkpoints)
    progress = found.progress if found else Progress()
    clock = started - progress.seconds
    if found:
        load_into(job.model.module, found.weights)
    for phase in job.plan.phases[progress.phase :]:
        if phase.head == "solve":
            begun = time.perf_counter()
            solved = job.task.solve_head(job.model, job.train, job.validation, job.plan, job.seed)
            job = dataclasses.replace(job, model=solved.model)
            if processes.state().is_main_process:
                probes.write(solved.probe, job.checkpoints / PROBE_HEAD)
            yield HeadSolved(solved.tried, time.perf_counter() - begun)
        else:
            yield from _Course(job, phase, progress, found, clock).events()
            found = None
        progress.next_phase()
    job.model.module.eval()
    yield Trained(
        model=job.model,
        steps=progress.steps_before,
        epochs=len(progress.curve),
        best_epoch=progress.best_epoch,
        best_loss=progress.best_loss,
        stopped_early=progress.stopped_early,
        rows_seen=progress.rows_seen,
        curve=tuple(progress.curve),
        seconds=time.perf_counter() - clock,
    )


class _Course:
    """One phase of gradient steps. Changes `progress` as it goes, and leaves the best weights in the model."""

    def __init__(self, job: Job, phase: Phase, progress: Progress, found: Checkpoint | None, clock: float) -> None:
        self.job, self.phase, self.progress, self.clock = job, phase, progress, clock
        self.module = job.model.module
        self.module.train()
        apply_phase(self.module, job.model.stages, phase)
        if job.plan.dropout is not None:
            set_dropout(self.module, job.plan.dropout)
        self.adamw = optimiser.build(self.module, job.model.stages, phase)
        self.best: Tensors = found.best if found else {}
        if found:
            optimiser.restore_state(self.adamw, self.module, found.optimiser)
        processes.broadcast(self.module)
        self.main = processes.state().is_main_process

    def events(self) -> Iterator[Event]:
        try:
            yield from self._epochs()
        except RunError:  # the disk refuses: what was saved before is what there is
            raise
        except (Exception, GeneratorExit):  # the weights are those after the last whole step
            if self.main:
                self._save()
            raise
        load_into(self.module, self.best)

    def _epochs(self) -> Iterator[Event]:
        progress, rows = self.progress, self.job.plan.batch.rows
        stepper = Stepper(self.job.task, self.job.model, self.job.train, self.adamw, self.job.plan, self.job.seed)
        total = self.phase.epochs * batches.steps_per_epoch(len(self.job.train), rows)
        saved_at = time.perf_counter()
        while progress.epoch < self.phase.epochs and not progress.stopped_early:
            steps = batches.steps(self.job.train.lengths, rows, self.job.seed, progress.epoch)
            for indices in steps[progress.step_in_epoch :]:
                rates = optimiser.set_rates(self.adamw, self.phase.schedule.factor(progress.step, total))
                done = stepper.step(indices, progress.steps_before + progress.step)
                progress.add_step(len(indices), done.loss_sum, done.count)
                if done.halved_to:
                    yield MicroBatchHalved(done.halved_to)
                mean = done.loss_sum / done.count
                yield StepDone(progress.step, total, progress.epoch + 1, mean, rates, len(indices))
                if self.main and time.perf_counter() - saved_at > self.job.checkpoint_seconds:
                    yield self._save()
                    saved_at = time.perf_counter()
            yield self._validate()

    def _validate(self) -> EpochDone:
        """Loss and primary metric on validation; keeps the best weights and moves the marks of early stopping."""
        task, validation, progress = self.job.task, self.job.validation, self.progress
        scores = task.score(validation, logits(task, self.job.model, validation, self.job.plan.precision))
        done = progress.end_epoch(scores[task.primary_metric], scores["loss"])
        if done.best:
            self.best = copy_of(of(self.module))
        last = progress.epoch == self.phase.epochs
        progress.stopped_early = not last and progress.without_improvement >= self.job.plan.patience
        return done

    def _save(self) -> Saved:
        self.progress.seconds = time.perf_counter() - self.clock
        state = optimiser.state_tensors(self.adamw, self.module)
        return Saved(
            checkpoint.save(self.job.checkpoints, Checkpoint(self.progress, of(self.module), state, self.best))
        )
