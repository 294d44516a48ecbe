"""What one backbone can do on a reference: through a head, by its nearest neighbours, and stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tunesmith import seeds
from tunesmith.contracts import Array, Features, Head, Model
from tunesmith.data.targets import voted
from tunesmith.evaluate.references import Data
from tunesmith.metrics.neighbours import votes
from tunesmith.models import probes
from tunesmith.models.activations import depths, features
from tunesmith.models.backbones import borrowed, keep_their_heads, weights_of
from tunesmith.models.forward import logits
from tunesmith.models.stages import FINAL
from tunesmith.plans import BatchShape, Phase, Plan, Row

COMPARED_ROWS = 300
"""Rows of the test split on which stages are compared."""
NEIGHBOURS = 5


@dataclass(frozen=True)
class Measured:
    """What one backbone says of the reference test rows."""

    logits: Array
    """(rows, outputs) through the own head or the refitted probe."""
    validated: float
    """The primary metric on the reference's validation rows."""
    neighbours: Array | None
    """(rows, outputs) of the nearest-neighbour classifier; None where the checkpoint's own head is used."""
    stages: Mapping[str, Array]
    """Stage to (compared rows, width)."""


def measured(data: Data, model: Model, seed: int, precision: str) -> tuple[Measured, Head | None]:
    """What the backbone of `model` says, and the probe that was fitted for it."""
    with _behind(data, model):
        near = _neighbours(data, precision) if data.probing is not None and voted(data.rows["train"]) else None
        stages, probe = _stages(data, seed), _probe(data, seed, precision)
        examples, validation = data.examples["validation"], _logits(data, probe, "validation", precision)
        test = data.task.levelled(_logits(data, probe, "test", precision), lambda: (examples, validation))
        score = data.task.score(examples, validation)[data.task.primary_metric]
        return Measured(test, score, near, stages), probe


def _probe(data: Data, seed: int, precision: str) -> Head | None:
    """A head for the backbone as it is now; None where the checkpoint's own is used."""
    if data.probing is None:
        return None
    plan = _probing(data.model, precision)
    train, validation = data.batched("train"), data.batched("validation")
    return data.probing.solve_head(data.model, train, validation, plan, plan.phases[0], seed, Features()).probe


def _logits(data: Data, probe: Head | None, split: str, precision: str) -> Array:
    """(rows, outputs) through `probe`, or through the checkpoint's own head."""
    model = data.model if probe is None else probes.with_head(data.model, probe)
    return logits(data.task, model, data.examples[split], precision)


def validated(data: Data, model: Model, seed: int, precision: str) -> float:
    """The primary metric alone, on the reference's validation rows: for choosing between models."""
    with _behind(data, model):
        found = _logits(data, _probe(data, seed, precision), "validation", precision)
        return data.task.score(data.examples["validation"], found)[data.task.primary_metric]


def _behind(data: Data, model: Model) -> AbstractContextManager[None]:
    """While it lasts, the backbone of `model` stands behind the reference's head; of two language models, `model` is there
    whole, as its own head may have trained too."""
    whole = keep_their_heads(data.model, model)
    return borrowed(data.model, weights_of(model, whole=whole), whole=whole)


def _probing(model: Model, precision: str) -> Plan:
    """The plan of a probe, which is all that solving for a head needs to know."""
    rows = tuple(Row(stage.name, None) for stage in model.stages)
    phase = Phase("head", "solve", rows, gentle=False)
    return Plan("probe", (phase,), "bf16" if precision == "bf16" else "fp32", BatchShape(1, 1), standard_head=False)


def _neighbours(data: Data, precision: str) -> Array:
    """(test rows, outputs) as logits: what the nearest training rows say, by what the backbone gives."""
    found = {}
    for split in ("train", "test"):
        given = data.batched(split)
        passed = features(data.model, [FINAL], given.examples.lengths, given.collate, precision)
        found[split] = data.task.decode(given.examples, passed[FINAL])  # one vector a row where rows lie in pieces
    targets, scores = _targets(data.rows["train"].column("target"), data.classes)
    said = votes(found["train"], targets, found["test"], NEIGHBOURS)
    # Logits, as metrics take them: the logarithm of odds does for classes and for labels that stand side by side.
    shares = np.clip(said, 1e-6, 1 - 1e-6)
    return (said if scores else np.log(shares / (1 - shares))).astype(np.float32)


def _targets(column: pa.ChunkedArray, classes: int) -> tuple[Array, bool]:
    """(rows, outputs) that neighbours vote with, and whether they are scores."""
    if pa.types.is_floating(column.type):
        return np.array(column.to_numpy(), dtype=np.float64)[:, None], True
    found = np.zeros((len(column), classes))
    for row, cell in enumerate(column.to_pylist()):
        found[row, cell] = 1.0
    return found, False


def _stages(data: Data, seed: int) -> dict[str, Array]:
    """Pooled activations of some test rows, in fp32, so that rounding is no difference."""
    given = data.batched("test")
    # Drawn, as files are often sorted by class.
    chosen = seeds.generator(seed, "compared rows").permutation(len(given.examples))[:COMPARED_ROWS]
    lengths = given.examples.lengths[chosen]
    found = features(data.model, depths(data.model), lengths, lambda part: given.collate(chosen[part]), "fp32")
    *_, last = (name for name in found if name != FINAL)
    if FINAL in found and np.array_equal(
        found[last], found[FINAL]
    ):  # nothing stands between the last block and the end
        del found[FINAL]
    return found
