"""The last layer of a network's own head, linear for each row or for each pixel: finding it, keeping it exact, and putting a
solution into it.

Solving for exactly what that layer receives makes one rule serve every architecture, whatever the class does between
the backbone and its last layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from tunesmith.contracts import UNSOLVED, Model
from tunesmith.errors import ModelError
from tunesmith.models.forward import device_of, evaluated, to


def outputs_of(model: Model) -> int:
    """How many logits the network gives a row."""
    config: Any = model.module.config
    return int(config.num_labels)


def problem_of(model: Model) -> str:
    """What kind of answer the network's configuration says it gives: "single-label", "multi-label" or "regression"."""
    config: Any = model.module.config
    named = {"multi_label_classification": "multi-label", "regression": "regression"}
    return named.get(str(config.problem_type), "single-label")


def last_layer(model: Model) -> nn.Linear | nn.Conv2d:
    """The layer of the head whose output is the logits: linear, or a convolution of one pixel, which is linear for each.

    Where several would fit, as in networks with an auxiliary head, it is the last that is called of those that the logits
    depend on.

    Raises:
        ModelError: the head has no such layer.
    """
    known: Any = _exact(model)  # `make_exact` found it before
    if known is not None:
        return known  # type: ignore[no-any-return]
    outputs = outputs_of(model)
    found = [child for child in outside(model) if isinstance(child, nn.Linear | nn.Conv2d) and _gives(child, outputs)]
    if len(found) > 1:
        found = _deciding(model, found)
    if not found:
        raise ModelError(f"{type(model.module).__name__} has no final linear layer with {outputs} outputs.")
    return found[-1]


def outside(model: Model) -> list[nn.Module]:
    """The modules of the head."""
    inside = tuple(f"{name}." for name in model.head_inside)
    return [
        child
        for name, child in model.module.named_modules()
        if not name.startswith(model.start) or f"{name}.".startswith(inside)
    ]


def _deciding(model: Model, layers: list[nn.Linear | nn.Conv2d]) -> list[nn.Linear | nn.Conv2d]:
    """Those of `layers` whose outputs change the logits, in the order in which they are called."""
    order: list[nn.Linear | nn.Conv2d] = []
    network: Any = model.module
    batch = to(model.example, device_of(network))

    def logits(layer: nn.Module | None) -> torch.Tensor:
        handles = [one.register_forward_pre_hook(lambda child, _: order.append(child)) for one in layers]
        if layer is not None:
            handles.append(layer.register_forward_hook(lambda _, __, output: output + 1))
        try:
            return network(**batch).logits  # type: ignore[no-any-return]
        finally:
            for handle in handles:
                handle.remove()

    with evaluated(network), torch.no_grad():
        plain = logits(None)
        called = list(dict.fromkeys(order))
        return [one for one in called if not torch.equal(logits(one), plain)]


def _gives(layer: nn.Linear | nn.Conv2d, outputs: int) -> bool:
    """Whether `layer` is a linear map to so many outputs."""
    if isinstance(layer, nn.Linear):
        return layer.out_features == outputs
    return layer.out_channels == outputs and layer.kernel_size == (1, 1) and layer.groups == 1


def width_of(model: Model) -> int:
    """How many numbers the last layer receives, of a row, of a pixel or of a query."""
    if model.head in UNSOLVED:
        config: Any = model.module.config
        config = config.get_text_config(decoder=True) if model.decoder else config
        return int(getattr(config, "d_model", None) or config.hidden_size)
    layer = last_layer(model)
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features


def backbone_width(model: Model) -> int:
    """How wide the backbone is, where a detector's head is new; otherwise what the head receives."""
    if model.head != "new" or model.language or model.decoder:  # a language model's is as wide as its blocks
        return width_of(model)
    config: Any = model.module.config
    return int(config.encoder_in_channels[-1])


def reads_last_token(model: Model) -> bool:
    """Whether the head is the decoders' one: a single layer named `score` over every token, read at the last one."""
    children = [name for name, child in model.module.named_children() if any(True for _ in child.parameters())]
    return children == [model.backbone, "score"]


class _Exact(nn.Module):
    """A head's last layer, in full precision whatever the precision of the rest, and in the unit of the targets.

    bf16 has eight bits: logits rounded to it tie rows that differ, and a score of 1,003 becomes 1,000. While training,
    weights stay near 1 whatever the targets' scale, as the optimiser's step does; `fold` puts the scale into them.
    """

    scale: float = 1.0
    offset: float = 0.0

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        """(…, width) to (…, outputs), or (rows, width, height, width) to (rows, outputs, height, width); fp32."""
        with torch.autocast(input.device.type, enabled=False):
            found: torch.Tensor = super().forward(input.float())
            return found * self.scale + self.offset


def _exact(model: Model) -> _Exact | None:
    """The last layer, where `make_exact` had its say."""
    return next((child for child in reversed(outside(model)) if isinstance(child, _Exact)), None)


class ExactLinear(_Exact, nn.Linear):
    """For rows."""


class ExactConv(_Exact, nn.Conv2d):
    """For pixels."""


class Cosine(_Exact, nn.Linear):
    """For vectors that are compared: their cosines to prototypes, then the vector itself, of length 1."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        """(rows, width) to (rows, outputs + width), fp32."""
        with torch.autocast(input.device.type, enabled=False):
            vector = functional.normalize(input.float(), dim=1)
            return torch.cat([vector @ functional.normalize(self.weight, dim=1).T, vector], dim=1)


class Unit(Cosine):
    """For vectors that nothing stands for: each by itself, of length 1."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 0, bias=False)

    def reset_parameters(self) -> None:
        return  # there is nothing to draw


def unit_of(model: Model) -> float:
    """What the logits of `model` are measured in: the spread of its targets where they are scores, otherwise 1."""
    layer = _exact(model)
    return 1.0 if layer is None else layer.scale


def make_exact(model: Model, centre: float = 0.0, spread: float = 1.0) -> None:
    """Let the last layer of `model` compute in full precision, around `centre` in units of `spread`."""
    layer = last_layer(model)
    layer.__class__ = ExactConv if isinstance(layer, nn.Conv2d) else ExactLinear
    assert isinstance(layer, _Exact)
    layer.scale = spread
    # Without a bias there is nothing that `fold` could put the centre into.
    layer.offset = 0.0 if layer.bias is None else centre


def agree(model: Model, one: torch.Tensor, other: torch.Tensor, share: float) -> bool:
    """Whether two sets of logits differ by at most `share` of their size; scores in the unit of their spread."""
    layer, scale = _exact(model), unit_of(model)
    offset = 0.0 if layer is None else layer.offset
    size = max(1.0, float((other - offset).abs().max()) / scale)
    return float((one - other).abs().max()) / scale <= share * size


def fold(model: Model) -> None:
    """Put scale and offset of the last layer into its weights, so that it is a linear layer like any other."""
    layer: Any = _exact(model)
    if layer is not None:
        with torch.no_grad():
            layer.weight.mul_(layer.scale)
            if layer.bias is not None:
                layer.bias.mul_(layer.scale).add_(layer.offset)
        layer.scale, layer.offset = 1.0, 0.0


def install(layer: nn.Linear | nn.Conv2d, weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]) -> None:
    """Copy a solution, `weight` (outputs, width) and `bias` (outputs,), into `layer`."""
    scale, offset = (layer.scale, layer.offset) if isinstance(layer, _Exact) else (1.0, 0.0)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight / scale).reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy((bias - offset) / scale))
