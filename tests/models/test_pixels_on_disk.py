"""Prepared pixels lie in a mapped file: what a disk that is too small does to them."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.errors import RunError
from tunesmith.models import pixels


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there blocks can be had before they are written")
def test_a_full_disk_is_one_sentence_and_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing to a mapped file of which the disk has no blocks is a signal that nobody can catch."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match="No space left on device"):
        pixels._filled(tmp_path / "some.pixels", (2, 3, 4, 4), np.dtype(np.uint8), lambda _: None)
    assert not (tmp_path / "some.pixels").exists()


def test_the_file_holds_what_was_filled_in(tmp_path: Path) -> None:
    def fill(values: Any) -> None:
        values[:] = np.arange(values.size).reshape(values.shape)

    for _ in range(2):  # the second time it is there already
        found = pixels._filled(tmp_path / "some.pixels", (2, 3), np.dtype(np.uint8), fill)
        assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (tmp_path / "some.pixels").stat().st_blocks > 0
