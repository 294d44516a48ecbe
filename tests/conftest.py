"""Fixtures that many tests share; what they are made of lies in tiny.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import write_model, write_rows


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
