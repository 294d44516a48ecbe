"""The loss of a set of boxes: each true box is matched with one found box, and all others are to find nothing.

Carion et al. 2020, section 3.1 (matching, L1 and GIoU), with Zhao et al. 2024, section 4.2, for classes that have a
probability each. Every image is matched, and counted, by itself, so that a step may be cut in any way; transformers' own
losses are means over a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

CLASS_COST, BOX_COST, OVERLAP_COST = 2.0, 5.0, 2.0
"""Of the matching."""
BOX_WEIGHT, OVERLAP_WEIGHT = 5.0, 2.0
"""Of the loss; that of classes weighs 1."""
ALPHA, GAMMA = 0.75, 2.0
"""Of the varifocal loss: by how much what is easily seen as nothing counts less (Zhang et al. 2021, equation 2)."""
MATCH_ALPHA = 0.25
NOTHING = 0.1
"""Weight of a found box that should have found nothing, where classes share one probability (Carion et al. 2020, A.4)."""
CORNERS = 4

Truth = tuple[Any, Any]
"""Boxes (n, 4) as shares of the image: centre x, centre y, width, height; and their classes (n,). Arrays."""


def set_losses(answers: torch.Tensor, truth: Sequence[Truth], classes: int) -> torch.Tensor:
    """(images,), fp32: each image's loss, times the number of its boxes, at least 1.

    Args:
        answers: (images, layers, queries, outputs + 4): logits and boxes of each layer that is to learn, boxes as above. With
            one output more than classes there is one for "nothing", and all share one probability.
        truth: of each image.
    """
    logits, boxes = answers[..., :-CORNERS], answers[..., -CORNERS:]
    images, layers, queries, outputs = logits.shape
    counts = torch.tensor([max(1, len(one)) for one, _ in truth], dtype=torch.float32, device=answers.device)
    place, wanted, labels = _matches(logits, boxes, truth, shared=outputs > classes)
    found = boxes.reshape(-1, CORNERS)[place]
    overlaps = generalised_iou(found, wanted)
    of_image = torch.div(place, layers * queries, rounding_mode="floor")
    apart = BOX_WEIGHT * (found - wanted).abs().sum(dim=1) + OVERLAP_WEIGHT * (1 - overlaps)
    losses = torch.zeros(images, device=answers.device).index_add(0, of_image, apart)
    flat = logits.reshape(-1, outputs)
    if outputs > classes:
        target = torch.full((len(flat),), classes, device=answers.device).index_copy(0, place, labels)
        weights = torch.where(target == classes, NOTHING, 1.0)
        each = functional.cross_entropy(flat, target, reduction="none") * weights
        by_layer = each.view(images, layers, queries).sum(dim=2) / weights.view(images, layers, queries).sum(dim=2)
        return losses + counts * by_layer.sum(dim=1)
    score = torch.zeros_like(flat).index_put((place, labels), iou(found.detach(), wanted))
    hit = torch.zeros_like(flat).index_put((place, labels), torch.ones_like(overlaps))
    weights = torch.where(hit > 0, score, ALPHA * flat.detach().sigmoid().pow(GAMMA))
    each = functional.binary_cross_entropy_with_logits(flat, score, weight=weights, reduction="none")
    return losses + each.view(images, -1).sum(dim=1)


def _matches(
    logits: torch.Tensor, boxes: torch.Tensor, truth: Sequence[Truth], *, shared: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which found box stands for which true one: places among all found boxes; the true boxes, (matches, 4), and classes."""
    device, (_, layers, queries, _) = logits.device, logits.shape
    places, wanted, labels = [], [], []
    scores = logits.detach().softmax(dim=-1) if shared else logits.detach().sigmoid()
    for image, (true_boxes, true_classes) in enumerate(truth):
        if not len(true_boxes):
            continue
        own = torch.as_tensor(np.asarray(true_boxes), dtype=torch.float32, device=device)
        kinds = torch.as_tensor(np.asarray(true_classes), dtype=torch.int64, device=device)
        cost = _cost(scores[image][..., kinds], boxes[image].detach(), own, shared=shared).cpu().numpy()
        for layer in range(layers):
            rows, columns = linear_sum_assignment(cost[layer])
            places.append(torch.from_numpy((image * layers + layer) * queries + rows).to(device))
            wanted.append(own[columns])
            labels.append(kinds[columns])
    if not places:
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return none, torch.zeros((0, CORNERS), device=device), none
    return torch.cat(places), torch.cat(wanted), torch.cat(labels)


def _cost(scores: torch.Tensor, found: torch.Tensor, true: torch.Tensor, *, shared: bool) -> torch.Tensor:
    """(layers, queries, n): what it would cost to let a found box stand for a true one; what is no number costs most.

    Args:
        scores: (layers, queries, n) probabilities of the true boxes' classes.
        found: (layers, queries, 4).
        true: (n, 4).
    """
    if shared:
        of_class = -scores
    else:
        hit = MATCH_ALPHA * (1 - scores) ** GAMMA * -(scores + 1e-8).log()
        of_class = hit - (1 - MATCH_ALPHA) * scores**GAMMA * -(1 - scores + 1e-8).log()
    apart = (found[:, :, None] - true).abs().sum(dim=-1)
    overlap = generalised_iou(found[:, :, None], true)
    cost = CLASS_COST * of_class + BOX_COST * apart - OVERLAP_COST * overlap
    highest = torch.finfo(cost.dtype).max / 1e6
    return torch.nan_to_num(cost, nan=highest, posinf=highest, neginf=highest)


def iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes (…, 4), by centre and size; the leading dimensions are broadcast."""
    shared, union, _ = _areas(one, other)
    return shared / union.clamp(min=1e-9)


def generalised_iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The same less the empty share of the smallest box around both (Rezatofighi et al. 2019, algorithm 1)."""
    shared, union, around = _areas(one, other)
    return shared / union.clamp(min=1e-9) - (around - union) / around.clamp(min=1e-9)


def _areas(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the intersection, of the union, and of the smallest box around both."""
    (low, high), (from_, to) = _corners(one), _corners(other)
    shared = (torch.minimum(high, to) - torch.maximum(low, from_)).clamp(min=0).prod(dim=-1)
    union = one[..., 2:].prod(dim=-1) + other[..., 2:].prod(dim=-1) - shared
    around = (torch.maximum(high, to) - torch.minimum(low, from_)).prod(dim=-1)
    return shared, union, around


def _corners(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    half = boxes[..., 2:] / 2
    return boxes[..., :2] - half, boxes[..., :2] + half
