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
    if scores.shape[1] == 0:
        return np.zeros(len(scores))
    hits = np.cumsum(relevant, axis=1)
    ends = np.ones(scores.shape, bool)
    ends[:, :-1] = scores[:, 1:] != scores[:, :-1]
    # Hits up to the end of the block before, carried forward to where the next block ends.
    at_ends = np.where(ends, hits, 0)
    before = np.zeros_like(hits)
    before[:, 1:] = np.maximum.accumulate(at_ends, axis=1)[:, :-1]
    precision = hits / np.arange(1, scores.shape[1] + 1)
    total = np.where(ends, (hits - before) * precision, 0.0).sum(axis=1)
    return np.asarray(total / np.minimum(k, positives), np.float64)


def oracle(
    relevant: npt.NDArray[np.bool_],
    lengths: npt.NDArray[np.int64],
    positives: npt.NDArray[np.int64],
    *,
    k: int,
    official: bool = False,
) -> Floats:
    """AP of a perfect re-ranking of the first k: hits within k over positives.

    Args:
        relevant: (Q, n) as for :func:`average_precision`.
        lengths: (Q,) how many of the n columns are not padding.
        positives: (Q,).
        k: cut.
        official: (mean relevance of the returned) x k / positives, as the official code has it, which exceeds 1
            for lists shorter than k.

    Returns:
        (Q,) in [0, 1] unless ``official``.
    """
    hits = relevant[:, :k].sum(axis=1)
    if official:
        return np.asarray(hits / np.maximum(np.minimum(lengths, k), 1) * (k / positives), np.float64)
    return np.asarray(hits / positives, np.float64)


def without(
    scores: npt.NDArray[np.floating], relevant: npt.NDArray[np.bool_], removed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """Take entries out of Q lists and close the gaps; nothing takes their place.

    Args:
        scores: (Q, n).
        relevant: (Q, n).
        removed: (Q, n) what to take out.

    Returns:
        scores and relevance, (Q, n), padded at the end with -inf and False.
    """
    order = np.argsort(removed, axis=1, kind="stable")
    left = np.take_along_axis(scores, order, 1).copy()
    kept = np.take_along_axis(relevant, order, 1).copy()
    gone = np.take_along_axis(removed, order, 1)
    left[gone], kept[gone] = -np.inf, False
    return left, kept
