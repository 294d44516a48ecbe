"""How the vectors of a row's tokens become one, and a classifier on top of a backbone with any such pooling."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tunesmith.models.heads import ExactLinear

OWN = "own"
"""The pooling that the model's own sequence-classification class has."""
FIRST, MEAN, LAST = "first", "mean", "last"
SENTENCE_TRANSFORMERS = {FIRST: "cls", MEAN: "mean", LAST: "lasttoken"}
"""What sentence-transformers calls them, and"""
POOLING_MODES = {
    FIRST: "pooling_mode_cls_token",
    MEAN: "pooling_mode_mean_tokens",
    LAST: "pooling_mode_lasttoken",
}
"""the keys that are true in its pooling configuration, as any version reads it."""


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """One vector a row from the backbone's last hidden states.

    Args:
        hidden: (batch, length, width).
        mask: (batch, length), 1 for tokens and 0 for padding.
        how: "first", "mean" or "last".

    Returns:
        (batch, width), fp32.
    """
    hidden = hidden.float()
    if how == FIRST:
        return hidden[:, 0]
    if how == LAST:
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


class PooledClassifier(nn.Module):
    """A backbone, a pooling and one linear layer: what a probe is when the model's own class pools otherwise."""

    def __init__(self, backbone: nn.Module, how: str, outputs: int, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.how = how
        self.head = ExactLinear(width, outputs)

    def forward(self, **batch: Any) -> SimpleNamespace:
        hidden = self.backbone(**batch).last_hidden_state
        return SimpleNamespace(logits=self.head(pool(hidden, batch["attention_mask"], self.how)))
