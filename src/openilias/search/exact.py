"""Exact top-k inner-product search over blocks of descriptors.

The score of a pair is the float64 inner product of the stored vectors, summed in the order of the dimensions
(multiply, then add), rounded once to float32. Order: score descending, then database row ascending. Neither
depends on how the database is cut into blocks.

For float16 vectors with ``|q| |x| < 32`` every product and partial sum is a multiple of 2**-48 below 2**5, hence
exact in float64 in any order of summation, and a matrix product gives the score itself. In all other cases the
matrix product only proposes: it differs from the exact sum by at most ``D u |q| |x|`` on either side of the true
value (``u = 2**-53``; Higham, Accuracy and Stability, section 3.1; factor 4 taken for safety), and everything
that could still be among the first k is summed again in the fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError

Vectors = npt.NDArray[np.floating]
_BLOCK_BYTES = 64 << 20


def pair_scores(queries: Vectors, rows: Vectors) -> npt.NDArray[np.float32]:
    """Return the exact scores (M,) float32 of M pairs: ``queries`` (M, D) against ``rows`` (M, D)."""
    left, right = queries.astype(np.float64).T, rows.astype(np.float64).T
    total = np.zeros(len(queries), np.float64)
    for q, x in zip(np.ascontiguousarray(left), np.ascontiguousarray(right), strict=True):
        total += q * x
    return total.astype(np.float32) + np.float32(0)  # no negative zero


def topk(queries: Vectors, blocks: Iterable[Vectors], k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the k best rows per query.

    Args:
        queries: (Q, D) float16 or float32, finite.
        blocks: (N_i, D) arrays; row numbers count through them in order.
        k: how many; all N rows if there are fewer.

    Returns:
        rows (Q, min(k, N)) int64 and scores of the same shape, float32.

    Raises:
        OpenIliasError: dimensions differ, or a value is not finite.
    """
    if queries.ndim != 2 or k < 1:
        raise OpenIliasError(f"Cannot search with queries of shape {queries.shape} and k = {k}.")
    _require_finite(queries, "queries")
    wide = queries.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    count = len(queries)
    best_rows = np.zeros((count, 0), np.int64)
    best_scores = np.zeros((count, 0), np.float32)
    start = 0
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != queries.shape[1]:
            raise OpenIliasError(
                f"The database has {block.shape[-1]} dimensions, the queries have {queries.shape[1]}.",
                fix="Describe both with the same model.",
            )
        for piece in _pieces(block, max(count, queries.shape[1])):
            _require_finite(piece, "database", start)
            best_rows, best_scores = _merge(queries, wide, norms, piece, start, k, best_rows, best_scores)
            start += len(piece)
    return best_rows, best_scores


def _pieces(block: Vectors, width: int) -> Iterable[Vectors]:
    """Cut a block so that its rows, and their scores, of ``width`` float64 each stay below the limit."""
    step = max(256, _BLOCK_BYTES // (8 * max(width, 1)))
    for start in range(0, len(block), step):
        yield np.asarray(block[start : start + step])


def _require_finite(values: Vectors, what: str, start: int = 0) -> None:
    if not np.isfinite(values).all():
        row = start + int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise OpenIliasError(f"A descriptor of the {what} is not finite (row {row}).")


def _merge(
    queries: Vectors,
    wide: npt.NDArray[np.float64],
    norms: npt.NDArray[np.float64],
    piece: Vectors,
    start: int,
    k: int,
    best_rows: npt.NDArray[np.int64],
    best_scores: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    other = piece.astype(np.float64)
    products = wide @ other.T
    reach = norms * np.linalg.norm(other, axis=1).max(initial=0.0)
    halves = queries.dtype == np.float16 and piece.dtype == np.float16
    exact = halves and bool((reach < 31.9).all())
    bound = np.zeros_like(reach) if exact else 4 * (queries.shape[1] + 2) * 2.0**-53 * reach

    kept = min(k, best_rows.shape[1] + len(piece))
    rows = np.empty((len(queries), kept), np.int64)
    scores = np.empty((len(queries), kept), np.float32)
    for q in range(len(queries)):
        candidates = _candidates(products[q], k, best_scores[q], bound[q])
        new = (
            products[q, candidates].astype(np.float32) + np.float32(0)
            if exact
            else pair_scores(np.broadcast_to(queries[q], (len(candidates), queries.shape[1])), piece[candidates])
        )
        all_rows = np.concatenate([best_rows[q], candidates + start])
        all_scores = np.concatenate([best_scores[q], new])
        order = np.lexsort((all_rows, -all_scores))[:kept]
        rows[q], scores[q] = all_rows[order], all_scores[order]
    return rows, scores


def _candidates(
    products: npt.NDArray[np.float64], k: int, best: npt.NDArray[np.float32], bound: float
) -> npt.NDArray[np.int64]:
    """Return the rows of a piece whose score can reach the k-th best known so far or within the piece."""
    lowest = -np.inf
    if len(best) >= k:
        lowest = float(best[k - 1])
    if len(products) > k:
        within = np.partition(products, len(products) - k)[len(products) - k]
        lowest = max(lowest, float(np.float32(within - bound)))
    if lowest == -np.inf:
        return np.arange(len(products))
    # Rounding to float32 can lift a product by half a unit in the last place to the threshold.
    floor = float(np.nextafter(np.float32(lowest), np.float32(-np.inf)))
    return np.flatnonzero(products >= floor - bound)
