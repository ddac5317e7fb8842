"""Query expansion: a second search with each query and the best that it found, put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.protocol import Expand
from openilias.search.database import Database
from openilias.search.exact import pair_scores
from openilias.search.ranking import ABSENT, Ranking
from openilias.search.reading import picked

ALGORITHM_VERSION = 1

Numbers = npt.NDArray[np.int64]


def expand_vectors(
    queries: npt.NDArray[np.floating],
    neighbours: npt.NDArray[np.floating],
    scores: npt.NDArray[np.floating],
    alpha: float,
) -> npt.NDArray[np.float32]:
    """Return alpha query expansion (Radenovic et al., PAMI 2019): normalise(q + sum of s^alpha x), x of score s.

    Args:
        queries: (Q, D).
        neighbours: (Q, n, D), the best of each.
        scores: (Q, n) of the neighbours; -inf where there is none. Of a negative score -|s|^alpha is taken; with an
            alpha of 0 all weigh 1.
        alpha: not negative.

    Returns:
        (Q, D) float32 of unit length, computed in float64.

    Raises:
        OpenIliasError: a query and its neighbours cancel out.
    """
    present = np.isfinite(scores)
    known = np.where(present, scores, 0).astype(np.float64)
    weights = np.where(present, np.sign(known) * np.abs(known) ** alpha if alpha else 1.0, 0.0)
    total = queries.astype(np.float64)
    for place in range(scores.shape[1]):  # one after the other: the order of the sum is fixed
        total += weights[:, place, None] * neighbours[:, place]
    norms = np.sqrt((total**2).sum(1, keepdims=True))
    if not (norms > 0).all():
        row = int(np.flatnonzero(norms[:, 0] == 0)[0])
        raise OpenIliasError(f"Query {row} and its neighbours cancel out.", fix="Take more neighbours, or fewer.")
    made: npt.NDArray[np.float32] = (total / norms).astype(np.float32)
    return made


def expanded(
    queries: npt.NDArray[np.floating],
    first: Ranking,
    base: Database,
    expand: Expand,
    origin: Mapping[str, Any],
) -> npt.NDArray[np.float32]:
    """Return the queries of a second search.

    Args:
        queries: (Q, D), in the order of the ranking.
        first: what they found in the database, with canonical rows.
        base: the database.
        expand: how many neighbours, and their weights.
        origin: what made the descriptors. Of adapted ones the official code loses the weights (FORMATS.md, 3): so does
            ``compat: official``.

    Raises:
        OpenIliasError: the ranking is not of this database, or a neighbour is not as it was when it was found.
    """
    if first.db_rows is None:
        raise OpenIliasError("This ranking does not say where in the database its images are.")
    rows = first.rows[:, : expand.n]
    scores = first.scores[:, : expand.n]
    wanted = np.unique(rows[rows != ABSENT])
    found = list(picked(base.shards, first.db_rows[wanted])) if len(wanted) else []
    known = np.concatenate(found) if found else np.zeros((1, queries.shape[1]))
    places = np.where(rows == ABSENT, 0, np.searchsorted(wanted, rows)) if len(wanted) else np.zeros_like(rows)
    asked = np.repeat(np.arange(len(rows)), (rows != ABSENT).sum(1))
    again = pair_scores(queries[asked], known[places[rows != ABSENT]])
    changed = np.flatnonzero(again != scores[rows != ABSENT])
    if len(changed):
        raise OpenIliasError(
            f"The descriptor of {first.db_ids[rows[rows != ABSENT][changed[0]]]} is not as it was when it was found.",
            fix="Check the stores, and search again.",
        )
    official = origin.get("protocol", {}).get("compat") == "official" and "adaptation" in origin
    return expand_vectors(queries, known[places], scores, 0.0 if official else expand.alpha)
