"""Homographies of tentative correspondences by the RANSAC of PoseLib (Larsson and contributors)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
SAMPLE = 4
"""Pairs that determine a homography."""
_AT_LEAST = 100  # samples, however many inliers the first ones have


def homography(
    points: Floats,
    found: Floats,
    start: Floats | None,
    *,
    tolerance: float,
    stretch: float,
    samples: int,
    seed: int,
) -> tuple[Floats | None, npt.NDArray[np.bool_]]:
    """Return the homography that explains most pairs, and which pairs these are.

    Args:
        points: (n, 2) x and y in the query, in pixels.
        found: (n, 2) of what they match.
        start: (3, 3) the first hypothesis; samples of four pairs compete with it. It stands where there are fewer
            pairs, and where the best homography is not possible. None for none.
        tolerance: distance in pixels of the other image up to which a pair is an inlier.
        stretch: of :func:`is_possible`.
        samples: at most so many are drawn.
        seed: of their drawing.

    Returns:
        (3, 3) map, or None if there is none, and (n,) bool.
    """
    begun = np.zeros(len(points), np.bool_) if start is None else distances(points, found, start) <= tolerance
    if len(points) < SAMPLE:
        return start, begun
    from poselib import estimate_homography

    options = {
        "max_reproj_error": tolerance,
        "max_iterations": samples,
        "min_iterations": min(samples, _AT_LEAST),
        "seed": seed,
    }
    solved, told = estimate_homography(points, found, options, {}, start)
    if not told["num_inliers"]:  # then what is returned was never fitted
        return start, begun
    # PoseLib lists the inliers of the map before its last refinement: those of the final one are counted here.
    near = distances(points, found, solved) <= tolerance
    if near.sum() < SAMPLE or not is_possible(solved, points[near], stretch):
        return start, begun
    return solved / _depths(solved, points[near].mean(0, keepdims=True)), near


def distances(points: Floats, found: Floats, matrix: Floats) -> Floats:
    """Return (n,) distances in pixels between where a (3, 3) map brings points and where they were found.

    A point at the horizon is infinitely far.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mapped = (points @ matrix[:2, :2].T + matrix[:2, 2]) / _depths(matrix, points)[:, None]
        apart = np.linalg.norm(mapped - found, axis=1)
    return np.where(np.isfinite(apart), apart, np.inf)


def is_possible(matrix: Floats, points: Floats, stretch: float) -> bool:
    """Tell whether a map can be a view of the same thing, as far as some points show.

    No point lies beyond the horizon, the map does not mirror at any of them, and where their mean is it stretches
    no direction by more than ``stretch``, or less than 1 over this: its derivative there has such singular values.

    Args:
        matrix: (3, 3).
        points: (n, 2) x and y, in pixels; at least one.
        stretch: at least 1.
    """
    if not np.isfinite(matrix).all():
        return False
    depths = _depths(matrix, points)
    # The determinant of the derivative is that of the matrix over the third power of the depth.
    if not ((depths * np.sign(np.linalg.det(matrix))) > 0).all():
        return False
    middle = points.mean(0)
    depth = _depths(matrix, middle[None])[0]
    mapped = (matrix[:2, :2] @ middle + matrix[:2, 2]) / depth
    largest, smallest = np.linalg.svd((matrix[:2, :2] - np.outer(mapped, matrix[2, :2])) / depth)[1]
    return bool(largest <= stretch and smallest * stretch >= 1)


def _depths(matrix: Floats, points: Floats) -> Floats:
    """Return (n,) third coordinates of mapped points."""
    made: Floats = points @ matrix[2, :2] + matrix[2, 2]
    return made
