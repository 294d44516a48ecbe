"""What is kept of a segmenter's answer for an image: all that metrics need, and a small picture, but no map of logits.

A row is: the loss of its pixels, the share of them that counts in it, the shares of the image's pixels by truth and
prediction (a confusion matrix), and the predicted classes on a grid of `GRID` by `GRID`. All are numbers of at most about 1,
so that rounding means the same for them as for logits. Of images without truth the logits themselves are kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tunesmith.contracts import Array, Indices
from tunesmith.data.segments import Segments
from tunesmith.data.targets.masks import VOID
from tunesmith.metrics import segmentation

GRID = 96
"""Cells of the small picture, across and down."""
SCALE = 255.0
"""What class indices of the small picture are divided by."""


def upsampled(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(images, classes, height, width) of `size`, as transformers' own post-processing does it."""
    if tuple(logits.shape[2:]) == size:
        return logits
    return functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def pixel_losses(logits: torch.Tensor, truth: npt.NDArray[np.uint8], weights: torch.Tensor | None) -> torch.Tensor:
    """(images,): the summed cross-entropy of the labelled pixels, divided by the pixels of an image."""
    targets = torch.from_numpy(truth.astype(np.int64)).to(logits.device)
    whole = upsampled(logits, (truth.shape[1], truth.shape[2]))
    found = functional.cross_entropy(whole, targets, weight=weights, ignore_index=VOID, reduction="none")
    return found.mean(dim=(1, 2))


def kept(logits: torch.Tensor, examples: Segments, indices: Indices, weights: torch.Tensor | None) -> torch.Tensor:
    """(images, numbers): the outcomes of images whose truth is known.

    Args:
        logits: (images, classes, height, width), fp32.
        weights: (classes,) of pixels in the loss.
    """
    classes = logits.shape[1]
    losses = pixel_losses(logits, examples.truth(indices), weights).cpu().numpy()
    rows = []
    for place, index in enumerate(indices):
        drawn = examples.drawn(int(index))
        answer = upsampled(logits[place : place + 1], drawn.shape)[0].argmax(dim=0).cpu().numpy()
        counts = segmentation.confusion(drawn, answer, classes, VOID)
        rows.append(
            _row(losses[place], examples.count(indices[place : place + 1]), counts / drawn.size, on_grid(answer))
        )
    return torch.from_numpy(np.stack(rows))


def constant(examples: Segments, shares: Array) -> Array:
    """(images, numbers): the outcomes of giving every pixel the probabilities `shares`, (classes,)."""
    classes, answer = len(shares), int(shares.argmax())
    rows = []
    for row in range(examples.rows):
        small, drawn = examples.truth(np.array([row]))[0], examples.drawn(row)
        loss = -np.log(shares[small[small != VOID]]).sum() / small.size
        counts = segmentation.confusion(drawn, np.full(drawn.shape, answer), classes, VOID)
        grid = np.full((GRID, GRID), answer)
        rows.append(_row(loss, examples.labelled[row], counts / drawn.size, grid))
    return np.stack(rows)


def _row(loss: float, count: float, shares: Array, grid: Array) -> npt.NDArray[np.float32]:
    return np.concatenate([[loss, count], shares.reshape(-1), grid.reshape(-1) / SCALE]).astype(np.float32)


def on_grid(answer: Array) -> Array:
    """(GRID, GRID): a mask of any size, seen small."""
    down, across = ((np.arange(GRID) + 0.5) * side / GRID for side in answer.shape)
    return np.asarray(answer[down.astype(int)][:, across.astype(int)])


def loss_of(outcomes: Array) -> float:
    """The mean over all labelled pixels."""
    return float(outcomes[:, 0].sum() / max(float(outcomes[:, 1].sum()), 1e-12))


def counts_of(outcomes: Array, sizes: Array) -> npt.NDArray[np.int64]:
    """(images, classes, classes) pixels by truth and prediction, of images of `sizes`, (images, 2)."""
    classes = round((outcomes.shape[1] - 2 - GRID * GRID) ** 0.5)
    shares = outcomes[:, 2 : 2 + classes * classes].astype(np.float64).reshape(-1, classes, classes)
    return np.asarray(np.rint(shares * sizes.prod(axis=1)[:, None, None]).astype(np.int64))


def grids_of(outcomes: Array) -> npt.NDArray[np.uint8]:
    """(images, GRID, GRID) predicted classes."""
    return np.rint(outcomes[:, -GRID * GRID :] * SCALE).astype(np.uint8).reshape(-1, GRID, GRID)
