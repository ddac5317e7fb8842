"""Where the positives of every query stand: all that the metrics need of a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt

from openilias.core.ids import object_of
from openilias.data import Benchmark
from openilias.evaluate.metrics import average_precision_of_hits, block_ends, ends_without, oracle
from openilias.search.ranking import ABSENT, Ranking


class Hits:
    """The hits of Q queries among the first k of their lists, and what else their metrics need.

    Attributes:
        query: (H,) the query of each hit, rising.
        rank: (H,) its rank, from 1; rising within a query.
        end: (H,) the rank at which its block of equal scores ends.
        positive: (H,) number of the positive, as the benchmark has them.
        positives: (Q,) of each query.
        lengths: (Q,) of the lists, down to k.
    """

    def __init__(self, ranking: Ranking, benchmark: Benchmark, queries: Sequence[str], k: int) -> None:
        place = {item: row for row, item in enumerate(ranking.query_ids)}
        number = {item: place for place, item in enumerate(benchmark.positives)}
        objects = {name: place for place, name in enumerate(benchmark.relevance)}
        self.k = k
        self.ids = benchmark.positives
        self.asked = np.array([objects[object_of(item)] for item in queries], np.int64)
        self.owner = np.array([objects[object_of(item)] for item in benchmark.positives], np.int64)
        self.positives = np.bincount(self.owner, minlength=len(objects))[self.asked].astype(np.int64)
        # The last place is that of what pads short lists.
        known = np.array([*map(number.get, ranking.db_ids, repeat(-1)), -1], np.int64)
        given = np.array([place.get(item, -1) for item in queries], np.int64)
        there = given >= 0
        rows, scores = ranking.rows[given[there], :k], ranking.scores[given[there], :k]
        self.lengths = np.zeros(len(queries), np.int64)
        self.lengths[there] = (rows != ABSENT).sum(axis=1)
        standing = known[rows]
        own = (standing >= 0) & (self.owner[standing] == self.asked[there][:, None])
        row, column = np.nonzero(own)
        self.query, self.rank = np.flatnonzero(there)[row], column + 1
        self.end = block_ends(scores)[row, column].astype(np.int64)
        self.positive = standing[row, column]

    def average_precision(self) -> npt.NDArray[np.float64]:
        """Return (Q,) AP@k."""
        return average_precision_of_hits(self.query, self.end, self.positives, k=self.k)

    def oracle(self, *, official: bool = False) -> npt.NDArray[np.float64]:
        """Return (Q,) what a perfect re-ranking of the first k reaches."""
        hits = np.bincount(self.query, minlength=len(self.positives))
        return oracle(hits, self.lengths, self.positives, k=self.k, official=official)

    def ranks(self) -> list[dict[str, int]]:
        """Return of each query the ranks of its positives that are in the list."""
        found: list[dict[str, int]] = [{} for _ in self.positives]
        for query, positive, rank in zip(self.query.tolist(), self.positive.tolist(), self.rank.tolist(), strict=True):
            found[query][self.ids[positive]] = rank
        return found

    def within(self, members: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], int]:
        """Return the AP of the queries that have positives in a group, other positives removed; and how many positives.

        Args:
            members: (P,) of the positives, whether they are of the group.
        """
        inside = np.bincount(self.owner[members], minlength=int(self.asked.max(initial=0)) + 1)[self.asked]
        outside = ~members[self.positive]
        ends = ends_without(self.query, self.end, outside)
        some = inside > 0
        ap = average_precision_of_hits(self.query[~outside], ends, np.maximum(inside, 1), k=self.k)[some]
        return ap, int(members[np.isin(self.owner, self.asked)].sum())
