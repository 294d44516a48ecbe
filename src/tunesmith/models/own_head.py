"""The head that a checkpoint brings: whether it fits the labels of some data, and putting it into their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import nn

from tunesmith.contracts import UNSOLVED, Model
from tunesmith.models import heads
from tunesmith.models.load import quiet
from tunesmith.plans import HEAD
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
    """Whether two networks, loaded with different seeds, have one and the same head: then it came from the files."""
    if one.head not in UNSOLVED:
        return torch.equal(heads.last_layer(one).weight, heads.last_layer(other).weight)
    first, second = (dict(model.module.named_parameters()) for model in (one, other))
    names = [name for stage in one.stages if stage.name == HEAD for name in stage.parameters]
    return all(torch.equal(first[name], second[name]) for name in names)


def reorder(model: Model, order: Sequence[int]) -> None:
    """Let output i of `model` be what output order[i] was; a head of several layers was put into that order when it was
    loaded."""
    if model.head not in UNSOLVED:
        rearrange(heads.last_layer(model), order)


def rearrange(layer: nn.Linear | nn.Conv2d | nn.Embedding, order: Sequence[int]) -> None:
    """Let output i of `layer`, or vector i, be what that of order[i] was."""
    with torch.no_grad():
        for tensor in layer.parameters():
            tensor.copy_(tensor[list(order)].clone())
