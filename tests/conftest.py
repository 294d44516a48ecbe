"""Fixtures that many tests share; what they are made of lies in tiny.py."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from tiny import write_model, write_rows
from tunesmith.models import reopening


class Here:
    """What a run asks of a process that opens its saved model: the same code, in this process."""

    def __init__(self, command: list[str], **_: Any) -> None:
        _, _, self.code, *self.arguments = command
        self.stdin: Any = self
        self.given, self.returncode = "", 0

    def write(self, text: str) -> None:
        self.given += text

    def close(self) -> None:
        """Of the standard input."""

    def kill(self) -> None:
        """There is nobody to kill."""

    def communicate(self) -> tuple[str, str]:
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
            patch.setattr(sys, "argv", ["-c", *self.arguments])
            patch.setattr(sys, "stdin", io.StringIO(self.given))
            try:
                exec(self.code, {"__name__": "__main__"})
            except Exception:  # a process prints whatever its code raises, and ends with 1
                self.returncode = 1
                return "", traceback.format_exc()
        return said.getvalue(), ""


@pytest.fixture(autouse=True)
def _opened_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own takes seconds to import what opens a model; tests of just that are marked `reopens`."""
    if request.node.get_closest_marker("reopens") is None:

        class Quick:
            PIPE, Popen = reopening.subprocess.PIPE, Here

        monkeypatch.setattr(reopening, "subprocess", Quick)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two blocks."""
    return write_model(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """120 rows of two classes."""
    return write_rows(tmp_path / "rows.csv")


@pytest.fixture
def settings(rows: Path, tiny_model: Path) -> dict[str, object]:
    """Settings of a run that takes a second or two."""
    return {
        "model": str(tiny_model),
        "data": {"train": str(rows), "input": "text", "target": "label"},
        "method": "full",
        "train": {"epochs": 2, "batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"},
        "evaluate": {"resamples": 100},
    }
