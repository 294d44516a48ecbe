"""The pieces that plans are made of: the head, solved for or trained first, and rows for stages that train at given rates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tunesmith.contracts import NEW_HEADS, UNSOLVED, Facts, Stage
from tunesmith.errors import SettingsError, did_you_mean
from tunesmith.methods.defaults import Choices, choose, new_rate
from tunesmith.methods.guards import resolve
from tunesmith.plans import HEAD, Adapter, BatchShape, Guards, Part, Phase, Plan, Row, Schedule, cut_of

WORTH_PACKING = 0.1
"""Share of padding from which on rows are packed: attention over a long sequence costs more than over its rows."""


def solved_head(stages: Sequence[Stage], facts: Facts, *, gentle: bool = True) -> list[Phase]:
    """The head is solved for on frozen features; nothing where it cannot be, and trains with what else trains. Where there is
    none, the network as it is is measured.

    Args:
        gentle: with a strong penalty, to start training from; otherwise the one that is best on validation.
    """
    if facts.head in UNSOLVED:
        return []
    return [
        Phase(
            "start" if facts.head == "none" else "head",
            "solve",
            tuple(Row(stage.name, None) for stage in stages),
            gentle=gentle,
        )
    ]


def head_first(stages: Sequence[Stage], facts: Facts, epochs: int, *, gentle: bool = True) -> Phase:
    """A phase for the head alone: solved for, or trained for `epochs` on the frozen backbone where it cannot be."""
    return next(
        iter(solved_head(stages, facts, gentle=gentle)),
        trained("head", stages, {HEAD: choose(facts).learning_rate}, epochs, facts),
    )


def trained(
    name: str,
    stages: Sequence[Stage],
    rates: Mapping[str, float],
    epochs: int,
    facts: Facts,
    *,
    part: Part = "all",
    schedule: Schedule | None = None,
    upper_factor: float = 1.0,
    pretrained: bool = True,
) -> Phase:
    """A phase in which the stages named in `rates` train, the head whole, of the others `part`.

    A head that was not solved for has the rate that new weights bear, whatever `rates` say.

    Args:
        pretrained: whether what is not new has weights, and batch-norm statistics, that are to be kept.
    """
    wanted, new = facts.settings, facts.head in NEW_HEADS
    if new and pretrained:
        rates = {**rates, HEAD: new_rate(facts)}
    if facts.head == "kept" and part == "adapter":  # it stands beside the frozen weights, and is one of them
        rates = {name: rate for name, rate in rates.items() if name != HEAD}
    rows = []
    for stage in stages:
        own: Part = "all" if stage.name == HEAD and facts.head != "kept" else part
        # Adapters are not there yet: they come when the plan is carried out.
        rate = rates.get(stage.name) if own == "adapter" or stage.chosen(own) else None
        rows.append(Row(stage.name, rate, wanted.weight_decay if rate is not None else 0.0, own, upper_factor))
    statistics: Literal["kept", "head", "all"] = "kept" if not new else "head"
    return Phase(
        name,
        "train",
        tuple(rows),
        epochs,
        schedule or Schedule(wanted.schedule, wanted.warmup),
        statistics=statistics if pretrained else "all",
    )


def assemble(
    method: str, phases: Sequence[Phase], choices: Choices, facts: Facts, reasons: Sequence[str], **more: Any
) -> Plan:
    """The plan, with what all methods share."""
    wanted = facts.settings
    guards, why = resolve(phases, more.get("adapter"), facts)
    views, cache, varied = _views(phases, facts, guards)
    batch, cache, packed = _packed(phases, choices.batch, facts, cache, more.get("adapter"))
    told = facts.told if any(phase.head == "train" for phase in phases) else ()
    reasons = [*reasons, *choices.reasons, *facts.weighed, *told, *varied, *packed, *why]
    return Plan(
        method=method,
        phases=tuple(phases),
        precision=choices.precision,
        batch=batch,
        clip_norm=wanted.clip_norm,
        patience=choices.patience,
        tests_rates=choices.tests_rates,
        dropout=None if wanted.dropout == "model" else wanted.dropout,
        cache=cache,
        views=views,
        guards=guards,
        reasons=tuple(reasons),
        **more,
    )


def _views(phases: Sequence[Phase], facts: Facts, guards: Guards) -> tuple[int, bool, tuple[str, ...]]:
    """Variants of each row, whether activations are kept, and why: new variants each epoch leave nothing to keep."""
    variation, cache = facts.variation, facts.settings.cache == "auto" and not guards.mixes_inputs
    epochs = sum(phase.epochs for phase in phases)
    if variation is None:
        return 1, cache, ()
    if epochs < 2:
        return 1, cache, ("Rows are passed as they are: variants come with the second epoch, and there is none.",)
    if variation.views is not None:
        views = min(variation.views, epochs)
        return views, cache, (f"{variation.told} Epochs go through {views} fixed variants of each row.",)
    if cache and any(cut_of(phase) for phase in phases):
        return epochs, False, (f"{variation.told} So nothing is kept of what frozen stages put out.",)
    return epochs, cache, (variation.told,)


def _packed(
    phases: Sequence[Phase], batch: BatchShape, facts: Facts, cache: bool, adapter: Adapter | None
) -> tuple[BatchShape, bool, tuple[str, ...]]:
    """The batches, whether activations are kept, and why rows are packed where they are: what is kept of one row needs it to
    stand alone.

    Raises:
        SettingsError: packing is asked for where virtual tokens stand before each row.
    """
    packing = facts.packing
    if packing is not None and adapter is not None and adapter.tokens:
        if packing.wanted:
            raise SettingsError(
                "task.pack is true, but virtual tokens stand before each row, which then needs a sequence of its own.",
                "Leave it away.",
            )
        return batch, cache, ()
    if packing is None or (cache and not packing.wanted and any(cut_of(phase) for phase in phases)):
        return batch, cache, ()
    padding = packing.padding(batch)
    if not packing.wanted and padding < WORTH_PACKING:
        return batch, cache, ()
    told = (
        f"Rows are packed into sequences of up to {packing.tokens:,} tokens, in which none sees another: of batches of "
        f"single rows {100 * padding:.0f} % would be padding."
    )
    if cache and any(cut_of(phase) for phase in phases):
        return (
            dataclasses.replace(batch, packed=packing.tokens),
            False,
            (f"{told} So nothing is kept of frozen stages.",),
        )
    return dataclasses.replace(batch, packed=packing.tokens), cache, (told,)


def from_top(stages: Sequence[Stage], blocks: int) -> list[str]:
    """The head, what lies between it and the blocks, and the last `blocks` blocks.

    Raises:
        SettingsError: the network has fewer blocks.
    """
    deep = [stage.name for stage in stages if stage.name.startswith("block ")]
    if blocks > len(deep):
        raise SettingsError(
            f"method.last is {blocks}, but the network has {len(deep)} blocks.", f"Give 1 to {len(deep)}."
        )
    after = [stage.name for stage in stages[[stage.name for stage in stages].index(deep[-1]) + 1 :]]
    return [*deep[len(deep) - blocks :], *after]


def named(stages: Sequence[Stage], wanted: Sequence[str]) -> list[str]:
    """`wanted` with the head, checked.

    Raises:
        SettingsError: the network has no such stage; the nearest is offered.
    """
    known = [stage.name for stage in stages]
    for name in wanted:
        place_of(name, known, "method.stages")
    return [*wanted, *([HEAD] if HEAD not in wanted else [])]


def place_of(wanted: str, names: Sequence[str], key: str) -> int:
    """The place of the stage `wanted` among the stages `names`.

    Args:
        key: of the setting that names it.

    Raises:
        SettingsError: the network has no such stage; the nearest is offered.
    """
    if wanted not in names:
        raise SettingsError(
            f"{key} names {wanted!r}, which is no stage of the network{did_you_mean(wanted, names)}",
            f"Stages: {', '.join(names)}.",
        )
    return names.index(wanted)
