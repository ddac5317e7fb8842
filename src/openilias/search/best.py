"""The k best of each query so far."""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.search.kernels import Found, merge, scores_of, settle_all

MOST_ROWS = 2**32
"""A canonical row has 32 bits of a key."""

_FIRST_ROOM = 4096


class Best:
    """What was found so far; lists are added by several threads, one after the other.

    Args:
        queries: Q.
        k: how many are wanted of each.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self._most = k + max(k // 2, 1024)
        self._keys = np.empty((queries, min(self._most, _FIRST_ROOM)), np.uint64)
        self._counts = np.zeros(queries, np.int64)
        self._lock = Lock()
        self.least = np.full(queries, -np.inf, np.float32)
        """(Q,) what a score must reach to be among the best: proven, never a guess."""

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """(Q,) of which queries k are known."""
        return self._counts >= self.k

    def add(self, found: Found, length: int) -> None:
        """Add the first ``length`` entries of lists."""
        with self._lock:
            done = 0
            while True:
                done = merge(found, done, length, self._keys, self._counts, self.k, self._most, self.least)
                if done == length:
                    return
                more = min(self._most, 2 * self._keys.shape[1]) - self._keys.shape[1]
                self._keys = np.pad(self._keys, ((0, 0), (0, more)))

    def settle(self) -> None:
        """Forget what is beyond the k best of each query, and raise what counts."""
        settle_all(self._keys, self._counts, self.k, self.least)

    def keys(self) -> list[npt.NDArray[np.uint64]]:
        """Return the keys of each query, best first."""
        self.settle()
        return [-np.sort(-keys[:count]) for keys, count in zip(self._keys, self._counts, strict=True)]

    def restore(self, keys: list[npt.NDArray[np.uint64]]) -> None:
        """Take up what :meth:`keys` returned."""
        for query, values in enumerate(keys):
            found = Found(np.full(len(values), query, np.int32), values, np.zeros(len(values), np.int32))
            self.add(found, len(values))
        self.settle()


def rows_and_scores(keys: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the canonical rows and the scores of keys, both of the same shape."""
    rows = (np.uint64(MOST_ROWS - 1) - (keys & np.uint64(MOST_ROWS - 1))).astype(np.int64)
    return rows, scores_of(np.ascontiguousarray(keys).ravel()).reshape(keys.shape)


def check_rows(rows: int) -> None:
    """Raise OpenIliasError if a database has more rows than keys can tell apart."""
    if rows > MOST_ROWS:
        raise OpenIliasError(
            f"{rows:,} descriptors are too many for one search; {MOST_ROWS:,} are the most.",
            fix="Search parts of the database, and merge the rankings.",
        )
