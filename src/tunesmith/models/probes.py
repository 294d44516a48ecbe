"""The linear probe: what a head on frozen features can do, for every pooling that the model allows.

One forward pass gives the features of all poolings; the one that the files name as that of pre-training, or else the best one
on validation, is the probe (a baseline of its own), and the solution for the model's own pooling is where fine-tuning starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tunesmith import seeds
from tunesmith.contracts import Array, Batched, Examples, Features, Head, Indices, Model
from tunesmith.models import heads, prompts
from tunesmith.models.forward import device_of, outputs
from tunesmith.models.pooling import FIRST, LAST, MEAN, OWN, PooledClassifier, pool
from tunesmith.models.solver import STRENGTHS, Solution, solve
from tunesmith.models.stages import find_stages
from tunesmith.run import writing

START_STRENGTH = 50.0
"""Penalty of the solution that fine-tuning starts from. A weak one gives large weights, and their gradients tear at the
backbone in the first steps: measured on SST-2, validation accuracy then ends near 0.870 instead of 0.878."""
COMPARE_STRENGTH = 1.0
"""Penalty at which the poolings are compared; only the best one is solved for over all strengths."""
MOST_ROWS = 20_000
"""A linear map of some hundred inputs gains nothing from more."""


@dataclass(frozen=True)
class Wanted:
    """What is asked of a probe."""

    precision: str
    seed: int
    gentle: bool
    """Whether training goes on from the head, so that it has a strong penalty."""
    standard: bool
    """Whether that head must be one for the pooling that the model's own class has."""
    score: Callable[[Array], float]
    """Quality of logits (validation pieces, outputs), higher is better."""
    weights: Array | None = None
    """(classes,) what a row of each class counts, 1 on average; all rows alike when it is None."""
    strength: float | None = None
    """The penalty, where it is known already; then the pooling is too, and is the model's own."""


def find(
    model: Model, train: Batched, validation: Batched, wanted: Wanted, kept: Features
) -> tuple[Head, Head, dict[str, float]]:
    """Solve for a head on every pooling.

    Args:
        kept: features of this very network from before; filled here where they are missing.

    Returns:
        The best head, the head to go on with, and the validation score by pooling.
    """
    examples: Examples = train.examples
    assert examples.targets is not None
    rows = np.arange(examples.rows)
    if examples.rows > MOST_ROWS:
        rows = np.sort(seeds.generator(wanted.seed, "probe rows").permutation(examples.rows)[:MOST_ROWS])
    pieces = np.flatnonzero(np.isin(examples.owner, rows))
    targets = examples.targets[examples.owner[pieces]]
    counts = None if wanted.weights is None else wanted.weights[targets]
    layer = heads.last_layer(model)
    bias, width = layer.bias is not None, heads.outputs_of(model)
    every = np.arange(len(validation.examples))
    strengths = STRENGTHS if wanted.strength is None else (wanted.strength,)
    # The probe is the backbone as it was loaded; what training starts from is solved for on what it will receive.
    if not kept.by_split:
        with prompts.bare(model):
            others = () if model.pooling != OWN or wanted.strength is not None else None  # it was chosen already
            kept.by_split["train"] = _features(model, train, pieces, wanted.precision, others)
            kept.by_split["validation"] = _features(model, validation, every, wanted.precision, others)
    features = found, _ = kept.by_split["train"], kept.by_split["validation"]
    solutions: dict[tuple[str, tuple[float, ...]], Solution] = kept.solved

    def solved(name: str, tried: tuple[float, ...]) -> Solution:
        if (name, tried) in solutions:
            return solutions[name, tried]
        with_bias = bias or name != OWN
        own, others = (one[name] for one in features)
        solutions[name, tried] = solve(
            own, targets, others, wanted.score, width, bias=with_bias, strengths=tried, weights=counts
        )
        return solutions[name, tried]

    tried = {name: solved(name, (COMPARE_STRENGTH,)).score for name in found}
    # What the weights were taught with needs no proof by a few rows. On a tie the model's own pooling wins: it is what the
    # standard class does.
    chosen = model.taught if model.taught in tried else max(tried, key=lambda name: (tried[name], name == OWN))
    best = solved(chosen, strengths)
    tried[chosen] = best.score
    if prompts.of(model) is not None:
        found = _features(model, train, pieces, wanted.precision, others=())
        features, solutions = (found, _features(model, validation, every, wanted.precision, others=())), {}
        start = solved(OWN, (START_STRENGTH,) if wanted.gentle else strengths)
        return _head(chosen, best), _head(OWN, start), tried
    goes_on = OWN if wanted.standard else chosen
    start = solved(goes_on, (START_STRENGTH,) if wanted.gentle else strengths)
    return _head(chosen, best), _head(goes_on, start), tried


