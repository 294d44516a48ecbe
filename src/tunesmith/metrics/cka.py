"""How alike two representations of the same rows are: linear centred kernel alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.metrics.checks import check_finite, check_rows

Array = npt.NDArray[Any]


def linear_cka(first: Array, second: Array) -> float | None:
    """Kornblith et al. 2019, equation 4 with a linear kernel, on centred features: 1 is the same up to turning and scale.

    Args:
        first, second: (rows, …) features; their widths may differ.

    Returns:
        0 to 1; None where one of them is the same for all rows, so that nothing can be said. With fewer rows than
        features the value is somewhat too high.

    Raises:
        DataError: the rows are not as many, there are none, or a number is not finite.
    """
    check_rows(first, second)
    check_finite(first, "features")
    check_finite(second, "features")
    x, y = (found.astype(np.float64) - found.mean(axis=0, dtype=np.float64) for found in (first, second))
    own, other = (float(np.linalg.norm(one.T @ one)) for one in (x, y))
    if own == 0 or other == 0:
        return None
    return float(np.square(np.linalg.norm(y.T @ x)) / (own * other))
