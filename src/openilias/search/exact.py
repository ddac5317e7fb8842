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

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.search.best import NOTHING, Best, Unwanted, check_rows, rows_and_scores
from openilias.search.codes import MOST
from openilias.search.scan import CpuScan

Vectors = npt.NDArray[Any]
Numbers = npt.NDArray[np.int64] | range
"""Canonical rows."""
Piece = tuple[Any, Numbers]
"""A block (N, D) and the numbers of its rows."""

_KINDS = (np.float16, np.float32, np.float64, np.int8, np.uint8)
_FEWEST, _ENOUGH = 256, 1024
_MOST_QUERIES = 4096


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
    device: str = "cpu",
    threads: int | None = None,
    first_pass: str | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the k best rows per query.

    Args:
        queries: (Q, D) of any type of number: float16, float32, float64, int8 or uint8; finite.
        blocks: (N_i, D) arrays of any of these; row numbers count through them in order.
        k: how many; all N rows if there are fewer.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``. Changes no result.
        threads: of the CPU; all by default. Changes no result.
        first_pass: precision of the first pass; what is fastest here by default. Changes no result.

    Returns:
        rows (Q, min(k, N)) int64 and scores of the same shape, float32.

    Raises:
        OpenIliasError: dimensions differ, or a value is not finite.
    """

    def numbered() -> Iterator[Piece]:
        start = 0
        for block in blocks:
            yield block, range(start, start + len(block))
            start += len(block)

    search = ExactSearch(queries, k, device=device, threads=threads, first_pass=first_pass)
    search.add_all(numbered())
    return search.result()


class ExactSearch:
    """A search in progress: blocks are added in any order, each with the numbers of its rows.

    Args:
        queries: as in :func:`topk`.
        k: as in :func:`topk`.
        unwanted: what is not listed.
        device: as in :func:`topk`.
        threads: as in :func:`topk`.
        first_pass: as in :func:`topk`.

    Raises:
        OpenIliasError: the queries are not finite, or no vectors.
    """

    def __init__(
        self,
        queries: Vectors,
        k: int,
        *,
        unwanted: Unwanted = NOTHING,
        device: str = "cpu",
        threads: int | None = None,
        first_pass: str | None = None,
    ) -> None:
        if queries.ndim != 2 or k < 1:
            raise OpenIliasError(f"Cannot search with queries of shape {queries.shape} and k = {k}.")
        _require_numbers(queries, "queries")
        bad = np.flatnonzero(~(np.abs(queries.astype(np.float64)).max(axis=1, initial=0) <= MOST))
        if len(bad):
            raise OpenIliasError(f"A descriptor of the queries is not finite (row {bad[0]}), or larger than {MOST:g}.")
        self._dims = queries.shape[1]
        self._parts: list[_Part] = []
        for start in range(0, len(queries), _MOST_QUERIES):
            some = slice(start, start + _MOST_QUERIES)
            rows, values, scores = unwanted.own_rows, unwanted.own_values, unwanted.own_scores
            own = replace(
                unwanted,
                own_rows=None if rows is None else rows[some],
                own_values=None if values is None else values[some],
                own_scores=None if scores is None else scores[some],
            )
            scanner = _scanner(queries[some], device, threads, first_pass)
            self._parts.append(_Part(Best(len(queries[some]), k, own), scanner))

    def add(self, block: Any, rows: int | Numbers = 0) -> None:
        """Search one more block.

        Args:
            block: (N, D), in memory or memory-mapped; or a tensor on the device.
            rows: the number of its first row, or those of all N. No number may come twice.

        Raises:
            OpenIliasError: another number of dimensions, or a value is not finite; the search is then void.
        """
        numbers = range(int(rows), int(rows) + len(block)) if isinstance(rows, int | np.integer) else rows
        self._check(block, numbers)
        for part in self._parts if len(block) else ():
            self._add(part, [(block, numbers)])

    def add_all(self, items: Iterable[Piece]) -> None:
        """Search many blocks, each with the numbers of its rows: faster than one by one.

        A device reads ahead from one to the next; on a CPU blocks that are memory-mapped, or small, share a guess.

        Raises:
            OpenIliasError: as :meth:`add`.
        """

        def checked() -> Iterator[Piece]:
            for block, numbers in items:
                self._check(block, numbers)
                if len(block):
                    yield block, numbers

        if self._parts:
            with closing(self._parts[0].scanner.stream(checked())) as together:
                for pieces in together:
                    for part in self._parts:
                        self._add(part, pieces)

    def _add(self, part: _Part, pieces: list[Piece]) -> None:
        part.add(pieces)
        if len(self._parts) > 1:
            part.scanner.release()

    def _check(self, block: Any, numbers: Numbers) -> None:
        if block.ndim != 2 or block.shape[1] != self._dims:
            raise OpenIliasError(
                f"The database has {block.shape[-1]} dimensions, the queries have {self._dims}.",
                fix="Describe both with the same model.",
            )
        if isinstance(block, np.ndarray):
            _require_numbers(block, "database")
        if len(block):
            check_rows(1 + int(numbers[-1] if isinstance(numbers, range) else numbers.max()))

    @property
    def first_pass(self) -> str:
        """Which first pass is in use."""
        return next((part.scanner.first_pass for part in self._parts), None) or "not chosen yet"

    @property
    def scored(self) -> int:
        """How many pairs were scored exactly so far."""
        return sum(part.scanner.scored for part in self._parts)

    def most_bytes(self) -> dict[str, int]:
        """Return how much memory it takes at most besides the blocks: of what, and how many bytes."""
        return {
            "tiles": max((part.scanner.most_bytes() for part in self._parts), default=0),
            "queries": sum(part.scanner.queries_bytes() for part in self._parts),
            "best": sum(part.best.most_bytes() for part in self._parts),
        }

    def saved(self) -> dict[str, Vectors]:
        """Return the state, for :meth:`restore`: arrays that can be written to a file."""
        return {
            f"{name}{number}": values
            for number, part in enumerate(self._parts)
            for name, values in part.best.saved().items()
        }

    def restore(self, saved: Mapping[str, Vectors]) -> None:
        """Go on from the state of a search for the same queries, k and unwanted."""
        for number, part in enumerate(self._parts):
            part.best.restore({name: saved[f"{name}{number}"] for name in ("counts", "keys", "marks")})

    def result(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return rows and scores, best first, as :func:`topk`.

        Where something is not wanted, some lists may be shorter than others: -1 and -inf fill them.
        """
        lengths = [length for part in self._parts for length in part.best.lengths()]
        rows = np.full((len(lengths), max(lengths, default=0)), -1, np.int64)
        scores = np.full(rows.shape, -np.inf, np.float32)
        for query, values in enumerate(keys for part in self._parts for keys in part.best.sorted_keys()):
            rows[query, : len(values)], scores[query, : len(values)] = rows_and_scores(values)
        return rows, scores