def _head(pooling: str, found: Solution) -> Head:
    return Head(pooling, found.weight, found.bias, found.strength)


def with_head(model: Model, head: Head) -> Model:
    """`model`, its backbone as it is, with a linear head: in its own class if that pools so, a PooledClassifier otherwise."""
    layer = heads.last_layer(model)
    if head.pooling == OWN:
        heads.install(layer, head.weight, head.bias)
        return model
    device = device_of(model.module)
    backbone = model.module.get_submodule(model.backbone)
    module = PooledClassifier(backbone, head.pooling, *head.weight.shape)
    if isinstance(layer, heads.ExactLinear):
        module.head.scale, module.head.offset = layer.scale, layer.offset
    heads.install(module.head, head.weight, head.bias)
    module.config = model.module.config
    blocks = tuple(f"backbone{name.removeprefix(model.backbone)}" for name in model.blocks)
    stages = find_stages(module.to(device), "backbone", blocks, model.example)
    return replace(model, module=module, stages=stages, blocks=blocks, backbone="backbone", pooling=head.pooling)


def write(head: Head, path: Path) -> None:
    """Keep a head, so that it can be measured on the test split when the backbone has changed."""
    tensors = {"weight": torch.from_numpy(head.weight), "bias": torch.from_numpy(head.bias)}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={"pooling": head.pooling, "strength": json.dumps(head.strength)})


def read(path: Path) -> Head:
    """The head that `write` kept."""
    with safe_open(path, framework="pt") as handle:
        weight, bias = (handle.get_tensor(name).numpy() for name in ("weight", "bias"))
        noted = handle.metadata()
        return Head(noted["pooling"], weight, bias, json.loads(noted["strength"]))


def _features(
    model: Model, given: Batched, pieces: Indices, precision: str, others: tuple[str, ...] | None = None
) -> dict[str, Array]:
    """(pieces, width) by pooling, from one pass: what the last layer receives and, of text, the hidden states pooled.

    Args:
        others: poolings beside what the last layer receives; all that suit the network when it is None.
    """
    caught: dict[str, torch.Tensor] = {}

    def catch(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        caught[OWN] = arguments[0]

    def catch_hidden(_: Any, __: Any, output: Any) -> None:
        caught["hidden"] = output[0]

    decoder = heads.reads_last_token(model)
    if others is None:
        others = (MEAN,) if decoder else (MEAN, FIRST)

    def take(output: Any, batch: dict[str, torch.Tensor], _: Indices) -> dict[str, torch.Tensor]:
        own = caught[OWN]
        if model.modality != "text":
            return {OWN: own.float()}
        mask = batch["attention_mask"]
        # The decoders' classes put the last layer on every token and pick the last one's answer, the last one being
        # the last that is not the padding token, even where a tokenizer ends each text with that very token.
        config: Any = model.module.config
        read = mask * (batch["input_ids"] != config.pad_token_id)
        features = {OWN: pool(own, read, LAST) if own.ndim == 3 else own.float()}
        return features | {how: pool(caught["hidden"], mask, how) for how in others}

    handles = [
        heads.last_layer(model).register_forward_pre_hook(catch),
        model.module.get_submodule(model.backbone).register_forward_hook(catch_hidden),
    ]
    try:
        return outputs(
            model.module,
            given.examples.lengths[pieces],
            lambda indices: given.collate(pieces[indices]),
            take,
            precision,
        )
    finally:
        for handle in handles:
            handle.remove()
