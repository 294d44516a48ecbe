"""The line: settings → data → model → plan → train → evaluate → report. Each step hands one value to the next."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesmith import adaptation, prepare, record
from tunesmith import run as runs
from tunesmith.beside import WITHOUT_ADAPT, Beside, train_from_scratch, train_without_adapt
from tunesmith.budget import insist, judge, limits_of, overrun
from tunesmith.conclude import checkpoints_of, conclude, timed
from tunesmith.contracts import Loading
from tunesmith.errors import Interrupted, RunError
from tunesmith.evaluate import retention
from tunesmith.evaluate.compare import compare
from tunesmith.evaluate.retention import Reference
from tunesmith.plans import Plan
from tunesmith.predict import Predictor, load
from tunesmith.refit import refit
from tunesmith.run import Run
from tunesmith.settings import Settings, UserModel, parse
from tunesmith.settings_file import read_yaml, to_yaml
from tunesmith.train import memory, processes
from tunesmith.train.choice import Limits, Option, expected
from tunesmith.train.course import Job
from tunesmith.train.events import ChosenBy
from tunesmith.train.follow import follow
from tunesmith.train.frontier import Means, alone, explore

__all__ = ["Predictor", "check", "compare", "finetune", "load", "plan", "resume"]

Listener = Callable[[Any], None]
"""Hears what happens: sentences, and the events of training."""


def ignore(_: Any) -> None:
    """A listener that prints nothing."""


def finetune(
    settings: Settings | Mapping[str, Any] | str,
    *,
    run: str | Path | None = None,
    listen: Listener = ignore,
    began: float | None = None,
) -> Run:
    """Fine-tune as `settings` say and leave everything in a run folder.

    Args:
        settings: settings, a mapping as a settings file holds, or the path of such a file.
        run: a new folder; named after data and method under runs/ when absent.
        listen: is told what happens.
        began: `time.perf_counter()` at which this process began, where its start counts into the budget.

    Returns:
        The run; `run.folder / "report.html"` is for people, `report.json` for programs.

    Raises:
        TunesmithError: anything that the user can mend, in one sentence.
    """
    wanted = as_settings(settings)
    main = processes.state().is_main_process
    stem = f"{Path(wanted.data.train).stem}-{wanted.method.name}"
    place = Run(Path(run) if run else runs.free_folder(Path("runs"), stem))
    if main:
        runs.create(place.folder)
    place = processes.agree(place)  # the others come only once the folder is there
    with runs.locked(place) if main else nullcontext():
        try:
            if main:
                runs.write_text(place.settings, to_yaml(wanted))
            return _carry_out(wanted, place, listen, began)
        finally:
            if main and not place.begun:  # nothing was begun, so the name stays free for the next try
                shutil.rmtree(place.folder, ignore_errors=True)


def resume(folder: str | Path, *, listen: Listener = ignore) -> Run:
    """Go on with a run that was stopped or killed; it ends with the weights that it would have had.

    Raises:
        RunError: the folder is no run, the run is finished already, or the data have changed.
    """
    place = runs.open_run(Path(folder))
    if place.report.exists():
        raise RunError(f"The run {folder} is finished.", f"Its report is {place.page}.")
    main = processes.state().is_main_process
    with runs.locked(place) if main else nullcontext():
        return _carry_out(parse(read_yaml(place.settings), str(place.settings)), place, listen)


def plan(settings: Settings | Mapping[str, Any] | str, *, listen: Listener = ignore) -> dict[str, Any]:
    """What `finetune` would do and why, as plan.json holds it. Trains nothing and leaves nothing.

    Beside that, `expected` has the share of its rows that each plan gets in an epoch, where all takes as long as is
    predicted; plans for which there would be no time are absent. `exceeding` has those that need more memory or train more
    parameters than the budget allows, and why; `learned` a few rows in their tokens, where only parts of them are learned.
    """
    wanted, began = as_settings(settings), time.perf_counter()
    memory.tune()
    with runs.scratch() as folder:
        place = Run(folder)
        retention.insist(wanted.evaluate.retention)
        ready = prepare.prepare(wanted, place.cache, processes.state().device, listen)
        guards = [plan.guards for plan in ready.frontier.candidates]
        # A trial needs what training would go back to, and a budget of time what measuring takes.
        wanted_rows = wanted.budget.time is not None or any(one.replay or one.ewc for one in guards)
        asked = time.perf_counter()
        references = _references(ready, place, listen) if wanted_rows else ()
        looking_back = time.perf_counter() - asked
        options = record.tried_out(ready, _jobs(ready, place, references))
        limits = limits_of(ready, options, references, time.perf_counter() - began, looking_back)
        if short := overrun(limits, options):
            listen(f"Note: {short}")
        exceeding = {one.label: why for one in options if (why := limits.exceeded(one))}
        foretold: dict[str, Any] = {"expected": expected(options, limits), "exceeding": exceeding}
        if learned := ready.task.learned(ready.dataset.splits["train"], ready.train, ready.model):
            foretold["learned"] = learned
        if wanted.adapt is not None:
            listen("The adaptation, which comes first:")
            foretold["adapt"] = plan(adaptation.begin(wanted, place, wanted.budget.time), listen=listen)
        return record.shown(ready.frontier, options) | foretold


def check(settings: Settings | Mapping[str, Any] | str) -> dict[str, Any]:
    """Audit the data of `settings` before anything is spent: the content of data/audit.json, and the rejected rows."""
    wanted = as_settings(settings)
    with runs.scratch() as cache:
        _, dataset = prepare.load_data(wanted, cache)
        return {**dataset.audit, "rejected_rows": [row.as_dict() for row in dataset.rejected]}


def as_settings(settings: Settings | Mapping[str, Any] | str) -> Settings:
    """Settings from whatever form the caller has."""
    if isinstance(settings, Settings):
        return settings
    if isinstance(settings, str):
        return parse(read_yaml(Path(settings)), settings)
    return parse(settings)


def _carry_out(wanted: Settings, place: Run, listen: Listener, began: float | None = None) -> Run:
    """The line itself, for a run that is new or that was begun before."""
    called = time.perf_counter()
    timings: dict[str, float] = {}
    state = processes.state()
    memory.tune()
    with timed(timings, "adapt"):
        source = _adapted(wanted, place, listen, began or called)
    with timed(timings, "prepare"):
        ready = prepare.prepare(wanted, place.cache / str(state.process_index), state.device, listen, source)
        if wanted.adapt is not None:
            adaptation.insist_same(ready.dataset, place)
    with timed(timings, "references"):
        references = _references(ready, place, listen)
    with timed(timings, "prepare"):
        listen(ChosenBy(ready.task.primary_metric))
        job = _jobs(ready, place, references)
        starting = called - began if began else None

        def limited(options: Sequence[Option]) -> Limits:
            elapsed = time.perf_counter() - (began or called)
            return limits_of(ready, options, references, elapsed, timings.get("references", 0.0), starting)

        if place.plan.exists():
            options = record.begun(ready, job, place)
        else:
            options = record.tried_out(ready, job, lambda first: limited([first]).seconds)
            insist(ready, options)
            if state.is_main_process:
                record.record(ready, place, options)
    with timed(timings, "train"):
        limits = limited(options)
        if short := overrun(limits, options):
            listen(f"Note: {short}")
        test_rates = len(options) > 1 and record.tests_rates(ready)
        means = Means(job, partial(judge, ready, references), test_rates, place.checkpoints)
        events = alone(options[0], limits, means) if len(options) == 1 else explore(options, limits, means)
        trained = follow(events, place.log, wanted.train.log_steps, place.folder, listen)
    with timed(timings, "refit"), _resumable(place):
        refitted = refit(ready, trained, checkpoints_of(ready, trained.plan, place), references, listen)
    with timed(timings, "baselines"), _resumable(place):
        beside = _beside(ready, job, trained.plan, place, references, listen)
    if state.is_main_process:
        conclude(ready, trained, refitted, beside, place, timings, listen, references)
    return place


@contextmanager
def _resumable(place: Run) -> Iterator[None]:
    """What is interrupted within is gone on with as the run, wherever its own checkpoints lie."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.what, f"Go on with: tunesmith train --resume {place.folder}") from error


