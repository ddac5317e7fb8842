"""mAP against the number of distractors (paper, Fig. C), from one ranking: nested random subsets of the database.

Which distractors a subset holds follows from their numbers and a seed alone, through a permutation that is computed
and never stored: 100 million take no memory. A list of the whole database with the distractors left out that are not
in a subset is the list that a search of the subset would give; a list that is cut is so only as far as it reaches,
and where that does not settle an AP, both ends of what it can be are given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.evaluate.metrics import average_precision_of_hits, block_ends

_ROUNDS = 6

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.uint64]


def shuffled(numbers: npt.ArrayLike, total: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return the place of each number in a random order of 0 to ``total`` - 1.

    A Feistel network on the next even number of bits, walked until it lands below ``total`` (Black and Rogaway, 2002):
    one to one, the same on every machine.

    Args:
        numbers: integers from 0 to ``total`` - 1, of any shape.
        total: how many there are, at least 1.
        seed: of the order.

    Returns:
        int64 of the same shape.
    """
    values = np.asarray(numbers, np.int64)
    if total < 1 or (values.size and (values.min() < 0 or values.max() >= total)):
        raise ValueError(f"Numbers from 0 to {total - 1} are shuffled.")
    half = np.uint64(max(1, -(-(total - 1).bit_length() // 2)))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.default_rng(seed).integers(0, 1 << 63, _ROUNDS, dtype=np.uint64)
    out = values.ravel().astype(np.uint64)
    left = np.arange(out.size)
    while left.size:
        out[left] = _rounds(out[left], half, mask, keys)
        left = left[out[left] >= total]
    return out.astype(np.int64).reshape(values.shape)


def _rounds(values: Numbers, half: np.uint64, mask: np.uint64, keys: Numbers) -> Numbers:
    high, low = values >> half, values & mask
    for key in keys:
        high, low = low, high ^ (_mixed(low + key) & mask)
    return np.asarray(high << half | low, np.uint64)


def _mixed(values: Numbers) -> Numbers:
    """Mix the bits of each number (the finaliser of SplitMix64)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True, eq=False)
class Within:
    """The APs of Q queries in a part of the database.

    Attributes:
        low: (Q,) the least that they can be.
        high: (Q,) the most; equal where the list settles it.
    """

    low: Floats
    high: Floats

    @property
    def settled(self) -> bool:
        """Whether every AP is known."""
        return bool((self.low == self.high).all())


def average_precision_within(
    scores: npt.NDArray[np.floating],
    relevant: npt.NDArray[np.bool_],
    outside: npt.NDArray[np.bool_],
    positives: npt.NDArray[np.int64],
    *,
    k: int,
    whole: npt.NDArray[np.bool_],
) -> Within:
    """AP@k of lists from which images are left out.

    A list of the first images only settles the AP of what is left of it if that still has k images, or if all positives
    are in it, none of them beside the first image that is not: with its score, or a lower one.

    Args:
        scores: (Q, n) as for :func:`~openilias.evaluate.metrics.average_precision`.
        relevant: (Q, n).
        outside: (Q, n) what is left out; never a positive, nor padding.
        positives: (Q,) in the whole database.
        k: cut.
        whole: (Q,) the list holds all of the database.
    """
    if (outside & relevant).any():
        raise OpenIliasError("A positive is left out of a subset of the distractors.")
    query, place = np.nonzero(relevant)
    gone = np.zeros((scores.shape[0], scores.shape[1] + 1), np.int32)
    np.cumsum(outside, axis=1, out=gone[:, 1:])
    finite = np.isfinite(scores)
    lengths = finite.sum(axis=1) - gone[:, -1]
    rank = place + 1 - gone[query, place]
    end = block_ends(scores)[query, place].astype(np.int64)
    end = np.minimum(end - gone[query, end], k)
    inside = rank <= k
    low = average_precision_of_hits(query[inside], end[inside], positives, k=k)
    hits = np.bincount(query, minlength=len(positives))
    # What follows may have the score of the last image; the positives of that score are then not settled.
    last = np.where(finite, scores, np.inf).min(axis=1, initial=np.inf)
    beside = scores[query, place] == last[query]
    count = np.bincount(query[beside], minlength=len(positives))
    rows = ~whole & (lengths < k) & ((hits < positives) | (count > 0))
    if not rows.any():
        return Within(low, low)
    certain = average_precision_of_hits(query[~beside], end[~beside], positives, k=k)
    # The positives that are missing come next, with the last score: no order of them gives more.
    more = np.clip(positives - hits, 0, k - lengths)
    block = (count + more) * (hits + more) / np.maximum(lengths + more, 1)
    high = certain + block / np.minimum(k, positives)
    return Within(np.where(rows, certain, low), np.where(rows, high, low))
