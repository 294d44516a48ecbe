"""Lines of a plan that the user sets otherwise than the method did: `--set "plan.block 3.learning_rate=1e-5"`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.errors import SettingsError, did_you_mean
from tunesmith.plans import HEAD, Phase, Plan, Row, Schedule
from tunesmith.settings import LineSettings, PhaseSettings, check


def changed(plan: Plan, wanted: Mapping[str, Any], weight_decay: float = 0.0) -> Plan:
    """`plan` with the lines of `wanted`: a stage's name changes it in every training phase, a phase's name the phase.

    Args:
        weight_decay: of a stage that thaws and has none of its own.

    Raises:
        SettingsError: no such stage or phase, a stage that cannot train, or a value that a plan cannot hold.
    """
    if not wanted:
        return plan
    training = [phase for phase in plan.phases if phase.head == "train"]
    known = [*plan.stages, *(phase.name for phase in training)]
    for name in wanted:
        if name not in known:
            raise SettingsError(
                f"plan.{name} is neither a stage nor a training phase of the plan{did_you_mean(name, known)}",
                f"Known: {', '.join(known)}.",
            )
    lines = {name: value for name, value in wanted.items() if name in plan.stages}
    phases = tuple(_phase(phase, lines, wanted.get(phase.name, {}), weight_decay) for phase in plan.phases)
    _insist_on_adapters(plan, phases)
    told = f"Lines of the plan are as plan.{', plan.'.join(wanted)} say."
    return dataclasses.replace(plan, phases=phases, reasons=(*plan.reasons, told))


def _insist_on_adapters(plan: Plan, phases: Sequence[Phase]) -> None:
    """Beside adapters the pre-trained weights stay as they are, so that a stage without any has nothing to train."""
    if plan.adapter is None:
        return
    able = {*plan.adapter.blocks, HEAD}
    for row in [row for phase in phases for row in phase.rows]:
        if row.learning_rate is not None and row.stage not in able:
            raise SettingsError(
                f"plan.{row.stage} is to train, but {plan.method} puts no adapter there and leaves all else as it is.",
                f"Stages with adapters: {', '.join(plan.adapter.blocks) or 'none but the head'}.",
            )


def _phase(phase: Phase, lines: Mapping[str, Any], own: Mapping[str, Any], weight_decay: float) -> Phase:
    if phase.head == "solve":
        return phase
    stages = {row.stage for row in phase.rows}
    lines = {**lines, **{name: value for name, value in own.items() if name in stages}}
    rest = {name: value for name, value in own.items() if name not in stages}
    wanted = check(PhaseSettings, rest, f"plan.{phase.name}")
    schedule = phase.schedule if wanted.schedule is None else dataclasses.replace(phase.schedule, name=wanted.schedule)
    return dataclasses.replace(
        phase,
        rows=tuple(_row(row, lines[row.stage], weight_decay) if row.stage in lines else row for row in phase.rows),
        epochs=wanted.epochs or phase.epochs,
        schedule=Schedule(schedule.name, schedule.warmup if wanted.warmup is None else wanted.warmup),
    )


def _row(row: Row, given: Mapping[str, Any], weight_decay: float) -> Row:
    wanted = check(LineSettings, given, f"plan.{row.stage}")
    usual = weight_decay if row.learning_rate is None else row.weight_decay
    rate = row.learning_rate if wanted.learning_rate is None else wanted.learning_rate
    return dataclasses.replace(
        row,
        learning_rate=None if rate == "frozen" else rate,
        weight_decay=0.0 if rate == "frozen" else usual if wanted.weight_decay is None else wanted.weight_decay,
        part=wanted.part or row.part,
    )
