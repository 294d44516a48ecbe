"""The activation cache: what frozen stages put out is computed once and kept, so that later epochs pay only for what trains.

DESIGN's section 6. Rows are kept without padding, in the precision of the plan; in memory up to a limit, in a mapped file
beyond it. A key over weights, cut and rows stands for what was kept, so that nothing stale is ever used; and a cache that
reads no faster than the stages compute is given up again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tunesmith.contracts import Batch, Batched, Collate, Examples, Features, Indices, Model
from tunesmith.data import batches
from tunesmith.models import heads
from tunesmith.models.checksum import checksum
from tunesmith.models.forward import INFERENCE_TOKENS, device_of, evaluated, precision, to
from tunesmith.models.layout import LAYOUT
from tunesmith.models.replay import Way, captured, entered, find_way
from tunesmith.models.stages import FINAL
from tunesmith.run import has_room, reserve, writing
from tunesmith.train import memory
from tunesmith.train.events import CacheFilled

SHARE_OF_MEMORY = 0.25
"""Of what is free when a cache is filled; more goes into a file."""
TRIED_BATCHES = 20
SAME = {"fp32": 1e-4, "bf16": 3e-2}
"""How far logits may differ with the cache, as a share of their size: fp32 differs by the order of sums; bf16 keeps eight
bits of what passes from block to block, as every matrix product of that precision does."""


@dataclass(frozen=True)
class Activations:
    """What enters one block, for every example."""

    values: torch.Tensor
    """(positions of all examples, …) where examples differ in length, otherwise (examples, …)."""
    starts: Indices | None
    """(examples + 1,) in positions; None where all have one shape."""
    dtype: torch.dtype
    """Of what the block received; `values` may be kept in fewer bits."""

    @property
    def bytes(self) -> int:
        return self.values.nbytes

    def batch(self, indices: Indices) -> torch.Tensor:
        """(len(indices), longest, …), padded with zeros, as the block received it."""
        if self.starts is None:
            found = self.values[torch.from_numpy(indices)].to(self.dtype)
            return found.contiguous(memory_format=LAYOUT) if found.ndim == 4 else found
        starts, lengths = self.starts[indices], (self.starts[1:] - self.starts[:-1])[indices]
        inside = np.arange(lengths.max()) < lengths[:, None]
        source = (starts[:, None] + np.arange(lengths.max()))[inside]
        found = torch.zeros((*inside.shape, *self.values.shape[1:]), dtype=self.dtype)
        found[torch.from_numpy(inside)] = self.values[torch.from_numpy(source)].to(self.dtype)
        return found


@dataclass
class Store:
    """Activations by key, kept over the phases of a plan and the methods of a frontier."""

    folder: Path
    kept: dict[str, Activations] = field(default_factory=dict)
    hits: int = 0
    """Examples that were read instead of computed."""
    stage: str | None = None
    """The stage that was entered last."""
    features: dict[str, Features] = field(default_factory=dict)
    """What heads are solved for on, by checksum, for the next plan that starts from the same network."""
    promised: int = 0
    """Bytes of memory that were set aside and are not all written yet, so that the system still calls them free."""

    @property
    def bytes(self) -> int:
        return sum(found.bytes for found in self.kept.values())

    def room(self, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> torch.Tensor | None:
        """Memory for values, or a mapped file where they are many, or None where the disk is too small for that."""
        count = int(np.prod(shape))
        size = count * dtype.itemsize
        if size <= SHARE_OF_MEMORY * memory.free_bytes() - self.promised:
            self.promised += size
            return torch.empty(shape, dtype=dtype)
        file = self.folder / name
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            if not has_room(file, size):
                return None
            reserve(file, size)
            return torch.from_file(str(file), shared=True, size=count, dtype=dtype).view(shape)

    def decided(self, key: str) -> bool | None:
        """Whether keeping `key` pays, as decided before, also by the process that this one resumes; None where it was not."""
        note = self.folder / f"{key}.json"
        found: bool | None = json.loads(note.read_text()) if note.exists() else None
        return found

    def decide(self, key: str, pays: bool) -> None:
        """Note whether keeping `key` pays."""
        note = self.folder / f"{key}.json"
        with writing(note):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps(pays))


def blocks_before(stage: str, way: Way) -> int:
    """How many blocks of `way` lie before `stage`."""
    all_ = len(way.blocks)
    return min(int(stage.removeprefix("block ")), all_) if stage.startswith("block ") else all_


class Source(NamedTuple):
    """A set of examples by name; `collate` makes what the whole network takes."""

    name: str
    examples: Examples
    collate: Collate
    rows_each: int = 1
    """Rows of a batch that one example takes."""
    expect: Callable[[Sequence[Indices]], None] | None = None
    """See Batched."""

    def rows(self, indices: Indices) -> Indices:
        """The rows of the examples `indices`, of all rows, in the order in which batches have them."""
        return (indices[:, None] * self.rows_each + np.arange(self.rows_each)).ravel()

    @property
    def lengths(self) -> Indices:
        """(rows,) tokens of each row of a batch, as the first blocks see them."""
        return np.repeat(self.examples.read_lengths // self.rows_each, self.rows_each)


@dataclass(frozen=True)
class Served:
    """How batches are made while a phase lasts."""

    by_source: Mapping[str, Batched]
    filled: CacheFilled | None = None
    """Set where activations were computed for it now."""


@contextmanager
def served(
    model: Model,
    stages: Sequence[str | None],
    sources: Sequence[Source],
    store: Store,
    precision_name: str,
    sample: Batch,
) -> Iterator[Served]:
    """Batches for a phase: with activations at hand for the network to be entered at `stages[0]`, where that pays.

    Args:
        stages: of this phase and of those to come, an entry an epoch: the first stage that trains, None for the very first.
        sample: a batch of three rows or more, to try the skipping on.
    """
    plain = Served({source.name: Batched(source.examples, source.collate, source.expect) for source in sources})
    stage = stages[0]
    if stage is None or sum(one is not None for one in stages) < 2:
        yield plain  # what is read once is not worth keeping
        return
    way = find_way(model, to(sample, device_of(model.module)))
    count = blocks_before(stage, way) if way is not None else 0
    if way is None or not count or not can_enter(model, way, count, sample, precision_name):
        yield plain
        return
    later = {blocks_before(one, way) for one in stages if one is not None} - {0, count}
    started, before = time.perf_counter(), len(store.kept)
    kept = {
        source.name: _held(model, way, [count, *sorted(later)], source, store, precision_name) for source in sources
    }
    if any(found is None for found in kept.values()):
        yield plain
        return
    new = len(store.kept) > before
    filled = CacheFilled(stage, store.bytes, time.perf_counter() - started) if new else None
    device = device_of(model.module)
    with entered(model, way, count) as hand:

        def handing(source: Source, found: Activations) -> Collate:
            def collate(indices: Indices) -> Batch:
                hand(found.batch(source.rows(indices)).to(device, non_blocking=True))
                store.hits += len(indices)
                # Images are seen by what is skipped alone; of texts the mask is still read.
                return _blank(model, len(indices)) if model.modality == "image" else source.collate(indices)

            return collate

        handed = {
            source.name: Batched(source.examples, handing(source, found))
            for source in sources
            if (found := kept[source.name])
        }
        store.stage = stage
        yield Served(handed, filled)


def can_enter(model: Model, way: Way, count: int, sample: Batch, precision_name: str) -> bool:
    """Whether the network gives the same logits on `sample` when it is entered after `count` blocks, with no images there."""
    device = device_of(model.module)
    batch = to(sample, device)
    rows = np.arange(len(next(iter(sample.values()))))
    lengths = sample["attention_mask"].sum(dim=1).cpu().numpy() if "attention_mask" in sample else None
    with torch.no_grad(), precision(device, precision_name):
        with captured(model, way, [count]) as passing:
            found = passing(batch)[count].cpu()
        kept = _shaped(
            found, sample, rows, lengths, precision_name, lambda shape, dtype: torch.empty(shape, dtype=dtype)
        )
        if kept is None:
            return False
        _put(kept.values, kept.starts, rows, found)
        with evaluated(model.module):
            whole = model.module(**batch).logits.float()
            try:
                with entered(model, way, count) as hand:
                    hand(kept.batch(rows).to(device))
                    blank = to(_blank(model, len(rows)), device) if model.modality == "image" else batch
                    midway = model.module(**blank).logits.float()
            except (
                RuntimeError,
                TypeError,
                ValueError,
                AttributeError,
                IndexError,
            ):  # it wants what skipped blocks give beside
                return False
    return heads.agree(model, midway, whole, SAME[precision_name])


def _blank(model: Model, rows: int) -> Batch:
    """Images of nothing, in no memory of their own."""
    pixels = model.example["pixel_values"]
    return {"pixel_values": torch.zeros((), dtype=pixels.dtype).expand(rows, *pixels.shape[1:])}


def _shaped(
    found: torch.Tensor,
    batch: Batch,
    examples: Indices,
    lengths: Indices | None,
    precision_name: str,
    room: Callable[[tuple[int, ...], torch.dtype], torch.Tensor | None],
) -> Activations | None:
    """Room for the activations of all `examples`, of which `found` are those of `batch`."""
    ragged = lengths is not None and "attention_mask" in batch and found.shape[1] == batch["attention_mask"].shape[1]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64) if ragged and lengths is not None else None
    rows = (int(starts[-1]), *found.shape[2:]) if starts is not None else (len(examples), *found.shape[1:])
    values = room(rows, torch.bfloat16 if precision_name == "bf16" else found.dtype)
    return None if values is None else Activations(values, starts, found.dtype)


def _held(
    model: Model, way: Way, counts: Sequence[int], source: Source, store: Store, precision_name: str
) -> Activations | None:
    """The activations of `source` after counts[0] blocks, from the store or computed now, with those of the other counts.

    None where there is no room, or where reading them takes as long as computing.
    """
    keys = {count: _key(model, way, count, source, precision_name) for count in counts}
    missing = [count for count in counts if keys[count] not in store.kept]
    decided = store.decided(keys[counts[0]])
    if decided is False:
        return None
    if counts[0] in missing:
        started = time.perf_counter()
        found = _fill(model, way, source, {count: keys[count] for count in missing}, store, precision_name)
        seconds = time.perf_counter() - started
        first = found.get(counts[0])
        if first is None:
            return None
        if decided is None and not _pays(first, source, seconds):
            store.decide(keys[counts[0]], False)
            return None
        for count, one in found.items():
            store.decide(keys[count], True)  # a process that goes on with this run decides the same
            store.kept[keys[count]] = one
    return store.kept[keys[counts[0]]]


def _pays(found: Activations, source: Source, seconds: float) -> bool:
    """Whether reading takes less time than the computing did."""
    parts = batches.in_length_order(source.examples.lengths, INFERENCE_TOKENS)
    tried = parts[:: max(1, len(parts) // TRIED_BATCHES)]
    started = time.perf_counter()
    for indices in tried:
        found.batch(source.rows(indices))
    read = (time.perf_counter() - started) / sum(map(len, tried))
    return read < seconds / len(source.examples)


def _fill(
    model: Model, way: Way, source: Source, keys: Mapping[int, str], store: Store, precision_name: str
) -> dict[int, Activations]:
    """One pass over `source`; activations by count, those left out for which there is no room."""
    device, lengths = device_of(model.module), source.lengths
    everything = np.arange(len(lengths))
    kept: dict[int, Activations | None] = {}
    with torch.no_grad(), precision(device, precision_name), captured(model, way, list(keys)) as passing:
        for indices in batches.in_length_order(source.examples.lengths, INFERENCE_TOKENS):
            batch = source.collate(indices)
            for count, found in passing(to(batch, device)).items():
                if count not in kept:
                    room = partial(store.room, name=keys[count])
                    kept[count] = _shaped(found, batch, everything, lengths, precision_name, room)
                if (one := kept[count]) is not None:
                    _put(one.values, one.starts, source.rows(indices), found.cpu())
    store.promised = 0  # all of it is written, and the system knows
    return {count: one for count, one in kept.items() if one is not None}


def _put(values: torch.Tensor, starts: Indices | None, indices: Indices, found: torch.Tensor) -> None:
    if starts is None:
        values[torch.from_numpy(indices)] = found.to(values.dtype)
        return
    lengths = (starts[1:] - starts[:-1])[indices]
    inside = np.arange(found.shape[1]) < lengths[:, None]
    source = (starts[indices][:, None] + np.arange(found.shape[1]))[inside]
    values[torch.from_numpy(source)] = found[torch.from_numpy(inside)].to(values.dtype)


def _key(model: Model, way: Way, count: int, source: Source, precision_name: str) -> str:
    """A checksum over all that the activations depend on: the weights on the way, the cut, the rows, the precision."""
    final = next((stage.parameters for stage in model.stages if stage.name == FINAL), ())
    last = {name.rpartition(".")[0] for name in final}
    writing_half = [model.decoder] if model.decoder else []
    behind = [f"{name}." for name in (*way.blocks[count:], *last, *model.head_inside, *writing_half)]
    weights = checksum(model, lambda name: not any(name.startswith(block) for block in behind))
    text = f"{weights}/{source.examples.key}/{count}/{precision_name}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
