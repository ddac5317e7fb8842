"""Mean and covariance of descriptors, read once and in blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Of N descriptors.

    Attributes:
        count: N.
        mean: (D,) float64.
        covariance: (D, D) float64, divided by N.
    """

    count: int
    mean: Doubles
    covariance: Doubles


def moments(blocks: Iterable[npt.NDArray[np.floating]], dims: int) -> Moments:
    """Return the moments of (n, D) blocks, in float64: what does not vary must come out as nothing."""
    count, total, square = 0, np.zeros(dims), np.zeros((dims, dims))
    shift = np.zeros(dims)
    for block in blocks:
        x = block.astype(np.float64)
        if not count and len(x):
            shift = x.mean(0)  # near the mean, so that nothing cancels
        x -= shift
        count += len(x)
        total += x.sum(0)
        square += x.T @ x
    mean = total / max(count, 1)
    return Moments(count, mean + shift, square / max(count, 1) - np.outer(mean, mean))
