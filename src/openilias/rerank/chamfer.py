"""Chamfer similarity of sets of local descriptors, the asymmetric one of the paper (section 4).

The similarity of a query to an image is the sum, over the descriptors of the query, of the largest similarity to a
descriptor of the image. That of packed descriptors of b bits is 1 - 2 Hamming / b, the cosine of their signs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.rerank.hamming import FARTHEST, least, words_of

_BLOCK = 64 << 20  # bytes of similarities at a time

Scores = npt.NDArray[np.float32]


def chamfer(query: npt.NDArray[Any], database: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> Scores:
    """Return the similarity of one query to each image of a shortlist.

    Args:
        query: (Q, D) float16 or float32 of unit length, or (Q, bits / 8) uint8.
        database: (N, D) of the same kind, of all images one after the other.
        offsets: (M + 1,) where the descriptors of each image begin.

    Returns:
        (M,) float32; of an image without descriptors -Q, the least there can be.

    Raises:
        OpenIliasError: packed descriptors whose bits are no multiple of 64.
    """
    if query.dtype == np.uint8:
        distances = least(words_of(query), words_of(database), offsets)
        bits = 8 * query.shape[1]
        similar = np.where(distances == FARTHEST, -1.0, 1 - 2 * distances.astype(np.float64) / bits)
        summed: Scores = similar.sum(1).astype(np.float32)
        return summed
    scores = np.full(len(offsets) - 1, -len(query), np.float32)
    asked = query.astype(np.float32)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    first = 0
    while first < len(filled):
        last = first + 1
        while last < len(filled) and 4 * len(query) * (offsets[filled[last] + 1] - offsets[filled[first]]) <= _BLOCK:
            last += 1
        some = filled[first:last]
        start, end = offsets[some[0]], offsets[some[-1] + 1]
        similar = database[start:end].astype(np.float32) @ asked.T
        scores[some] = np.maximum.reduceat(similar, offsets[some] - start, axis=0).sum(1, dtype=np.float64)
        first = last
    return scores
