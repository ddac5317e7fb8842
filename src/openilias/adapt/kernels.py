"""The compiled step of Adam on class vectors: one pass over a tile that is still in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

_LOOSE = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order, as a BLAS does it


@njit(cache=True, nogil=True, parallel=True, fastmath=_LOOSE)
def update_rows(weight: Any, first: Any, second: Any, gradient: Any, inverse: Any, numbers: Any) -> None:
    """Do one step of Adam on (n, d) class vectors whose gradient is given by their unit vectors.

    Args:
        weight: (n, d) float32 class vectors, of any length; changed.
        first: (n, d) float32, the running mean of the gradient; changed.
        second: (n, d) float32, that of its square; changed.
        gradient: (n, d) float32, by the unit vectors.
        inverse: (n,) float32, 1 / length of each vector; changed.
        numbers: (7,) float32: learning rate / first correction, 1 / sqrt(second correction), beta 1, beta 2, epsilon,
            weight decay, least length.
    """
    rate, root, beta1, beta2, eps, decay, least = numbers
    one = np.float32(1)
    rows, dims = weight.shape
    for row in prange(rows):
        w, m, v, g = weight[row], first[row], second[row], gradient[row]
        scale = inverse[row]
        along = np.float32(0)
        for i in range(dims):
            along += w[i] * g[i]
        along *= scale * scale
        total = np.float32(0)
        for i in range(dims):
            slope = scale * (g[i] - along * w[i]) + decay * w[i]
            m[i] += (one - beta1) * (slope - m[i])
            v[i] = beta2 * v[i] + (one - beta2) * slope * slope
            moved = w[i] - rate * m[i] / (np.sqrt(v[i]) * root + eps)
            w[i] = moved
            total += moved * moved
        inverse[row] = one / max(np.sqrt(total), least)
