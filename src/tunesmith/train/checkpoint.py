"""Checkpoints: whole or absent, with checksums, the newest sound one found again. Knows no task.

A checkpoint is written to one side, flushed, checked against its manifest, and renamed; the manifest is written last, so a
folder with the right name and a manifest that agrees is complete whatever happened to the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunesmith.run import writing
from tunesmith.train.events import EpochDone
from tunesmith.train.weights import Tensors

MANIFEST = "manifest.json"
PARTS = ("weights", "optimiser", "best", "averaged")
KEPT = 2
"""A damaged newest one must have an older one to fall back to."""


@dataclass
class Progress:
    """Where training stands. Everything else about the course of training is a pure function of it.

    Best weights are the best of all phases, and of those from before the first step where their head was solved for: that is
    epoch 0. Patience begins anew in each phase, and looks at epochs alone.
    """

    sign: int = 1
    """-1 where less of the metric is better."""
    phase: int = 0
    epoch: int = 0
    """Epochs done in this phase; `len(curve)` are done in all."""
    step_in_epoch: int = 0
    step: int = 0
    """Optimiser steps done in this phase."""
    steps_before: int = 0
    """Steps of the phases that are over."""
    rows_seen: float = 0.0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    best_metric: float | None = None
    best_loss: float | None = None
    best_epoch: int | None = None
    without_improvement: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    stopped_early: bool = False
    ended: str | None = None
    """Why nothing more is to come, where training was ended before its time."""
    averaged_steps: int = 0
    """Steps whose weights are in the equal average."""
    cache: dict[str, Any] | None = None
    """stage, bytes, hits of the activation cache; None where it was not used."""

    def add_step(self, loss_sum: float, loss_count: float, rows: float) -> None:
        self.step += 1
        self.step_in_epoch += 1
        self.rows_seen += rows
        self.loss_sum += loss_sum
        self.loss_count += loss_count

    def end_epoch(
        self, metric: float, loss: float, beside: Mapping[str, float], *, later: bool = False, settled: bool = False
    ) -> EpochDone:
        """Close the epoch with its validation figures (of equal metrics the lower loss is better) and those `beside` them.

        Args:
            later: the later epoch breaks a tie instead, where losses of two epochs do not compare.
            settled: nothing is chosen by these figures, and the last epoch counts as the best.
        """
        if settled:
            self.best_metric = self.best_loss = None
        best = self.consider(metric, loss, len(self.curve) + 1, later=later)
        before = [self._quality(entry["metric"], entry["validation_loss"]) for entry in self.curve]
        better = not before or self._quality(metric, loss) > max(before)
        self.without_improvement = 0 if better else self.without_improvement + 1
        self.epoch += 1
        done = EpochDone(len(self.curve) + 1, self.loss_sum / self.loss_count, loss, metric, best)
        self.curve.append(
            {"epoch": done.epoch, "train_loss": done.train_loss, "validation_loss": loss, "metric": metric, **beside}
        )
        self.step_in_epoch = 0
        self.loss_sum = self.loss_count = 0.0
        return done

    def consider(self, metric: float, loss: float, epoch: int, *, later: bool = False) -> bool:
        """Whether weights with these validation figures are the best so far; noted where they are."""
        if self.best_metric is not None and self.best_loss is not None:
            best = self._quality(self.best_metric, self.best_loss)
            equal = (later or self.best_epoch == 0) and metric == self.best_metric  # of equals, what has trained
            if not (equal or self._quality(metric, loss) > best):  # so that what is no number is never better
                return False
        self.best_metric, self.best_loss, self.best_epoch = metric, loss, epoch
        return True

    def _quality(self, metric: float, loss: float) -> tuple[float, float]:
        """What is better is more."""
        return self.sign * metric, -loss

    def end(self, why: str) -> None:
        """Nothing more is to come."""
        self.ended = self.ended or why

    def next_phase(self) -> None:
        self.steps_before += self.step
        self.phase += 1
        self.epoch = self.step = self.without_improvement = 0


@dataclass(frozen=True)
class Checkpoint:
    """All that a resumed run needs."""

    progress: Progress
    weights: Tensors
    optimiser: Tensors
    best: Tensors
    """The best weights so far; empty before the first validation. The same object as `weights` where those are best."""
    averaged: Tensors = field(default_factory=dict)
    """The moving average of the weights; empty where none is kept."""


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `checkpoint` under `folder` and drop the oldest; returns its own folder.

    Raises:
        RunError: the disk is full or read-only; earlier checkpoints stay.
    """
    progress = checkpoint.progress
    name = f"step-{progress.steps_before + progress.step:08d}"
    temporary = folder / f".{name}.tmp"
    with writing(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for part in PARTS:
                kept: Tensors = getattr(checkpoint, part)
                if (part == "best" and kept is checkpoint.weights) or (part == "averaged" and not kept):
                    continue
                tensors = {key: value.detach().cpu().contiguous() for key, value in kept.items()}
                save_file(tensors, temporary / f"{part}.safetensors")
            _write(temporary / "progress.json", json.dumps(asdict(progress)))
            sums = {path.name: _checksum(path) for path in sorted(temporary.iterdir())}
            _write(temporary / MANIFEST, json.dumps(sums))
            final = folder / name
            shutil.rmtree(final, ignore_errors=True)
            os.rename(temporary, final)
        except SafetensorError as error:
            raise OSError(None, str(error)) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for old in _candidates(folder)[KEPT:]:
        shutil.rmtree(old)
    return final


def newest(folder: Path) -> Checkpoint | None:
    """The newest sound checkpoint under `folder`; damaged ones are passed over. None when there is none."""
    for candidate in _candidates(folder):
        if _sound(candidate):
            progress = Progress(**json.loads((candidate / "progress.json").read_text()))
            weights, optimiser, best, averaged = (_part(candidate / f"{part}.safetensors") for part in PARTS)
            return Checkpoint(
                progress, weights or {}, optimiser or {}, (weights or {}) if best is None else best, averaged or {}
            )
    return None


def _part(path: Path) -> Tensors | None:
    return load_file(path) if path.exists() else None


def _candidates(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _sound(folder: Path) -> bool:
    try:
        sums = json.loads((folder / MANIFEST).read_text())
        return bool(sums) and all(_checksum(folder / name) == value for name, value in sums.items())
    except (OSError, json.JSONDecodeError):
        return False


def _checksum(path: Path) -> str:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
