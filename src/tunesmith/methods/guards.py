"""The guards of the plan from the training settings, with a sentence for each, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.contracts import UNSOLVED, Facts
from tunesmith.errors import SettingsError
from tunesmith.plans import Adapter, Guards, Phase


def resolve(phases: Sequence[Phase], adapter: Adapter | None, facts: Facts) -> tuple[Guards, list[str]]:
    """Which guards the plan has, and why.

    Raises:
        SettingsError: a guard of single weights beside adapters, which leave these as they are; or one that needs a head
            with a linear last layer.
    """
    wanted = facts.settings
    if wanted.mixup_of != "hidden" and not wanted.mixup:
        raise SettingsError(
            "train.mixup_of says what train.mixup mixes, and that is 0.", "Set train.mixup=0.4, or leave mixup_of away."
        )
    unsolved = facts.head in UNSOLVED
    if unsolved and wanted.mixup and wanted.mixup_of == "inputs":
        raise SettingsError(
            "train.mixup mixes two inputs and the one answer that each has, and this task gives no such answer.",
            "Leave train.mixup away.",
        )
    barred = {"mixup": unsolved, "distil": facts.holds == "nothing", "replay": facts.replays == "nothing"}
    if held := [name for name, bars in barred.items() if bars and getattr(wanted, name)]:
        raise SettingsError(
            f"train.{held[0]} works on one vector a row, and the last layer of this head receives none.",
            f"Leave train.{held[0]} away.",
        )
    guards = Guards(
        l2_sp=wanted.l2_sp,
        ema=wanted.ema,
        swa=wanted.swa,
        ewc=wanted.ewc,
        distil=wanted.distil,
        replay=wanted.replay,
        wise_ft=wanted.wise_ft,
        r_drop=wanted.r_drop,
        mixup=wanted.mixup,
        mixup_of=wanted.mixup_of,
        cutmix=wanted.cutmix,
        sam=wanted.sam,
    )
    if not any(phase.head == "train" for phase in phases):
        unused = ["No guard of train. applies, as nothing trains by gradient."] if guards != Guards() else []
        return Guards(), unused
    if adapter is not None and wanted.ewc:
        raise SettingsError(
            f"train.ewc is {wanted.ewc:g}, but beside adapters the pre-trained weights stay as they are.",
            "Use train.distil, train.replay or train.wise_ft, or a method without adapters.",
        )
    looking = [name for name in ("distil", "replay") if getattr(wanted, name)]
    if adapter is not None and adapter.tokens and looking:
        raise SettingsError(
            f"train.{looking[0]} keeps what the network could do before, and virtual tokens leave that as it is: without "
            "them it is the same network.",
            f"Leave train.{looking[0]} away.",
        )
    if adapter is not None and not adapter.merge and wanted.wise_ft:
        raise SettingsError(
            "train.wise_ft mixes whole weights, but method.merge is false, so the adapters stay apart.",
            "Set method.merge=true, or leave train.wise_ft away.",
        )
    return guards, [*_pulls(guards), *_rehearsed(guards, facts), *_averages(guards), *_passes(guards)]


def _pulls(guards: Guards) -> list[str]:
    found = []
    if guards.l2_sp:
        found.append(f"A pull of {guards.l2_sp:g} back to the pre-trained weights, as train.l2_sp says.")
    if guards.ewc:
        found.append(
            f"A pull of {guards.ewc:g} back to the pre-trained weights, each by its importance (train.ewc), which is "
            "measured once, by one backward pass for each of some hundred rows."
        )
    return found


def _rehearsed(guards: Guards, facts: Facts) -> list[str]:
    found = []
    if guards.distil and facts.holds == "answers":
        found.append(
            "The next tokens that the network expects in the training rows are held near those that the pre-trained one "
            f"expected, at the strength {guards.distil:g} of train.distil; its likeliest ones are kept, computed once."
        )
    elif guards.distil:
        found.append(
            f"The features of the training rows are held near those of the pre-trained network, at the strength "
            f"{guards.distil:g} of train.distil; these are computed once."
        )
    if guards.replay and facts.replays == "loss":
        found.append(
            f"{100 * guards.replay:.0f} % of each batch are reference rows, which are learned as the network learned them "
            f"before (train.replay): a step takes about {1 / (1 - guards.replay):.1f} times as long."
        )
    elif guards.replay:
        found.append(
            f"{100 * guards.replay:.0f} % of each batch are reference rows, whose features are held near those of the "
            f"pre-trained network (train.replay): a step takes about {1 / (1 - guards.replay):.1f} times as long."
        )
    return found


def _averages(guards: Guards) -> list[str]:
    found = []
    if guards.ema:
        found.append(
            f"A moving average of the weights is validated and kept, with the decay {guards.ema:g} of train.ema."
        )
    if guards.swa:
        found.append(
            f"The weights of the last {100 * guards.swa:.0f} % of the steps are averaged equally, as train.swa says."
        )
    if guards.wise_ft:
        found.append(
            "At the end the weights from before and after training are mixed by the share that is best on validation "
            "(train.wise_ft): some more passes over validation, and over reference rows where there are any."
        )
    return found


def _passes(guards: Guards) -> list[str]:
    found = []
    if guards.r_drop:
        found.append(
            f"Two passes of different dropout are made to agree, at the strength {guards.r_drop:g} of train.r_drop: a step "
            "takes twice as long and twice the memory of activations."
        )
    if guards.mixup:
        what = "Rows are mixed in what the last layer receives" if guards.mixup_of == "hidden" else "Images are mixed"
        found.append(f"{what}, with the alpha {guards.mixup:g} of train.mixup.")
    if guards.cutmix:
        found.append(f"A box of one image is pasted into another, with the alpha {guards.cutmix:g} of train.cutmix.")
    if guards.mixup and guards.cutmix:
        found.append("Each forward pass does either, by chance.")
    if guards.sam:
        found.append(
            f"Each gradient is taken a step of {guards.sam:g} up the loss (train.sam): a step takes twice as long."
        )
    return found
