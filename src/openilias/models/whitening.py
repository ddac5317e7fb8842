"""PCA whitening as pure algebra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Whitening:
    """``(x - mean) @ projection``: mean (D,), projection (D, d), float32."""

    mean: Floats
    projection: Floats

    def apply(self, vectors: Floats) -> Floats:
        """Project (N, D) to (N, d), not normalised."""
        return np.asarray((vectors - self.mean) @ self.projection, np.float32)


def fit_whitening(vectors: Floats, *, dims: int, power: float = 0.5) -> Whitening:
    """Fit PCA whitening (Jegou and Chum, ECCV 2012).

    Works on the smaller of the covariance (D, D) and the Gram matrix (N, N), in float64.

    Args:
        vectors: (N, D), N >= 2.
        dims: wanted d; at most min(dims, N - 1, D) are kept, and none whose variance is numerically zero.
        power: of the eigenvalues by which each axis is divided: 0.5 whitens, 0 only rotates.

    Returns:
        The whitening; the sign of each axis is such that its largest component is positive.
    """
    x = vectors.astype(np.float64)
    mean = x.mean(0)
    x -= mean
    n, width = x.shape
    if n < width:
        values, left = np.linalg.eigh(x @ x.T)
        order = values.argsort()[::-1]
        values, left = values[order], left[:, order]
        keep = _kept(values, min(dims, n - 1, width))
        axes = x.T @ (left[:, :keep] / np.sqrt(values[:keep]))
    else:
        values, axes = np.linalg.eigh(x.T @ x)
        order = values.argsort()[::-1]
        values, axes = values[order], axes[:, order]
        keep = _kept(values, min(dims, n - 1, width))
        axes = axes[:, :keep]
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(keep)])
    variance = values[:keep] / n
    return Whitening(mean.astype(np.float32), (axes / variance**power).astype(np.float32))


def _kept(values: npt.NDArray[np.float64], most: int) -> int:
    return int((values[:most] > values[0] * 1e-10).sum())
