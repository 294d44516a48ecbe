"""Every source of chance, drawn from (seed, purpose, …): never from global state.

Two purposes never share a stream, and a stream does not depend on what was drawn before it,
so that a resumed run draws what the run that was never killed drew.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, purpose: str, *parts: int) -> int:
    """A 63-bit seed that depends on every argument; `parts` are the epoch, the row, the step, …"""
    text = "\x1f".join([str(seed), purpose, *map(str, parts)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *parts: int) -> np.random.Generator:
    """NumPy's generator for one purpose (see `derive`); torch's generators are seeded from `derive`."""
    return np.random.default_rng(derive(seed, purpose, *parts))
