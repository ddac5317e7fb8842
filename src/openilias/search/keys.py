"""Compiled loops over keys: a score and a row as one integer, whose order is that of rankings."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit


class Found(NamedTuple):
    """Lists of what was found, all of one length.

    Attributes:
        query: int32.
        key: uint64, as :func:`key_of`.
        place: int32, the row within the tile.
    """

    query: Any
    key: Any
    place: Any


@njit(cache=True, nogil=True)
def key_of(value: Any, row: Any) -> Any:
    """Return a uint64 that grows with the score, and among equal scores with falling row."""
    bits = np.float32(value).view(np.uint32)
    bits = ~bits if bits >> np.uint32(31) else bits | np.uint32(0x80000000)
    return (np.uint64(bits) << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - np.uint64(row))


@njit(cache=True, nogil=True)
def score_of(key: Any) -> Any:
    """Return the score of :func:`key_of`."""
    bits = np.uint32(key >> np.uint64(32))
    bits = bits & np.uint32(0x7FFFFFFF) if bits >> np.uint32(31) else ~bits
    return np.uint32(bits).view(np.float32)


@njit(cache=True, nogil=True)
def scores_of(keys: Any) -> Any:
    """Return the scores (n,) float32 of keys (n,)."""
    scores = np.empty(len(keys), np.float32)
    for i in range(len(keys)):
        scores[i] = score_of(keys[i])
    return scores


@njit(cache=True, nogil=True)
def keep_largest(keys: Any, k: int) -> None:
    """Bring the k largest to the front of ``keys``, in any order, by quickselect.

    Args:
        keys: (n,) uint64, n >= k >= 1, reordered.
        k: how many.
    """
    low, high = 0, len(keys) - 1
    while low < high:
        middle = (low + high) // 2
        one, two, three = keys[low], keys[middle], keys[high]
        pivot = max(min(one, two), min(max(one, two), three))
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@njit(cache=True, nogil=True)
def settle(keys: Any, counts: Any, k: int, least: Any, q: int) -> None:
    """Keep the k best of one query, and raise the score that counts to that of the last of them."""
    if counts[q] >= k:
        keep_largest(keys[q, : counts[q]], k)
        counts[q] = k
        worst = keys[q, 0]
        for j in range(1, k):
            worst = min(worst, keys[q, j])
        least[q] = max(least[q], score_of(worst))


@njit(cache=True, nogil=True)
def settle_all(keys: Any, counts: Any, k: int, least: Any) -> None:
    """Do :func:`settle` for all queries."""
    for q in range(len(counts)):
        settle(keys, counts, k, least, q)


@njit(cache=True, nogil=True)
def merge(found: Found, first: int, length: int, keys: Any, counts: Any, k: int, most: int, least: Any) -> int:
    """Add what was found to the best so far.

    Args:
        found: the lists.
        first: the entry to begin with.
        length: how much of them is filled.
        keys: (Q, C) uint64: the best so far of each query, unordered, and more; written.
        counts: (Q,) int64: how many; written.
        k: how many are wanted.
        most: with so many columns, more than k, room is made by forgetting; with fewer, by more columns.
        least: (Q,) float32: scores that count, raised.

    Returns:
        The entry to go on with: less than ``length`` if there is no room.
    """
    room = keys.shape[1]
    for f in range(first, length):
        q = found.query[f]
        if score_of(found.key[f]) < least[q]:
            continue
        if counts[q] == room:
            if room < most:
                return f
            settle(keys, counts, k, least, q)
        keys[q, counts[q]] = found.key[f]
        counts[q] += 1
    return length


@njit(cache=True, nogil=True)
def marks_of(rows: Any, marks: Any) -> None:
    """Write a 64-bit hash (FNV-1a over values) of each row (n, D): equal rows have equal marks."""
    for f in range(len(rows)):
        row = rows[f]
        mark = np.uint64(0xCBF29CE484222325)
        for d in range(len(row)):
            bits = np.float64(row[d] + row.dtype.type(0)).view(np.uint64)  # zero has one sign
            mark = (mark ^ bits) * np.uint64(0x100000001B3)
            mark ^= mark >> np.uint64(29)
        marks[f] = mark


@njit(cache=True, nogil=True)
def drop(found: Found, length: int, gone: Any) -> int:
    """Close the gaps that entries leave which are ``gone`` (length,); return how many stay."""
    kept = 0
    for f in range(length):
        if not gone[f]:
            found.query[kept] = found.query[f]
            found.key[kept] = found.key[f]
            found.place[kept] = found.place[f]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def settle_distinct(keys: Any, marks: Any, counts: Any, k: int, least: Any, q: int) -> None:
    """Do :func:`settle` where of equal rows, which have equal scores and marks, only the first counts."""
    order = np.argsort(keys[q, : counts[q]])[::-1]
    sorted_keys, sorted_marks = keys[q][order], marks[q][order]
    kept, begin = 0, 0  # of the entries that stay, those from ``begin`` on have the score of the last one
    for j in range(len(order)):
        if kept == k:
            break
        if kept and sorted_keys[j] >> np.uint64(32) != keys[q, kept - 1] >> np.uint64(32):
            begin = kept
        known = False
        for other in range(begin, kept):
            known |= marks[q, other] == sorted_marks[j]
        if not known:
            keys[q, kept], marks[q, kept] = sorted_keys[j], sorted_marks[j]
            kept += 1
    counts[q] = kept
    if kept == k:
        least[q] = max(least[q], score_of(keys[q, k - 1]))


@njit(cache=True, nogil=True)
def merge_distinct(
    found: Found,
    found_marks: Any,
    first: int,
    length: int,
    keys: Any,
    marks: Any,
    counts: Any,
    k: int,
    most: int,
    least: Any,
) -> int:
    """Do :func:`merge` with marks; ``most`` is at least ``2 k``."""
    room = keys.shape[1]
    for f in range(first, length):
        q = found.query[f]
        if score_of(found.key[f]) < least[q]:
            continue
        if counts[q] == room:
            if room < most:
                return f
            settle_distinct(keys, marks, counts, k, least, q)
        keys[q, counts[q]] = found.key[f]
        marks[q, counts[q]] = found_marks[f]
        counts[q] += 1
    return length
