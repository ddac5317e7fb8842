"""The k best of each query so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.search.codes import MOST
from openilias.search.kernels import score
from openilias.search.keys import (
    Found,
    drop,
    marks_of,
    merge,
    merge_distinct,
    scores_of,
    settle_all,
    settle_distinct,
)

MOST_ROWS = 2**32
"""A canonical row has 32 bits of a key."""

_LITTLE, _MORE = 128, 1024
"""So many more than k are kept before lists are cut: the fewer, the more often; the more, the larger they are."""
_FIRST_ROOM = 1 << 30
"""Bytes of all lists; the system gives only what is written to."""
Array = npt.NDArray[Any]


class UnusableRowError(OpenIliasError):
    """A row of the database that cannot be searched.

    Args:
        row: its canonical number.
    """

    def __init__(self, row: int) -> None:
        self.row = row
        self.why = f"is not finite, or larger than {MOST:g}"
        what = f"A descriptor of the database is not finite (row {row}), or larger than {MOST:g}."
        super().__init__(what, fix="Describe the image again.")


@dataclass(frozen=True)
class Unwanted:
    """What is never listed.

    Attributes:
        own_rows: (Q,) int64: the canonical row of each query itself, -1 if it is not in the database. None: nothing
            is known of them.
        own_values: (Q, D): the queries; rows of the same values are not listed. None: they are.
        duplicates: of rows with the same values only the first is listed.
        own_scores: (Q,) float32 exact scores of ``own_values``, where what is searched with is something else.
    """

    own_rows: npt.NDArray[np.int64] | None = None
    own_values: Array | None = None
    duplicates: bool = False
    own_scores: npt.NDArray[np.float32] | None = None


NOTHING = Unwanted()


class Best:
    """What was found so far; lists are added by several threads, one after the other.

    Args:
        queries: Q.
        k: how many are wanted of each.
        unwanted: what is left out.
    """

    def __init__(self, queries: int, k: int, unwanted: Unwanted = NOTHING) -> None:
        self.k = k
        self._unwanted = unwanted
        self._most = k + max(k if unwanted.duplicates else k // 2, min(k, _MORE), _LITTLE)
        room = min(self._most, max(_FIRST_ROOM // (8 * max(queries, 1)), 1))
        self._keys = np.empty((queries, room), np.uint64)
        self._marks = np.empty((queries, room if unwanted.duplicates else 0), np.uint64)
        self._counts = np.zeros(queries, np.int64)
        self._lock = Lock()
        self.least = np.full(queries, -np.inf, np.float32)
        """(Q,) what a score must reach to be among the best: proven, never a guess."""
        own = unwanted.own_values
        self._own = None if own is None else own.astype(np.float64 if own.dtype == np.float64 else np.float32)
        known = unwanted.own_scores
        if known is None:
            known = np.array([score(q, q) for q in ([] if self._own is None else self._own)], np.float32)
        self._own_scores = known

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """(Q,) of which queries k are known."""
        return self._counts >= self.k

    @property
    def needs_rows(self) -> bool:
        """Whether :meth:`add` looks at the rows."""
        return self._unwanted.duplicates or self._own is not None

    def most_bytes(self) -> int:
        """Return how large it can become."""
        return len(self._keys) * self._most * (16 if self._unwanted.duplicates else 8)

    def add(self, found: Found, length: int, rows: Array) -> None:
        """Add the first ``length`` entries of lists, which are changed; their places are places in ``rows`` (M, D)."""
        if not length:
            return
        length = self._without_own(found, length, rows)
        marks = np.empty(length if self._unwanted.duplicates else 0, np.uint64)
        if self._unwanted.duplicates:
            places, of = np.unique(found.place[:length], return_inverse=True)
            there = rows[places]
            own = np.empty(len(there), np.uint64)
            marks_of(there.astype(np.float64 if there.dtype == np.float64 else np.float32), own)
            marks = own[of]
        self._merge(found, marks, length)

    def _merge(self, found: Found, marks: npt.NDArray[np.uint64], length: int) -> None:
        with self._lock:
            done = 0
            while True:
                here = (self._counts, self.k, self._most, self.least)
                if self._unwanted.duplicates:
                    done = merge_distinct(found, marks, done, length, self._keys, self._marks, *here)
                else:
                    done = merge(found, done, length, self._keys, *here)
                if done == length:
                    return
                self._keys = self._wider(self._keys)
                self._marks = self._wider(self._marks) if self._unwanted.duplicates else self._marks

    def _wider(self, lists: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        width = lists.shape[1]
        wider = np.empty((len(lists), min(self._most, 2 * width)), np.uint64)
        wider[:, :width] = lists
        return wider

    def _without_own(self, found: Found, length: int, rows: Array) -> int:
        queries = found.query[:length]
        gone = np.zeros(length, np.bool_)
        if self._unwanted.own_rows is not None:
            gone |= rows_and_scores(found.key[:length])[0] == self._unwanted.own_rows[queries]
        if self._own is not None:
            # Equal rows have equal scores, so few need to be looked at.
            for f in np.flatnonzero(scores_of(found.key[:length]) == self._own_scores[queries]):
                gone[f] |= bool((rows[found.place[f]] == self._own[queries[f]]).all())
        return int(drop(found, length, gone)) if gone.any() else length

    def settle(self) -> None:
        """Forget what is beyond the k best of each query, and raise what counts."""
        if self._unwanted.duplicates:
            for query in range(len(self._counts)):
                settle_distinct(self._keys, self._marks, self._counts, self.k, self.least, query)
        else:
            settle_all(self._keys, self._counts, self.k, self.least)

    def lengths(self) -> list[int]:
        """Return how many each query has."""
        self.settle()
        lengths: list[int] = self._counts.tolist()
        return lengths

    def sorted_keys(self) -> Iterator[npt.NDArray[np.uint64]]:
        """Yield the keys of each query, best first."""
        self.settle()
        for keys, count in zip(self._keys, self._counts, strict=True):
            yield np.sort(keys[:count])[::-1]

    def saved(self) -> dict[str, Array]:
        """Return what :meth:`restore` takes up again: arrays that can be written to a file."""
        self.settle()
        width = int(self._counts.max(initial=0))
        return {
            "counts": self._counts.copy(),
            "keys": self._keys[:, :width].copy(),
            "marks": self._marks[:, :width].copy(),
        }

    def restore(self, saved: dict[str, Array]) -> None:
        """Go on from what :meth:`saved` returned, of the same queries and k."""
        for query, count in enumerate(saved["counts"]):
            keys = saved["keys"][query, :count]
            marks = saved["marks"][query, :count]
            self._merge(Found(np.full(count, query, np.int32), keys, np.zeros(count, np.int32)), marks, int(count))
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
