"""The pieces that plans are made of: the solved head, and rows for stages that train at given rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.contracts import Facts, Stage
from tunesmith.errors import SettingsError, did_you_mean
from tunesmith.methods.defaults import Choices
from tunesmith.methods.guards import resolve
from tunesmith.plans import HEAD, Part, Phase, Plan, Row, Schedule, cut_of


def solved_head(stages: Sequence[Stage], *, gentle: bool = True) -> Phase:
    """The head is solved for on frozen features.

    Args:
        gentle: with a strong penalty, to start training from; otherwise the one that is best on validation.
    """
    return Phase("head", "solve", tuple(Row(stage.name, None) for stage in stages), gentle=gentle)


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
) -> Phase:
    """A phase in which the stages named in `rates` train, the head whole, of the others `part`."""
    wanted = facts.settings
    rows = []
    for stage in stages:
        own: Part = "all" if stage.name == HEAD else part
        # Adapters are not there yet: they come when the plan is carried out.
        rate = rates.get(stage.name) if own == "adapter" or stage.chosen(own) else None
        rows.append(Row(stage.name, rate, wanted.weight_decay if rate is not None else 0.0, own, upper_factor))
    return Phase(name, "train", tuple(rows), epochs, schedule or Schedule(wanted.schedule, wanted.warmup))


def assemble(
    method: str, phases: Sequence[Phase], choices: Choices, facts: Facts, reasons: Sequence[str], **more: Any
) -> Plan:
    """The plan, with what all methods share."""
    wanted = facts.settings
    guards, why = resolve(wanted, phases, more.get("adapter"))
    views, cache, varied = _views(phases, facts)
    told = facts.told if any(phase.head == "train" for phase in phases) else ()
    reasons = [*reasons, *choices.reasons, *told, *varied, *why]
    return Plan(
        method=method,
        phases=tuple(phases),
        precision=choices.precision,
        batch=choices.batch,
        clip_norm=wanted.clip_norm,
        patience=wanted.patience,
        dropout=None if wanted.dropout == "model" else wanted.dropout,
        cache=cache,
        views=views,
        guards=guards,
        reasons=tuple(reasons),
        **more,
    )


def _views(phases: Sequence[Phase], facts: Facts) -> tuple[int, bool, tuple[str, ...]]:
    """Variants of each row, whether activations are kept, and why: new variants each epoch leave nothing to keep."""
    # What stages put out of mixed images belongs to no image.
    variation, cache = facts.variation, facts.settings.cache == "auto" and not facts.settings.cutmix
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
