"""What a detector answers: one tensor of all that learns, and what is kept of it for an image.

What is kept is a row of numbers: the loss, what it counts, and of the surest boxes, as many as there are queries, the score,
class, and place, all at most about 1, so that rounding means the same for them as for logits. Of images without truth all
boxes of the last layer are kept, with their logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.contracts import Array
from tunesmith.data.boxed import Boxed
from tunesmith.metrics.detection import Boxes, Found
from tunesmith.tasks.set_loss import CORNERS, Truth, set_losses

SCALE = 255.0
"""What class indices are divided by."""
PARTS = 2 + CORNERS
"""Numbers a box."""


def answers_of(output: Any) -> torch.Tensor:
    """(images, layers, queries, outputs + 4), fp32: logits and boxes; the last layer, then those before that learn too.

    Args:
        output: of any detector; those of RT-DETR's kind give what each layer of the decoder finds, and what it starts from.
    """
    layers = [(output.logits, output.pred_boxes)]
    if isinstance(between := getattr(output, "intermediate_logits", None), torch.Tensor):
        places = output.intermediate_reference_points
        layers += [(between[:, layer], places[:, layer]) for layer in range(between.shape[1] - 1)]
        layers.append((output.enc_topk_logits, output.enc_topk_bboxes))
    return torch.stack([torch.cat([logits.float(), boxes.float()], dim=-1) for logits, boxes in layers], dim=1)


def kept(answers: torch.Tensor, truth: Sequence[Truth], classes: int) -> torch.Tensor:
    """(images, 2 + queries · PARTS): the outcomes of images whose truth is known."""
    losses = set_losses(answers, truth, classes)
    counts = losses.new_tensor([max(1, len(boxes)) for boxes, _ in truth])
    return torch.cat([losses[:, None], counts[:, None], packed(*surest(answers[:, 0], classes))], dim=1)


def packed(scores: torch.Tensor, labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(images, queries · PARTS): what `surest` gives, one box after the other."""
    return torch.cat([scores[..., None], labels[..., None] / SCALE, boxes], dim=-1).flatten(1)


def surest(last: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores and classes (images, n) and boxes (images, n, 4) of the surest boxes, as transformers' own processors have them.

    Args:
        last: (images, queries, outputs + 4).
    """
    logits, boxes = last[..., :-CORNERS], last[..., -CORNERS:]
    if logits.shape[-1] > classes:
        scores, labels = logits.softmax(dim=-1)[..., :-1].max(dim=-1)
        found, query = scores.sort(dim=1, descending=True)
        labels = labels.gather(1, query)
    else:
        flat = logits.sigmoid().flatten(1)
        found, place = flat.topk(last.shape[1], dim=1)
        query, labels = torch.div(place, classes, rounding_mode="floor"), place % classes
    return found, labels, boxes.gather(1, query[..., None].expand(-1, -1, CORNERS))


def constant(examples: Boxed, shares: Array, box: Array, outputs: int, queries: int) -> Array:
    """Outcomes of giving every image the same: in each query the probabilities `shares`, (classes,), at `box`, (4,)."""
    assert examples.boxes is not None
    classes = len(shares)
    nothing = max(1 - float(shares.sum()), 1e-6)
    logits = np.log(np.append(shares, nothing) if outputs > classes else shares / (1 - shares))
    one = torch.from_numpy(np.concatenate([logits, box]).astype(np.float32))
    answers = one.expand(1, 1, queries, -1)
    rows = [kept(answers, examples.truth(np.array([row])), classes) for row in range(examples.rows)]
    return torch.cat(rows).numpy()


def loss_of(outcomes: Array) -> float:
    """The mean over all boxes."""
    return float(outcomes[:, 0].sum() / outcomes[:, 1].sum())


def found_in(outcomes: Array, sizes: Array) -> list[Found]:
    """The boxes that are kept of each image, surest first, in pixels.

    Args:
        sizes: (images, 2) height and width.
    """
    parts = outcomes[:, 2:].astype(np.float64).reshape(len(outcomes), -1, PARTS)
    return [
        Found(in_pixels(one[:, 2:], size), np.rint(one[:, 1] * SCALE).astype(np.int64), one[:, 0])
        for one, size in zip((part[part[:, 0] > 0] for part in parts), sizes, strict=True)
    ]


def true_in(examples: Boxed) -> list[Boxes]:
    """The true boxes of each image, in pixels; those that are not to be counted are marked."""
    assert examples.boxes is not None
    assert examples.classes is not None
    assert examples.ignored is not None
    assert examples.ignored_classes is not None
    return [
        Boxes(
            in_pixels(np.concatenate([boxes, ignored]), size),
            np.concatenate([classes, others]),
            np.repeat([False, True], [len(boxes), len(ignored)]),
        )
        for boxes, classes, ignored, others, size in zip(
            examples.boxes, examples.classes, examples.ignored, examples.ignored_classes, examples.sizes, strict=True
        )
    ]


def in_pixels(boxes: npt.NDArray[np.float64], size: Array) -> npt.NDArray[np.float64]:
    """(n, 4) corners in an image of `size`, (height, width), of boxes by centre and size as shares of it; cut to it."""
    height, width = size
    half = boxes[:, 2:] / 2
    corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    return np.asarray(np.clip(corners, 0, 1) * np.array([width, height, width, height]))