class Scanner(Protocol):
    """What goes through a block: the CPU, or a device."""

    first_pass: str | None
    scored: int

    def scan(self, block: Any, numbers: Numbers, best: Best, guess: Vectors, below: Vectors) -> None:
        """Add to ``best`` what counts, as :meth:`openilias.search.scan.CpuScan.scan`."""

    def stream(self, items: Iterable[Piece]) -> Generator[list[Piece]]:
        """Yield blocks, cut and joined as suits it: those that share a guess."""

    def sample(self, blocks: list[Any]) -> int:
        """Return how many rows of blocks are worth looking at for a guess."""

    def likely(self, blocks: list[Any], size: int, rank: int) -> npt.NDArray[np.float32] | None:
        """Return about the ``rank``-th best score (Q,) of ``size`` rows spread over blocks; None if it cannot."""

    def most_bytes(self) -> int:
        """Return how much memory a scan takes at most."""

    def queries_bytes(self) -> int:
        """Return how much memory the queries take at most."""

    def release(self) -> None:
        """Give the memory of a scan back, if others are going to scan."""


def _scanner(queries: Vectors, device: str, threads: int | None, first_pass: str | None) -> Scanner:
    if device == "cpu":
        return CpuScan(queries, threads=threads, first_pass=first_pass)
    from openilias.search.gpu import DeviceScan

    return DeviceScan(queries, device=device, first_pass=first_pass)


@dataclass
class _Part:
    """Some of the queries: so many that what belongs to them is small."""

    best: Best
    scanner: Scanner

    def add(self, pieces: list[Piece]) -> None:
        best = self.best
        guess = self._guess([block for block, _ in pieces])
        self._scan(pieces, guess, np.full(len(guess), np.nan, np.float32))
        guessed = guess > -np.inf
        if not guessed.any() and (best.least[best.complete] > -np.inf).all():
            return  # limits are there, and rise when lists are full
        best.settle()
        # A guess was too high where fewer than k reach it: there, all below it counts after all.
        missed = guessed & ~(best.complete & (best.least >= guess))
        if missed.any():
            lowered = np.where(missed, np.float32(-np.inf), np.float32(np.inf))
            self._scan(pieces, lowered, np.where(missed, guess, np.float32(-np.inf)))
            best.settle()

    def _scan(self, pieces: list[Piece], guess: npt.NDArray[np.float32], below: npt.NDArray[np.float32]) -> None:
        for block, numbers in pieces:
            self.scanner.scan(block, numbers, self.best, guess, below)

    def _guess(self, blocks: list[Any]) -> npt.NDArray[np.float32]:
        """Return what the k-th score of a block is probably not below, from a sample; -inf without one.

        The rank asked of the sample is four standard deviations higher than expected, so that few queries miss.
        """
        nothing = np.full(len(self.best.least), -np.inf, np.float32)
        k, count = self.best.k, sum(len(block) for block in blocks)
        size = min(self.scanner.sample(blocks), max(count // 16, min(_ENOUGH, count // 4)))
        expected = k * size / max(count, 1)
        rank = int(np.ceil(expected + 4 * np.sqrt(expected) + 4))
        complete = self.best.complete
        if size < _FEWEST or rank > size // 2 or complete.all():
            return nothing
        likely = self.scanner.likely(blocks, size, rank)
        return nothing if likely is None else np.where(complete, nothing, likely)


def _require_numbers(values: Vectors, what: str) -> None:
    if values.dtype not in _KINDS:
        raise OpenIliasError(
            f"The descriptors of the {what} are {values.dtype}.",
            fix=f"Give one of {', '.join(np.dtype(kind).name for kind in _KINDS)}.",
        )
