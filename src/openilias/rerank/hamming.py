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
    distances = np.empty((len(offsets) - 1, len(queries)), np.int32)
    places = np.empty_like(distances)
    _nearest(queries, database, offsets, distances, places)
    return distances, places


def least(queries: Words, database: Words, offsets: npt.NDArray[np.int64]) -> Counts:
    """Return the distances of :func:`nearest` alone, which is faster."""
    distances = np.empty((len(offsets) - 1, len(queries)), np.int32)
    _least(queries, database, offsets, distances)
    return distances


@intrinsic
def _popcount(context: Any, word: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), code


@njit(cache=True, nogil=True)
def _columns(database: Any, start: Any, end: Any) -> Any:
    """Copy the words of an image side by side: what is side by side is counted several at a time."""
    columns = np.empty((database.shape[1], end - start), np.uint64)
    for row in range(start, end):
        for word in range(database.shape[1]):
            columns[word, row - start] = database[row, word]
    return columns


@njit(cache=True, nogil=True)
def _count(query: Any, columns: Any, out: Any) -> None:
    """Write the distances of one query descriptor to those of an image."""
    count = columns.shape[1]
    for word in range(0, columns.shape[0] - 1, 2):
        a, b, first, second = query[word], query[word + 1], columns[word], columns[word + 1]
        if word == 0:
            for j in range(count):
                out[j] = np.int64(_popcount(a ^ first[j]) + _popcount(b ^ second[j]))
        else:
            for j in range(count):
                out[j] += np.int64(_popcount(a ^ first[j]) + _popcount(b ^ second[j]))
    if columns.shape[0] % 2:
        word = columns.shape[0] - 1
        a, first = query[word], columns[word]
        for j in range(count):
            out[j] = np.int64(_popcount(a ^ first[j])) + (out[j] if word else 0)


@njit(cache=True, nogil=True, parallel=True)
def _least(queries: Any, database: Any, offsets: Any, distances: Any) -> None:
    for image in prange(len(offsets) - 1):
        columns = _columns(database, offsets[image], offsets[image + 1])
        row = np.empty(columns.shape[1], np.int64)
        for q in range(len(queries)):
            _count(queries[q], columns, row)
            best = np.int64(FARTHEST)
            for j in range(len(row)):
                best = min(best, row[j])
            distances[image, q] = best


@njit(cache=True, nogil=True, parallel=True)
def _nearest(queries: Any, database: Any, offsets: Any, distances: Any, places: Any) -> None:
    for image in prange(len(offsets) - 1):
        columns = _columns(database, offsets[image], offsets[image + 1])
        row = np.empty(columns.shape[1], np.int64)
        for q in range(len(queries)):
            _count(queries[q], columns, row)
            best = np.int64(FARTHEST)
            for j in range(len(row)):
                best = min(best, row[j])
            place = 0
            while place < len(row) and row[place] != best:
                place += 1
            distances[image, q] = best
            places[image, q] = place if place < len(row) else 0
