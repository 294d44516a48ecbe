"""The run folder: its paths, files that appear whole or not at all, and a lock against a second process.

Knows nothing of what the files mean.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import RunError

ROOM_LEFT = 2**30
"""Bytes of disk that what could be computed anew leaves free, where it is large."""


@dataclass(frozen=True)
class Run:
    """A run folder. The properties are the stable paths of DESIGN.md section 4."""

    folder: Path

    @property
    def settings(self) -> Path:
        return self.folder / "settings.yaml"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def audit(self) -> Path:
        return self.folder / "data" / "audit.json"

    @property
    def rejected(self) -> Path:
        return self.folder / "data" / "rejected.jsonl"

    @property
    def splits(self) -> Path:
        return self.folder / "data" / "splits.json"

    @property
    def adaptation(self) -> Run:
        """The run in which the network goes on with its pre-training first, where it does."""
        return Run(self.folder / "adapt")

    @property
    def adapting(self) -> Path:
        """What is known of it and of its texts."""
        return self.folder / "data" / "adapt.json"

    @property
    def texts(self) -> Path:
        """Its texts, where they are those of the run's own rows."""
        return self.folder / "data" / "texts.parquet"

    @property
    def begun(self) -> bool:
        """Whether there is anything that would be lost with the folder."""
        return self.plan.exists() or self.adaptation.plan.exists()

    @property
    def cache(self) -> Path:
        """Memory-mapped rows; removed when the run is finished."""
        return self.folder / "data" / "cache"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions" / "test.parquet"

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    @property
    def page(self) -> Path:
        return self.folder / "report.html"


def create(folder: Path) -> Run:
    """Make a new run folder.

    Raises:
        RunError: the folder holds something already, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(entry.name != "lock" for entry in folder.iterdir())):
        raise RunError(
            f"{folder} exists and is not empty.",
            f"Choose another folder with --run, or go on with what is there: tunesmith train --resume {folder}",
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return Run(folder)


def open_run(folder: Path) -> Run:
    """An existing run folder.

    Raises:
        RunError: it is none.
    """
    run = Run(folder)
    if not run.settings.is_file():
        raise RunError(
            f"{folder} is not a run folder: it has no settings.yaml.", "Give the folder a run was written to."
        )
    return run


def path_of(name: str) -> Path:
    """The path `name`, in which a leading ~/ is the user's own folder; a file may itself be called ~thumb.jpg."""
    return Path(name).expanduser() if name.startswith("~/") else Path(name)


def free_folder(parent: Path, stem: str) -> Path:
    """`parent/stem`, or `parent/stem-2`, `-3`, … when that one is taken."""
    number = 1
    while True:
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        if not folder.exists():
            return folder
        number += 1


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for work that leaves nothing."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        yield Path(folder)


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold the run folder; the operating system lets go when the process ends, however it ends.

    Raises:
        RunError: another process holds it.
    """
    with writing(run.folder):
        handle = open(run.folder / "lock", "a+")  # noqa: SIM115
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"Another process is working in {run.folder}.",
                "Wait for it to end, or choose another folder with --run.",
            ) from None
        yield
    finally:
        handle.close()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one clear sentence."""
    try:
        yield
    except OSError as error:
        free = _free_bytes(path)
        room = f" ({free / 1e6:.0f} MB are free there)" if free is not None else ""
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}{room}.",
            "Nothing that was saved before is lost; make room or choose another folder with --run.",
        ) from error


def reserve(path: Path, size: int) -> None:
    """Make `path` a file of so many bytes, which the disk has from then on: a disk that is full only when a mapped file is
    written to ends the process without a word.

    Raises:
        OSError: the disk is too small, or cannot be written to.
    """
    with open(path, "wb") as handle:
        if sys.platform.startswith("linux"):
            os.posix_fallocate(handle.fileno(), 0, size)
        else:
            handle.truncate(size)


def has_room(path: Path, size: int) -> bool:
    """Whether the disk of `path` has so many bytes, and beside them as many again, or ROOM_LEFT."""
    free = _free_bytes(path)
    return free is None or size <= free - min(ROOM_LEFT, size)


def _free_bytes(path: Path) -> int | None:
    for place in (path, *path.parents):
        if place.exists():
            return shutil.disk_usage(place).free
    return None


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` so that a reader sees the old file or the new one, never a part (temporary name, flush, rename)."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """JSON that every reader accepts: a NaN or an infinity is an error here, not a surprise there."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, values: list[dict[str, Any]]) -> None:
    """One JSON value a line; no NaN either."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values))


def read_json(path: Path) -> Any:
    """The value in `path`.

    Raises:
        RunError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"There is no {path}.", "The run did not come that far, or the file was moved.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}.") from None
