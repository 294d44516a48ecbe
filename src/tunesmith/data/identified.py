"""Images of things that are told apart by name, as the network takes them. Knows no processor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith.data.pixels import Pixels

Indices = npt.NDArray[np.int64]
UNSEEN = -1


@dataclass(frozen=True)
class Identified(Pixels):
    """Images, perhaps with their identities."""

    identity: Indices | None
    """(images,) a number for each identity of these rows; None where nothing is known."""
    taught: Indices | None
    """(images,) its place among the identities that are taught, or UNSEEN."""


def identified(pixels: Pixels, names: Sequence[str] | None, taught: Sequence[str]) -> Identified:
    """`pixels` with their identities.

    Args:
        names: of each image; None where nothing is known.
        taught: the identities of the training rows.
    """
    base = (pixels.values, pixels.scale, pixels.shift, None)
    if names is None:
        return Identified(*base, pixels.key, None, None)
    place = {name: index for index, name in enumerate(taught)}
    identity = np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)
    found = np.array([place.get(name, UNSEEN) for name in names], dtype=np.int64)
    digest = hashlib.blake2b(pixels.key.encode() + "\0".join(names).encode(), digest_size=16)
    return Identified(*base, digest.hexdigest(), identity, found)
