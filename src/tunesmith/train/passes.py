"""How a micro-batch becomes a loss: one forward pass or two, rows mixed or not, features held near those kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tunesmith.contracts import Array, Batched, Collate, Examples, Indices, Model, Objective
from tunesmith.data import batches
from tunesmith.errors import SettingsError, TrainingError
from tunesmith.models import heads
from tunesmith.models.activations import VIEWS, pooled, watched
from tunesmith.models.dropout import drops
from tunesmith.models.forward import device_of, precision, to
from tunesmith.plans import Phase, Plan
from tunesmith.train import processes
from tunesmith.train.anchors import Anchors, Kept, Replayed
from tunesmith.train.kept_answers import KeptAnswers
from tunesmith.train.rehearsal import drawn, rows_a_step

REPLAY_STRENGTH = 1.0
"""Of the features of replayed rows where train.distil gives none."""


@dataclass(frozen=True)
class Mixed:
    """Which rows of a micro-batch are mixed: row i with row others[i], of which it keeps the share `own`."""

    own: float
    others: Array
    box: tuple[int, int, int, int] | None = None
    """left, top, right, bottom of what is pasted from the other image; None where nothing is pasted."""
    hidden: bool = False
    """Whether it is what the last layer receives that is mixed, and not what the network is given."""

    def of_images(self, images: torch.Tensor) -> torch.Tensor:
        """`images`, (rows, channels, height, width), each with its share of another."""
        others = images[torch.from_numpy(self.others).to(images.device)]
        if self.box is None:
            return self.own * images + (1 - self.own) * others
        left, top, right, bottom = self.box
        found = images.clone()
        found[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        return found


class Passes:
    """Forward passes of training, with the guards that change the loss."""

    def __init__(
        self, objective: Objective, model: Model, rows: Batched, plan: Plan, seed: int, anchors: Anchors
    ) -> None:
        """Raise SettingsError where the network cannot do what a guard asks for."""
        self.objective, self.model, self.plan, self.seed, self.anchors = objective, model, plan, seed, anchors
        self.examples: Examples = rows.examples
        self.collate = rows.collate
        self.guards = plan.guards
        self.beside = torch.zeros(0)
        """Sums of what the objective tells beside its loss, since `begin`."""
        self.twice = bool(self.guards.r_drop) and drops(model.module)
        """False in a phase of which no part drops anything: two passes would be the same."""
        parts = model.modality == "text" and self.examples.targets is None
        if self.guards.mixup and (parts or heads.reads_last_token(model)):
            raise SettingsError(
                "train.mixup mixes one vector a row, but the head of this network reads each token by itself.",
                "Leave train.mixup away.",
            )
        if self.guards.mixes_inputs and model.modality != "image":
            name = "cutmix" if self.guards.cutmix else "mixup_of=inputs"
            raise SettingsError(f"train.{name} mixes images, and this task reads none.", "Leave it away.")
        if objective.compares and (self.guards.mixup or self.guards.cutmix or self.guards.r_drop):
            raise SettingsError(
                f"{objective.name} compares the rows of a step, which mixup, cutmix and r_drop leave no room for.",
                "Leave them away.",
            )
        for name in ("cutmix", "r_drop"):
            if getattr(self.guards, name) and self.examples.targets is None:
                raise SettingsError(
                    f"train.{name} is for tasks that give each input one answer, and this one does not.",
                    "Leave it away.",
                )
        if self.guards.mixes_inputs and self.guards.distil:
            name = "cutmix" if self.guards.cutmix else "mixup_of=inputs"
            raise SettingsError(
                f"train.distil holds the features of each image, and train.{name} leaves none whole.",
                "Take one of them.",
            )

    def begin(self) -> None:
        """Forget what was told beside the loss: a step begins."""
        self.beside = torch.zeros(len(self.objective.besides), device=device_of(self.model.module))

    def loss(
        self, part: Indices, random: np.random.Generator, pull: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the task's losses of the examples `part`, and the sum of what guards add; both scalar, fp32.

        Args:
            random: draws which rows are mixed.
            pull: the gradient of the loss of a whole step at what the network puts out for `part`, where the loss is not a
                sum over parts; in place of the task's loss stands then what has this gradient.
        """
        mixed = self._drawn(len(part), random)
        found = [self._pass(self.collate, part, mixed) for _ in range(2 if self.twice else 1)]
        if pull is None:
            total = torch.stack([self._task_loss(logits, part, mixed) for logits, _ in found]).mean()
        else:
            total = (found[0][0] * pull).sum()
        added = torch.zeros_like(total)
        if self.anchors.train is not None:
            held = [self._held(self.anchors.train, *one, part) for one in found]
            added = added + self.guards.distil * torch.stack(held).mean()
        if self.twice:
            # Half of equation 4, whose first term is the sum of two losses where this one is their mean.
            one, other = (logits / heads.unit_of(self.model) for logits, _ in found)
            apart = disagreement(one, other, heads.problem_of(self.model))
            added = added + self.guards.r_drop / 2 * (self._weights(part, apart) * apart).sum()
        return total, added

    def _held(
        self, kept: Kept | KeptAnswers, logits: torch.Tensor, now: dict[str, torch.Tensor], part: Indices
    ) -> torch.Tensor:
        """How far the examples `part` are from what is kept of them; a sum, as the loss is one."""
        if isinstance(kept, KeptAnswers):
            return kept.divergence(logits, part)
        away = kept.distances(now, part)
        return (self._weights(part, away) * away).sum()

    def outputs(self, part: Indices) -> torch.Tensor:
        """(len(part), …): what the task reads of the network's output, in a pass that is not mixed."""
        return self._pass(self.collate, part, None)[0]

    def _drawn(self, rows: int, random: np.random.Generator) -> Mixed | None:
        """How the rows of a micro-batch are mixed; None where they are not."""
        mixup, cutmix = self.guards.mixup, self.guards.cutmix
        if cutmix and (not mixup or random.random() < 0.5):
            height, width = (int(side) for side in self.model.example["pixel_values"].shape[-2:])
            box = pasted(float(random.beta(cutmix, cutmix)), height, width, random)
            left, top, right, bottom = box
            # What falls outside the image is not pasted, so that the share is that of the box as it is.
            own = 1 - (right - left) * (bottom - top) / (height * width)
            return Mixed(own, random.permutation(rows), box)
        if mixup:
            hidden = self.guards.mixup_of == "hidden"
            return Mixed(float(random.beta(mixup, mixup)), random.permutation(rows), hidden=hidden)
        return None

    def replayed(self, step: int, tokens: int) -> Iterator[torch.Tensor]:
        """What the replayed rows of a step add to its mean loss, micro-batch by micro-batch."""
        given = self.anchors.replayed
        if not given:
            return
        count = rows_a_step(self.guards.replay, self.plan.batch.rows)
        places = drawn([len(one.rows) for one in given], count, self.seed, step)
        chosen = [one.rows[few] for one, few in zip(given, places, strict=True)]
        strength = self.guards.distil or REPLAY_STRENGTH
        if self.anchors.learns:  # each row counts as much as one of training
            strength = sum(map(len, chosen)) / self.plan.batch.rows
        whole = sum(_counted(one, rows) for one, rows in zip(given, chosen, strict=True))
        for one, rows in zip(given, chosen, strict=True):
            own = processes.share(rows)
            for part in batches.micro_batches(own, one.rehearsal.examples.lengths, tokens) if len(own) else []:
                yield strength * self._rehearsed(one, part) / whole

    @property
    def longest_replayed(self) -> int:
        """Tokens of the longest row that may be replayed; 0 where none is."""
        found = [int(one.rehearsal.examples.lengths[one.rows].max()) for one in self.anchors.replayed]
        return max(found, default=0)

    def _rehearsed(self, one: Replayed, part: Indices) -> torch.Tensor:
        """What the replayed rows `part` teach; a sum over what `_counted` counts."""
        logits, now = self._pass(one.collate, part, None)
        if one.kept is None:
            return one.rehearsal.task.loss(logits, one.rehearsal.examples, part).sum
        return one.kept.distances(now, part).sum()

    def _pass(
        self, collate: Collate, part: Indices, mixed: Mixed | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Logits (rows, outputs), fp32, and the pooled features by view where guards read them."""
        module, device = self.model.module, device_of(self.model.module)
        batch = to(collate(part), device)  # anew for each pass: kept activations serve for one
        if mixed is not None and not mixed.hidden:
            batch["pixel_values"] = mixed.of_images(batch["pixel_values"])
        views = VIEWS if self.anchors.reads_features else ()
        with watched(self.model, views) as found, _mixing(self.model, mixed), precision(device, self.plan.precision):
            try:
                output = module(**batch)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise TrainingError(
                    "A normalisation that trains was given a single input, which has no variance.",
                    "Raise train.micro_batch_tokens or train.batch_size, or make inputs smaller.",
                ) from error
        return self.objective.read(output), {view: pooled(found[view], batch) for view in views}

    def _task_loss(self, logits: torch.Tensor, part: Indices, mixed: Mixed | None) -> torch.Tensor:
        found = self.objective.loss(logits, self.examples, part)
        if found.beside:
            self.beside = self.beside + torch.stack(list(found.beside)).detach()
        loss = found.sum
        if mixed is None:
            return loss
        other = self.objective.loss(logits, self.examples, part[mixed.others]).sum
        return mixed.own * loss + (1 - mixed.own) * other

    def _weights(self, part: Indices, beside: torch.Tensor) -> torch.Tensor:
        """(len(part),): what each example adds to the count of the loss."""
        return beside.new_tensor([self.examples.count(part[place : place + 1]) for place in range(len(part))])


def _counted(one: Replayed, rows: Indices) -> float:
    """What the mean over replayed rows runs over: tokens that are learned, or rows."""
    return one.rehearsal.examples.count(rows) if one.kept is None else len(rows)


def insist_on_dropout(plan: Plan, phase: Phase, model: Model) -> None:
    """Insist that something drops out in the last phase, in which most of the network trains, where R-Drop needs it.

    Raises:
        SettingsError: nothing does.
    """
    if plan.guards.r_drop and phase == plan.phases[-1] and not drops(model.module):
        raise SettingsError(
            "train.r_drop compares two passes of different dropout, but no part of the network that trains has any.",
            "Set train.dropout=0.1.",
        )


@contextmanager
def _mixing(model: Model, mixed: Mixed | None) -> Iterator[None]:
    """Manifold mixup (Verma et al. 2019, equation 1 with the last hidden layer): what the last layer receives is mixed."""
    if mixed is None or not mixed.hidden:
        yield
        return

    def mix(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        hidden = args[0]
        others = torch.from_numpy(mixed.others).to(hidden.device)
        return (mixed.own * hidden + (1 - mixed.own) * hidden[others],)

    handle = heads.last_layer(model).register_forward_pre_hook(mix)
    try:
        yield
    finally:
        handle.remove()


def pasted(own: float, height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
    """left, top, right, bottom of a box that leaves the share `own` where it lies inside (Yun et al. 2019, equation 2)."""
    across, up = width * (1 - own) ** 0.5 / 2, height * (1 - own) ** 0.5 / 2
    x, y = random.uniform(0, width), random.uniform(0, height)
    left, right = (int(np.clip(round(end), 0, width)) for end in (x - across, x + across))
    top, bottom = (int(np.clip(round(end), 0, height)) for end in (y - up, y + up))
    return left, top, right, bottom


def disagreement(one: torch.Tensor, other: torch.Tensor, problem: str) -> torch.Tensor:
    """(rows,): the mean of the two Kullback-Leibler divergences between answers, R-Drop's ½ [KL(P₁‖P₂) + KL(P₂‖P₁)].

    Args:
        one, other: logits (rows, outputs); scores in the unit of their spread, as the loss has them.
        problem: "single-label": softmax; "multi-label": a sigmoid each, their mean; "regression": normal distributions of
            variance 1, whose divergence is half the squared distance.
    """
    if problem == "regression":
        return (one - other).square().mean(dim=1) / 2
    if problem == "multi-label":
        gap = (one.sigmoid() - other.sigmoid()) * (one - other)  # p log p/q + (1-p) log (1-p)/(1-q), both ways
        return gap.mean(dim=1) / 2
    p, q = one.log_softmax(dim=1), other.log_softmax(dim=1)
    return ((p.exp() - q.exp()) * (p - q)).sum(dim=1) / 2
