"""Average precision and the oracle, as arrays in and arrays out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def average_precision(
    scores: npt.NDArray[np.floating],
    relevant: npt.NDArray[np.bool_],
    positives: npt.NDArray[np.int64],
    *,
    k: int,
) -> Floats:
    """AP@k of Q lists (paper, section 3.1; rectangles, not trapezoids).

    Equal scores form one block: AP is the sum over blocks of (hits in the block) x (precision at the end of the
    block), divided by min(k, positives). Equal to scikit-learn's average precision of the list, times the hits,
    over min(k, positives).

    Args:
        scores: (Q, n), not rising along a row; padding must be -inf.
        relevant: (Q, n); padding must be False.
        positives: (Q,) how many there are of each query in the whole database, at least 1.
        k: cut; columns from k on are not looked at.

    Returns:
        (Q,) in [0, 1].
    """
    scores, relevant = scores[:, :k], relevant[:, :k]
    query, column = np.nonzero(relevant)
    return average_precision_of_hits(query, block_ends(scores)[query, column].astype(np.int64), positives, k=k)


def average_precision_of_hits(
    query: npt.NDArray[np.int64], end: npt.NDArray[np.int64], positives: npt.NDArray[np.int64], *, k: int
) -> Floats:
    """AP@k as :func:`average_precision`, from the hits alone: what else a list holds does not enter.

    Args:
        query: (H,) whose list each hit stands in, rising; hits of a list by rank.
        end: (H,) rank, from 1, at which its block of equal scores ends, at most k.
        positives: (Q,) of each query.
        k: cut.

    Returns:
        (Q,) in [0, 1].
    """
    precision = _hits_up_to(query, end, query, end) / end
    return np.asarray(np.bincount(query, precision, minlength=len(positives)) / np.minimum(k, positives), np.float64)


def ends_without(
    query: npt.NDArray[np.int64], end: npt.NDArray[np.int64], removed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Take some hits out of their lists and close the gaps; nothing takes their place.

    Args:
        query: (H,) as for :func:`average_precision_of_hits`.
        end: (H,).
        removed: (H,) what to take out.

    Returns:
        (n,) the ends of those that are left.
    """
    left = ~removed
    return np.asarray(end[left] - _hits_up_to(query[left], end[left], query[removed], end[removed]), np.int64)


def _hits_up_to(
    query: npt.NDArray[np.int64], end: npt.NDArray[np.int64], of: npt.NDArray[np.int64], at: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return for each (query, end) how many of the hits (of, at) of the same query end there or before."""
    step = int(max(end.max(initial=0), at.max(initial=0))) + 1
    keys = of * step + at
    first = np.searchsorted(keys, query * step, side="left")
    return np.asarray(np.searchsorted(keys, query * step + end, side="right") - first, np.int64)


def block_ends(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
    """Return for each entry of Q lists the rank, from 1, at which its block of equal scores ends.

    Args:
        scores: (Q, n), not rising along a row.
    """
    width = scores.shape[1]
    ends = np.full(scores.shape, width, np.int32)
    last = scores[:, 1:] != scores[:, :-1]
    ends[:, :-1] = np.where(last, np.arange(1, max(width, 1), dtype=np.int32), width)
    return np.asarray(np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1], np.int32)


def oracle(
    hits: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    positives: npt.NDArray[np.int64],
    *,
    k: int,
    official: bool = False,
) -> Floats:
    """AP of a perfect re-ranking of the first k: hits within k over positives.

    Args:
        hits: (Q,) within the first k.
        lengths: (Q,) how many images the lists have.
        positives: (Q,).
        k: cut.
        official: (mean relevance of the returned) x k / positives, as the official code has it, which exceeds 1
            for lists shorter than k.

    Returns:
        (Q,) in [0, 1] unless ``official``.
    """
    if official:
        return np.asarray(hits / np.maximum(np.minimum(lengths, k), 1) * (k / positives), np.float64)
    return np.asarray(hits / positives, np.float64)
