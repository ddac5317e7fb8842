"""Exact top-k inner-product search over blocks of descriptors.

The score of a pair is the float64 inner product of the stored vectors, summed in the order of the dimensions
(multiply, then add), rounded once to float32. Order: score descending, then database row ascending. Neither
depends on the device, the precision of the first pass, how the database is cut into blocks, the number of threads, or
the order in which blocks come.

A first pass in low precision gives every pair an approximate score and a bound of its error that is measured on the
pair's own vectors. What can still be among the first k is scored exactly; nothing else is. ``docs/exact-search.md``
has the proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.search.best import Best, check_rows, rows_and_scores
from openilias.search.first_pass import PassName
from openilias.search.scan import CpuScan

Vectors = npt.NDArray[Any]
_KINDS = (np.float16, np.float32, np.float64, np.int8, np.uint8)
_SAMPLE = 16_384
_FEWEST = 256


def pair_scores(queries: Vectors, rows: Vectors) -> npt.NDArray[np.float32]:
    """Return the exact scores (M,) float32 of M pairs: ``queries`` (M, D) against ``rows`` (M, D)."""
    left, right = queries.astype(np.float64).T, rows.astype(np.float64).T
    total = np.zeros(len(queries), np.float64)
    for q, x in zip(np.ascontiguousarray(left), np.ascontiguousarray(right), strict=True):
        total += q * x
    with np.errstate(over="ignore"):
        return total.astype(np.float32) + np.float32(0)  # no negative zero


def topk(
    queries: Vectors,
    blocks: Iterable[Vectors],
    k: int,
    *,
    threads: int | None = None,
    first_pass: PassName | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the k best rows per query.

    Args:
        queries: (Q, D) of any type of number: float16, float32, float64, int8 or uint8; finite.
        blocks: (N_i, D) arrays of any of these; row numbers count through them in order.
        k: how many; all N rows if there are fewer.
        threads: of the CPU; all by default. Changes no result.
        first_pass: precision of the first pass; what is fastest here by default. Changes no result.

    Returns:
        rows (Q, min(k, N)) int64 and scores of the same shape, float32.

    Raises:
        OpenIliasError: dimensions differ, or a value is not finite.
    """
    search = ExactSearch(queries, k, threads=threads, first_pass=first_pass)
    start = 0
    for block in blocks:
        search.add(block, start)
        start += len(block)
    return search.result()


class ExactSearch:
    """A search in progress: blocks are added in any order, each with the numbers of its rows.

    Args:
        queries: as in :func:`topk`.
        k: as in :func:`topk`.
        threads: as in :func:`topk`.
        first_pass: as in :func:`topk`.

    Raises:
        OpenIliasError: the queries are not finite, or no vectors.
    """

    def __init__(
        self, queries: Vectors, k: int, *, threads: int | None = None, first_pass: PassName | None = None
    ) -> None:
        if queries.ndim != 2 or k < 1:
            raise OpenIliasError(f"Cannot search with queries of shape {queries.shape} and k = {k}.")
        _require_numbers(queries, "queries")
        bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(bad):
            raise OpenIliasError(f"A descriptor of the queries is not finite (row {bad[0]}).")
        self._dims = queries.shape[1]
        self._best = Best(len(queries), k)
        self._scan = CpuScan(queries, threads=threads, first_pass=first_pass)

    def add(self, block: Vectors, rows: int | npt.NDArray[np.int64] = 0) -> None:
        """Search one more block.

        Args:
            block: (N, D).
            rows: the number of its first row, or (N,) of all of them. No number may come twice.

        Raises:
            OpenIliasError: another number of dimensions, or a value is not finite; the search is then void.
        """
        if block.ndim != 2 or block.shape[1] != self._dims:
            raise OpenIliasError(
                f"The database has {block.shape[-1]} dimensions, the queries have {self._dims}.",
                fix="Describe both with the same model.",
            )
        _require_numbers(block, "database")
        numbers = np.arange(rows, rows + len(block)) if isinstance(rows, int) else rows
        if not len(block) or not len(self._best.least):
            return
        check_rows(int(numbers.max()) + 1)
        guess = self._guess(block)
        nowhere = np.full(len(guess), np.nan, np.float32)
        self._scan.scan(block, numbers, self._best, guess, nowhere)
        self._best.settle()
        # A guess was too high where fewer than k reach it: there, all below it counts after all.
        missed = (guess > -np.inf) & ~(self._best.complete & (self._best.least >= guess))
        if missed.any():
            lowered = np.where(missed, np.float32(-np.inf), np.float32(np.inf))
            self._scan.scan(block, numbers, self._best, lowered, np.where(missed, guess, nowhere))
            self._best.settle()

    def _guess(self, block: Vectors) -> npt.NDArray[np.float32]:
        """Return what the k-th score of a block is probably not below, from a sample; -inf without one.

        The rank asked of the sample is four standard deviations higher than expected, so that few queries miss.
        """
        nothing = np.full(len(self._best.least), -np.inf, np.float32)
        k, count = self._best.k, len(block)
        size = min(_SAMPLE, count // 4)
        expected = k * size / count
        rank = int(np.ceil(expected + 4 * np.sqrt(expected) + 4))
        if size < _FEWEST or rank > size // 2 or self._best.complete.all():
            return nothing
        sample = np.asarray(block[:: count // size][:size])
        if not np.isfinite(sample).all():
            return nothing  # the scan says which row
        scores = self._scan.sample_scores(sample)
        place = scores.shape[1] - rank
        scores.partition(place, axis=1)
        return np.where(self._best.complete, nothing, scores[:, place])

    @property
    def first_pass(self) -> str:
        """Which first pass is in use."""
        return self._scan.first_pass or "not chosen yet"

    @property
    def scored(self) -> int:
        """How many pairs were scored exactly so far."""
        return self._scan.scored

    def result(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return rows and scores, best first, as :func:`topk`."""
        keys = self._best.keys()
        width = min((len(values) for values in keys), default=0)
        return rows_and_scores(np.array([values[:width] for values in keys], np.uint64).reshape(len(keys), width))


def _require_numbers(values: Vectors, what: str) -> None:
    if values.dtype not in _KINDS:
        raise OpenIliasError(
            f"The descriptors of the {what} are {values.dtype}.",
            fix=f"Give one of {', '.join(np.dtype(kind).name for kind in _KINDS)}.",
        )
