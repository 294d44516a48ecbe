"""Following a training: every event to the listener and to log.jsonl, and a clean end when someone asks for one."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from tunesmith.errors import Interrupted
from tunesmith.run import writing
from tunesmith.train import memory, processes
from tunesmith.train.events import Event, HeadSolved, StepDone, Trained, Trying


def follow(events: Iterator[Event], log: Path, every: int, run: Path, listen: Callable[[Any], None]) -> Trained:
    """Take all events; the last one is returned.

    Args:
        every: steps between two lines of the log.
        run: named in the message when training is interrupted.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the state after the last whole step is saved.
    """
    rows, since, begun, label = 0.0, time.perf_counter(), False, ""
    main = processes.state().is_main_process
    with writing(log):
        handle = open(log, "a", encoding="utf-8") if main else None  # noqa: SIM115
    with closing(handle) if handle else nullcontext(), _asked_to_stop() as asked:
        for event in events:
            if isinstance(event, Trying):
                label = event.label
            if isinstance(event, HeadSolved):
                since = time.perf_counter()
            if isinstance(event, StepDone):
                begun = True
                rows += event.rows
                if event.step % every == 0 or event.step == event.steps:
                    speed = rows / max(1e-9, time.perf_counter() - since)
                    if handle:
                        with writing(log):
                            _write(handle, event, speed, label)
                    rows, since = 0.0, time.perf_counter()
            if main:
                listen(event)
            if isinstance(event, Trained):
                return event
            if asked:
                events.close()  # type: ignore[attr-defined]
                left = "the state is saved" if begun else "no step was taken yet"
                raise Interrupted(
                    f"Stopped by {signal.Signals(asked[0]).name}; {left}.",
                    f"Go on with: tunesmith train --resume {run}",
                )
    raise AssertionError("training ends with Trained")


def _write(handle: TextIO, event: StepDone, speed: float, label: str) -> None:
    line: dict[str, Any] = {"plan": label} if label else {}
    line |= {
        "step": event.step,
        "epoch": event.epoch,
        "loss": event.loss,
        **event.beside,
        "learning_rates": dict(event.learning_rates),
        "examples_per_second": round(speed, 2),
        "memory_bytes": memory.peak_bytes(),
    }
    handle.write(json.dumps(line) + "\n")
    handle.flush()


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that a first SIGINT or SIGTERM fills; a second one ends the process at once."""
    asked: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)
        signal.signal(number, before[int(number)])

    try:
        for wanted in (signal.SIGINT, signal.SIGTERM):
            before[int(wanted)] = signal.signal(wanted, note)
    except ValueError:  # not the main thread (a notebook's worker, a server): whoever runs us handles signals
        before.clear()
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