def _adapted(wanted: Settings, place: Run, listen: Listener, began: float) -> str | UserModel:
    """Where the pre-trained weights are: what the settings name, or its adaptation, which is made here, gone on with, or
    there already."""
    if wanted.adapt is None:
        return wanted.model
    inner, main = place.adaptation, processes.state().is_main_process
    if not processes.agree(inner.report.exists()):
        listen("Going on with the pre-training first, on texts of the field.")
        with _resumable(place):
            if processes.agree(inner.settings.exists()):
                resume(inner.folder, listen=listen)
            else:
                left = None if wanted.budget.time is None else wanted.budget.time - (time.perf_counter() - began)
                given = processes.agree(adaptation.begin(wanted, place, left) if main else None)
                assert given is not None
                finetune(given, run=inner.folder, listen=listen)
        listen("Now the task.")
    if main:
        adaptation.finished(wanted, place)
        if warning := adaptation.told(place):
            listen(f"Note: {warning}")
    processes.agree(None)  # nobody opens the model before it is whole
    return str(inner.model)


def _beside(
    ready: prepare.Prepared,
    job: Callable[[Plan], Job],
    plan: Plan,
    place: Run,
    references: Sequence[Reference],
    listen: Listener,
) -> Beside:
    """What `evaluate.baselines` wants trained beside the model."""
    wanted = ready.settings
    scratch = without = None
    if "scratch" in wanted.evaluate.baselines and not ready.loading.fresh:
        scratch = train_from_scratch(ready, job(plan), listen)
    if wanted.adapt is not None and WITHOUT_ADAPT in wanted.evaluate.baselines:
        without = train_without_adapt(ready, plan, checkpoints_of(ready, plan, place), references, listen)
    return Beside(scratch, without)


def _jobs(ready: prepare.Prepared, place: Run, references: Sequence[Reference]) -> Callable[[Plan], Job]:
    """What makes the job of a plan; all share what they compute."""
    rehearsed = tuple(one.rehearsal() for one in references)

    def job(plan: Plan) -> Job:
        model, checkpoints = prepare.network(ready, plan), checkpoints_of(ready, plan, place)
        return prepare.job(ready, model, plan, checkpoints, rehearsed)

    return job


def _references(ready: prepare.Prepared, place: Run, listen: Listener) -> tuple[Reference, ...]:
    """Reference data, with what the backbone says of them before training."""
    wanted, cache = ready.settings, place.cache / str(processes.state().process_index)
    if not wanted.evaluate.retention:
        return ()
    other = ready.loading.fresh or wanted.adapt is not None
    original = prepare.fresh_copy(ready, ready.device, Loading(), wanted.model) if other else ready.model
    found = retention.prepare(
        wanted.evaluate.retention,
        original,
        wanted.task,
        cache,
        wanted.seed,
        ready.frontier.candidates[0].precision,
        evaluate=wanted.evaluate,
        say=listen,
        device=ready.device,
    )
    train, threshold = ready.dataset.splits["train"], wanted.data.near_duplicate
    if any(plan.refit != "no" for plan in ready.frontier.candidates):  # rows of validation may train too
        train = pa.concat_tables([train, ready.dataset.splits["validation"]])
    return retention.compared(found, ready.task, train, threshold, listen)
