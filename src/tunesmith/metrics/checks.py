"""What every metric asks of its arrays before it counts: numbers that are numbers, classes that exist, equal lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.errors import DataError

Array = npt.NDArray[Any]


def check_finite(values: Array, what: str, mend: str = "Train in fp32 or at a lower rate.") -> None:
    """Raise DataError when `values`, of any shape, hold NaN or infinity: every metric of them would be silently wrong."""
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise DataError(f"{bad:,} of {values.size:,} {what} are not finite numbers.", mend)


def check_truth(values: Array) -> None:
    """`check_finite` for what the user brought, (rows,) numbers."""
    check_finite(values, "targets", "Correct these rows, or leave them out.")


def check_rows(*arrays: Array) -> None:
    """Raise DataError unless all `arrays`, each (rows, …), have equally many rows, and at least one."""
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise DataError(f"Arrays about the same rows differ in length: {' and '.join(f'{n:,}' for n in lengths)} rows.")
    if not lengths[0]:
        raise DataError("There are no rows to measure.", "Give the split at least one row.")


def check_classes(indices: Array, classes: int, what: str) -> None:
    """Raise DataError unless `indices`, (rows,), are integers from 0 to `classes` - 1."""
    if not np.issubdtype(indices.dtype, np.integer):
        raise DataError(f"The {what} classes are {indices.dtype}, not integers.", "Give the index of each row's class.")
    if len(indices) and (indices.min() < 0 or indices.max() >= classes):
        wrong = indices[(indices < 0) | (indices >= classes)][0]
        raise DataError(f"The {what} class {wrong} is none of the {classes} classes, 0 to {classes - 1}.")
