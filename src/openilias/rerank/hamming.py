"""Hamming distances between packed local descriptors: the nearest of each image of a shortlist."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, prange, types
from numba.extending import intrinsic

from openilias.core.errors import OpenIliasError

WORD = 64
FARTHEST = np.iinfo(np.int32).max
"""Distance where an image has no descriptors."""

_SHIFT, _PLACE = 32, 2**32 - 1  # a distance and a place in one number: the least one is the first of the nearest

Words = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int32]


def words_of(packed: npt.NDArray[np.uint8]) -> Words:
    """Return packed descriptors (n, bits / 8) as (n, bits / 64) words of 64 bits.

    Raises:
        OpenIliasError: the bits are no multiple of 64.
    """
    if packed.ndim != 2 or packed.dtype != np.uint8 or packed.shape[1] % 8 or not packed.shape[1]:
        raise OpenIliasError(
            f"Packed descriptors have a multiple of {WORD} bits, not shape {packed.shape} of {packed.dtype}.",
            fix="Binarise to 64, 128, 192, ... bits.",
        )
    return np.ascontiguousarray(packed).view(np.uint64)


def nearest(queries: Words, database: Words, offsets: npt.NDArray[np.int64]) -> tuple[Counts, Counts]:
    """Return the nearest database descriptor of each query descriptor, in each image.

    Args:
        queries: (Q, W) of one query image.
        database: (N, W) of all images of a shortlist, one after the other.
        offsets: (M + 1,) where those of each image begin.

    Returns:
        distances (M, Q) in bits, :data:`FARTHEST` where an image has none, and places (M, Q) within the image; of
        equal ones the first.
    """
    keys = np.empty((len(offsets) - 1, len(queries)), np.int64)
    _nearest(np.ascontiguousarray(queries.T), database, offsets, keys)
    return (keys >> _SHIFT).astype(np.int32), (keys & _PLACE).astype(np.int32)


def least(queries: Words, database: Words, offsets: npt.NDArray[np.int64]) -> Counts:
    """Return the distances of :func:`nearest` alone, which is faster."""
    distances = np.empty((len(offsets) - 1, len(queries)), np.int32)
    _least(np.ascontiguousarray(queries.T), database, offsets, distances)
    return distances


@intrinsic
def _popcount(context: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), code


@njit(cache=True, nogil=True)
def _count(words: Any, columns: Any, out: Any) -> None:
    """Write the distances of one database descriptor to those of the query."""
    out[:] = 0
    for word in range(len(words)):
        here = words[word]
        for q in range(len(out)):
            out[q] += np.int32(_popcount(here ^ columns[word, q]))


# The descriptors of the query lie side by side: several are counted at a time. The usual 128 bits are counted against
# four descriptors of the image at once, so that what is the nearest so far is read and written less often.


@njit(cache=True, nogil=True, parallel=True)
def _least(columns: Any, database: Any, offsets: Any, distances: Any) -> None:
    for image in prange(len(offsets) - 1):
        best = distances[image]
        best[:] = FARTHEST
        first, end = offsets[image], offsets[image + 1]
        if len(columns) == 2:
            for r in range(first, end - 3, 4):
                a0, b0, a1, b1 = database[r, 0], database[r, 1], database[r + 1, 0], database[r + 1, 1]
                a2, b2, a3, b3 = database[r + 2, 0], database[r + 2, 1], database[r + 3, 0], database[r + 3, 1]
                for q in range(len(best)):
                    a, b = columns[0, q], columns[1, q]
                    d0 = np.int64(_popcount(a0 ^ a) + _popcount(b0 ^ b))
                    d1 = np.int64(_popcount(a1 ^ a) + _popcount(b1 ^ b))
                    d2 = np.int64(_popcount(a2 ^ a) + _popcount(b2 ^ b))
                    d3 = np.int64(_popcount(a3 ^ a) + _popcount(b3 ^ b))
                    best[q] = min(best[q], min(min(d0, d1), min(d2, d3)))
            first = end - (end - first) % 4
        row = np.empty(len(best), np.int32)
        for r in range(first, end):
            _count(database[r], columns, row)
            for q in range(len(best)):
                best[q] = min(best[q], row[q])


@njit(cache=True, nogil=True, parallel=True)
def _nearest(columns: Any, database: Any, offsets: Any, keys: Any) -> None:
    for image in prange(len(offsets) - 1):
        best = keys[image]
        best[:] = np.int64(FARTHEST) << _SHIFT
        start, end = offsets[image], offsets[image + 1]
        first = start
        if len(columns) == 2:
            for r in range(first, end - 3, 4):
                a0, b0, a1, b1 = database[r, 0], database[r, 1], database[r + 1, 0], database[r + 1, 1]
                a2, b2, a3, b3 = database[r + 2, 0], database[r + 2, 1], database[r + 3, 0], database[r + 3, 1]
                place = r - start
                for q in range(len(best)):
                    a, b = columns[0, q], columns[1, q]
                    d0 = (np.int64(_popcount(a0 ^ a) + _popcount(b0 ^ b)) << _SHIFT) + place
                    d1 = (np.int64(_popcount(a1 ^ a) + _popcount(b1 ^ b)) << _SHIFT) + (place + 1)
                    d2 = (np.int64(_popcount(a2 ^ a) + _popcount(b2 ^ b)) << _SHIFT) + (place + 2)
                    d3 = (np.int64(_popcount(a3 ^ a) + _popcount(b3 ^ b)) << _SHIFT) + (place + 3)
                    best[q] = min(best[q], min(min(d0, d1), min(d2, d3)))
            first = end - (end - first) % 4
        row = np.empty(len(best), np.int32)
        for r in range(first, end):
            _count(database[r], columns, row)
            for q in range(len(best)):
                best[q] = min(best[q], (np.int64(row[q]) << _SHIFT) + (r - start))
