"""Memory: what the process keeps between steps, and the peak that the report shows."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def tune() -> None:
    """Set up the process's memory for training on a CPU; call it before the first forward pass.

    glibc hands freed blocks to the next allocation instead of the operating system: a training step frees and asks for
    the same large blocks again, and each time the kernel would clear every page. oneDNN keeps fewer compiled products:
    each length of a batch asks for its own, and what it keeps of them adds up. docs/benchmarks.md has the figures.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # musl
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def peak_bytes() -> int:
    """Most memory used so far: of the accelerator where there is one, of the process otherwise."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def restart_peak() -> None:
    """Let `peak_bytes` forget what was used before, where the system can: freed memory is handed back first."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    with suppress(OSError):  # some containers do not allow it; the peak is then that of all that came before
        Path("/proc/self/clear_refs").write_text("5")


def free_bytes() -> int:
    """Memory that is free for this process, within its container's limit where there is one; 0 where nobody says."""
    listing, limit, used = (
        Path("/proc/meminfo"),
        *(Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current")),
    )
    if not listing.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in listing.read_text().splitlines())
    free = 1024 * int(lines["MemAvailable"].split()[0])
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, max(0, int(limit.read_text()) - int(used.read_text())))
    return free
