"""mAP against the number of distractors, and in chosen parts of the database, from one ranking (Fig. C, Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.core.ids import object_of
from openilias.data import Benchmark
from openilias.evaluate.subsets import Floats, Within, average_precision_within, shuffled
from openilias.search.ranking import Ranking


@dataclass(frozen=True, eq=False)
class Curve:
    """mAP of S numbers of distractors, each in R random subsets; those of one seed are nested.

    Attributes:
        sizes: (S,) distractors.
        low: (S, R) the least that mAP can be, in [0, 1].
        high: (S, R) the most; equal where the lists settle it.
    """

    sizes: tuple[int, ...]
    low: Floats
    high: Floats

    @property
    def settled(self) -> npt.NDArray[np.bool_]:
        """(S,) whether the depth of the lists suffices."""
        return np.asarray((self.low == self.high).all(axis=1))

    @property
    def mean(self) -> Floats:
        """(S,) over the subsets, midway between what mAP can be."""
        return np.asarray((self.low + self.high).mean(axis=1) / 2)

    @property
    def std(self) -> Floats:
        """(S,) over the subsets; 0 of one."""
        spread = (self.low + self.high) / 2
        return np.asarray(spread.std(axis=1, ddof=1) if spread.shape[1] > 1 else np.zeros(len(spread)))


@dataclass(frozen=True, eq=False)
class Numbered:
    """A ranking with its distractors numbered.

    Attributes:
        ranking: as it is.
        number: (D,) of each database id from 0, -1 of a positive.
        total: distractors that were searched.
        relevant: (Q, n) positives of the query.
        positives: (Q,) in the database.
        whole: (Q,) the list holds all that was searched.
    """

    ranking: Ranking
    number: npt.NDArray[np.int64]
    total: int
    relevant: npt.NDArray[np.bool_]
    positives: npt.NDArray[np.int64]
    whole: npt.NDArray[np.bool_]


def curve_sizes(total: int) -> tuple[int, ...]:
    """Return 0, 1, 2 and 5 times the powers of ten from 100 on, and all."""
    powers = (step * 10**power for power in range(2, 10) for step in (1, 2, 5))
    return (0, *(size for size in powers if size < total), total) if total else (0,)


def numbered(ranking: Ranking, benchmark: Benchmark, *, positives: int, distractors: int) -> Numbered:
    """Number the distractors of a ranking by their rows in the database.

    Args:
        ranking: with its ``db_rows``: as :func:`openilias.search.stores.search_to` writes it.
        benchmark: that was searched.
        positives: that were searched.
        distractors: likewise.

    Raises:
        OpenIliasError: the ranking does not know its rows, or they are not those of a whole database.
    """
    if ranking.db_rows is None:
        raise OpenIliasError(
            "This ranking does not say which rows of the database it lists.",
            fix="Search with ilias search; official files and ensembles do not say.",
        )
    index = {item: place for place, item in enumerate(benchmark.positives)}
    own = np.array([index.get(item, -1) for item in ranking.db_ids], np.int64)
    number = np.where(own >= 0, -1, ranking.db_rows - positives)
    if (ranking.db_rows[own >= 0] >= positives).any() or (number[own < 0] < 0).any():
        raise OpenIliasError(f"The first {positives:,} rows that were searched are not the positives.")
    if (number >= distractors).any():
        raise OpenIliasError(f"A row of this ranking is not of a database of {distractors:,} distractors.")
    names = {name: place for place, name in enumerate(benchmark.relevance)}
    owner = np.array([names[object_of(item)] for item in benchmark.positives], np.int64)
    asked = np.array([names.get(object_of(item), -1) for item in ranking.query_ids], np.int64)
    positive = np.append(own, -1)[ranking.rows]  # the last place is that of what pads short lists
    relevant = (positive >= 0) & (np.append(owner, -2)[positive] == asked[:, None])
    counts = np.bincount(owner, minlength=len(names))[asked]
    return Numbered(ranking, number, distractors, relevant, counts, ranking.lengths >= positives + distractors)


def distractor_curve(found: Numbered, sizes: Sequence[int], *, seeds: Sequence[int] = (0, 1, 2), k: int) -> Curve:
    """Return mAP of random subsets of the distractors: all positives, and so many of them.

    Args:
        found: the ranking.
        sizes: of the subsets.
        seeds: each of its own order of the distractors, of which a subset is the first part.
        k: cut.
    """
    low, high = (np.empty((len(sizes), len(seeds))) for _ in range(2))
    for column, seed in enumerate(seeds):
        order = np.full(len(found.number), -1, np.int64)
        distractor = found.number >= 0
        if found.total:
            order[distractor] = shuffled(found.number[distractor], found.total, seed=seed)
        for row, size in enumerate(sizes):
            within = _within(found, order >= size, k)
            low[row, column], high[row, column] = within.low.mean(), within.high.mean()
    return Curve(tuple(sizes), low, high)


def within_members(found: Numbered, members: npt.NDArray[np.bool_], *, k: int) -> Within:
    """Return the APs with only some of the distractors.

    Args:
        found: the ranking.
        members: (D,) of the database ids, which are kept; positives always are.
        k: cut.
    """
    return _within(found, ~members & (found.number >= 0), k)


def _within(found: Numbered, outside: npt.NDArray[np.bool_], k: int) -> Within:
    ranking = found.ranking
    gone = np.append(outside, False)[ranking.rows]
    return average_precision_within(ranking.scores, found.relevant, gone, found.positives, k=k, whole=found.whole)


def equivalent_size(curve: Curve, value: float) -> float | None:
    """Return how many random distractors are as hard: where the curve falls to a mAP, on a logarithmic scale.

    Args:
        curve: of sizes that rise.
        value: mAP in [0, 1].

    Returns:
        None if the curve does not pass it above size 0.
    """
    sizes, means = np.array(curve.sizes, float), curve.mean
    for place in range(1, len(sizes)):
        first, second = means[place - 1], means[place]
        if first >= value >= second and first > second and sizes[place - 1] > 0:
            share = (first - value) / (first - second)
            return float(np.exp((1 - share) * np.log(sizes[place - 1]) + share * np.log(sizes[place])))
    return None
