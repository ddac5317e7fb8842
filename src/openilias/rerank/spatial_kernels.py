"""The compiled part of spatial verification: hypotheses, inliers, affine maps; a thread for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True)
def _fit(points: Any, found: Any, inside: Any, affine: Any) -> bool:
    """Fit x' = A x + t to the pairs that are inside by least squares; False if they do not determine it."""
    count = 0
    mean_x = mean_y = mean_u = mean_v = 0.0
    for i in range(len(points)):
        if inside[i]:
            count += 1
            mean_x += points[i, 0]
            mean_y += points[i, 1]
            mean_u += found[i, 0]
            mean_v += found[i, 1]
    if count < 3:
        return False
    mean_x, mean_y, mean_u, mean_v = mean_x / count, mean_y / count, mean_u / count, mean_v / count
    xx = xy = yy = xu = xv = yu = yv = 0.0
    for i in range(len(points)):
        if inside[i]:
            x, y = points[i, 0] - mean_x, points[i, 1] - mean_y
            u, v = found[i, 0] - mean_u, found[i, 1] - mean_v
            xx += x * x
            xy += x * y
            yy += y * y
            xu += x * u
            xv += x * v
            yu += y * u
            yv += y * v
    determinant = xx * yy - xy * xy
    if determinant <= 1e-9 * (xx + yy) ** 2:  # points of one line
        return False
    affine[0, 0] = (xu * yy - yu * xy) / determinant
    affine[0, 1] = (yu * xx - xu * xy) / determinant
    affine[1, 0] = (xv * yy - yv * xy) / determinant
    affine[1, 1] = (yv * xx - xv * xy) / determinant
    affine[0, 2] = mean_u - affine[0, 0] * mean_x - affine[0, 1] * mean_y
    affine[1, 2] = mean_v - affine[1, 0] * mean_x - affine[1, 1] * mean_y
    return True


@njit(cache=True, nogil=True)
def _possible(affine: Any, most: float) -> bool:
    """Whether a map does not mirror, and stretches no direction by more than ``most``, or less than 1 / ``most``."""
    a, b, c, d = affine[0, 0], affine[0, 1], affine[1, 0], affine[1, 1]
    determinant = a * d - b * c
    if determinant <= 0:
        return False
    total = a * a + b * b + c * c + d * d
    apart = np.sqrt(max(total * total - 4 * determinant * determinant, 0.0))
    largest, smallest = (total + apart) / 2, (total - apart) / 2  # squares of the singular values
    return bool(largest <= most * most and smallest * most * most >= 1)


@njit(cache=True, nogil=True)
def _mark(points: Any, found: Any, affine: Any, tolerance: float, inside: Any) -> int:
    """Mark the pairs that a map brings within the tolerance; return how many."""
    count = 0
    for i in range(len(points)):
        x, y = points[i, 0], points[i, 1]
        u = affine[0, 0] * x + affine[0, 1] * y + affine[0, 2] - found[i, 0]
        v = affine[1, 0] * x + affine[1, 1] * y + affine[1, 2] - found[i, 1]
        inside[i] = u * u + v * v <= tolerance * tolerance
        count += inside[i]
    return count


@njit(cache=True, nogil=True)
def verify_pairs(
    points: Any,
    found: Any,
    scales: Any,
    order: Any,
    tolerance: float,
    rounds: int,
    stretch: float,
    best: Any,
    kept: Any,
) -> int:
    """Return the largest number of pairs that one affine map explains.

    Args:
        points: (n, 2) float64 x and y in the query, in pixels.
        found: (n, 2) float64 of what they match.
        scales: (n,) float64: how much larger each is in the other image, 1 for translations.
        order: (m,) int64 pairs that hypotheses are made of.
        tolerance: in pixels of the other image.
        rounds: of local optimisation.
        stretch: the most that a direction is stretched.
        best: (2, 3) float64, written: the map.
        kept: (n,) bool, written: its pairs.
    """
    count = len(points)
    inside = np.empty(count, np.bool_)
    affine = np.zeros((2, 3))
    most = sampled = 0  # of all maps, and of the hypotheses themselves
    for place in range(len(order)):
        i = order[place]
        scale = scales[i]
        if scale > stretch or scale * stretch < 1:  # a map that is not taken is no hypothesis either
            continue
        affine[0, 0] = affine[1, 1] = scale
        affine[0, 1] = affine[1, 0] = 0.0
        affine[0, 2] = found[i, 0] - scale * points[i, 0]
        affine[1, 2] = found[i, 1] - scale * points[i, 1]
        now = _mark(points, found, affine, tolerance, inside)
        if now <= sampled:
            continue
        sampled = now
        if now > most:
            most = now
            best[:] = affine
            kept[:] = inside
        for step in range(rounds):
            # First those within more than the tolerance, then fewer: the fit is pulled in.
            _mark(points, found, affine, tolerance * (1.0 + (rounds - 1 - step) / rounds), inside)
            if not _fit(points, found, inside, affine) or not _possible(affine, stretch):
                break
            now = _mark(points, found, affine, tolerance, inside)
            if now > most:
                most = now
                best[:] = affine
                kept[:] = inside
    return most


@njit(cache=True, nogil=True, parallel=True)
def verify_images(
    points: Any,
    scales: Any,
    places: Any,
    near: Any,
    geometry: Any,
    sizes: Any,
    offsets: Any,
    limits: Any,
    orders: Any,
    counts: Any,
    maps: Any,
) -> None:
    """Verify every image of a shortlist.

    Args:
        points: (Q, 2) float64 x and y of the query descriptors, in pixels.
        scales: (Q,) float64 their scales; zeros take translations.
        places: (M, Q) int32 the nearest descriptor of each image.
        near: (M, Q) bool whether it is near enough.
        geometry: (N, 3) float64 y, x in [0, 1] and scale of all descriptors.
        sizes: (M, 2) float64 height and width.
        offsets: (M + 1,) int64.
        limits: (4,) float64: tolerance, rounds, stretch, hypotheses.
        orders: (Q,) int64: in which order pairs become hypotheses: places in [0, Q).
        counts: (M,) int32, written.
        maps: (M, 2, 3) float64, written.
    """
    for image in prange(len(counts)):
        total = 0
        for q in range(len(points)):
            total += near[image, q]
        mine = np.empty((total, 2))
        found = np.empty((total, 2))
        ratios = np.ones(total)
        number = np.full(len(points), -1, np.int64)
        n = 0
        for q in range(len(points)):
            if near[image, q]:
                row = offsets[image] + places[image, q]
                mine[n] = points[q]
                found[n, 0] = geometry[row, 1] * sizes[image, 1]
                found[n, 1] = geometry[row, 0] * sizes[image, 0]
                if scales[q] > 0 and geometry[row, 2] > 0:
                    ratios[n] = geometry[row, 2] / scales[q]
                number[q] = n
                n += 1
        order = np.empty(len(orders), np.int64)
        m = 0
        for place in range(len(orders)):
            if number[orders[place]] >= 0 and m < limits[3]:
                order[m] = number[orders[place]]
                m += 1
        kept = np.zeros(total, np.bool_)
        counts[image] = verify_pairs(
            mine, found, ratios, order[:m], limits[0], int(limits[1]), limits[2], maps[image], kept
        )
