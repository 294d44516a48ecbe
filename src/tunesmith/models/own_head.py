"""The head that a checkpoint brings: whether it fits the labels of some data, and putting it into their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from tunesmith.contracts import Model
from tunesmith.models import heads
from tunesmith.models.load import quiet
from tunesmith.settings import UserModel


def names_of(model: Model) -> tuple[str, ...]:
    """The labels that the files of `model` name, by index; those that transformers makes up for lack of any, too."""
    if isinstance(model.source, UserModel):
        return tuple(model.source.labels)
    with quiet():
        config: Any = transformers.AutoConfig.from_pretrained(model.folder, trust_remote_code=model.remote_code)
    return tuple(str(config.id2label[index]) for index in sorted(config.id2label))


def order_by_name(names: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """For each of `labels`, which of `names` it is, case and surrounding blanks ignored; None where they do not agree."""
    place = {name.strip().casefold(): index for index, name in enumerate(names)}
    wanted = [label.strip().casefold() for label in labels]
    if len(names) != len(labels) or set(wanted) != set(place) or len(place) < len(names):
        return None
    return [place[name] for name in wanted]


def same_head(one: Model, other: Model) -> bool:
    """Whether two networks, loaded with different seeds, have one and the same last layer: then it came from the files."""
    return torch.equal(heads.last_layer(one).weight, heads.last_layer(other).weight)


def reorder(model: Model, order: Sequence[int]) -> None:
    """Let output i of `model` be what output order[i] was."""
    layer = heads.last_layer(model)
    with torch.no_grad():
        layer.weight.copy_(layer.weight[list(order)].clone())
        if layer.bias is not None:
            layer.bias.copy_(layer.bias[list(order)].clone())
