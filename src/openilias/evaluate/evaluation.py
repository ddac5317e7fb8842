"""From a ranking and a benchmark to mAP@k, per query and by groups."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, repeat
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.ids import object_of
from openilias.core.protocol import Compat, Protocol
from openilias.data import Benchmark
from openilias.evaluate.metrics import average_precision_of_hits, block_ends, ends_without, oracle
from openilias.search.ranking import ABSENT, Ranking

ALGORITHM_VERSION = 2

COVERAGE_EDGES = (0.0, 0.06880213760855043, 0.13526567164179104, 0.2729876723163842, float("inf"))
CLUTTER_EDGES = (0.0, 18.0, 33.0, 53.0, float("inf"))


@dataclass(frozen=True)
class QueryResult:
    """One query: AP@k and oracle in [0, 1], and where its positives ended up.

    ``ranks`` is aligned with ``positives`` (ids); None means not among the first k.
    """

    query_id: str
    object: str
    ap: float
    oracle: float
    positives: tuple[str, ...]
    ranks: tuple[int | None, ...]
    answered: bool = True

    @property
    def hits(self) -> int:
        """How many positives are among the first k."""
        return sum(rank is not None for rank in self.ranks)


@dataclass(frozen=True)
class Group:
    """mAP@k over a group of positives or of objects.

    ``size`` counts the objects of a category, the queries of a coverage or clutter group; an empty group has no
    mAP.
    """

    name: str
    map: float | None
    size: int
    positives: int


@dataclass(frozen=True)
class Evaluation:
    """Immutable result.

    Attributes:
        queries: sorted by id.
        map: mean of the APs, in [0, 1].
        oracle: mean of the oracles.
        categories: by coarse category.
        mid_categories: by ``coarse/mid``.
        coverage: four groups of area coverage; empty if no positive has any.
        clutter: four groups of background clutter; empty if no positive has any.
        missing: queries of the benchmark that the ranking does not answer.
        uncategorised: objects asked for that the taxonomy does not name.
        unsearched: shards of the benchmark that were left out of the search, if that was allowed.
        protocol: all that the numbers depend on; of an official file only ``k`` is known.
        described: whether the protocol says how the descriptors were made (official files do not).
        compat: how it was evaluated.
        depth: length of the longest list.
    """

    queries: tuple[QueryResult, ...]
    map: float
    oracle: float
    categories: tuple[Group, ...]
    mid_categories: tuple[Group, ...]
    coverage: tuple[Group, ...]
    clutter: tuple[Group, ...]
    missing: tuple[str, ...]
    uncategorised: int
    protocol: Protocol
    compat: Compat
    depth: int
    described: bool = True
    unsearched: tuple[str, ...] = ()


def evaluate(
    ranking: Ranking,
    benchmark: Benchmark,
    protocol: Protocol,
    *,
    compat: Compat | None = None,
    allow_missing: bool = False,
    trusted: bool = False,
) -> Evaluation:
    """Evaluate a ranking.

    The queries are the image queries, the text queries, or both: all of each kind of which the ranking answers
    at least one.

    Args:
        ranking: of any depth; looked at down to ``protocol.k``.
        benchmark: what it was searched in.
        protocol: its k is used.
        compat: how to evaluate; as the protocol says by default.
        allow_missing: count queries that are not answered as zero (compat ``official``: leave them out).
        trusted: the database ids are known to be the benchmark's, do not check them.

    Raises:
        OpenIliasError: queries are missing or unknown, or database ids are unknown.
    """
    asked = _asked(ranking, benchmark)
    absent = set(asked) - set(ranking.query_ids)
    missing = tuple(sorted(absent))
    compat = compat or protocol.compat
    official = compat == "official"
    if missing and not allow_missing:
        raise OpenIliasError(
            f"{len(missing)} of {len(asked)} queries are not answered: {first_few(list(missing))}.",
            fix="Search them too, or count them as zero with --allow-missing.",
        )
    if not trusted:
        unknown = benchmark.unknown(ranking.db_ids)
        if unknown:
            raise OpenIliasError(
                f"{len(unknown)} database ids are not of this benchmark: {first_few(unknown)}.",
                where=benchmark.root,
                fix="Evaluate with the benchmark that was searched.",
            )
    counted = [item for item in asked if not (official and item in absent)]
    lists = _Lists(ranking, benchmark, counted, protocol.k)
    ap = lists.average_precision()
    best = lists.oracle(official=official)
    ranks = lists.ranks()
    queries = tuple(
        QueryResult(
            item,
            object_of(item),
            float(ap[row]),
            float(best[row]),
            benchmark.relevance[object_of(item)],
            tuple(map(ranks[row].get, benchmark.relevance[object_of(item)])),
            item not in absent,
        )
        for row, item in enumerate(counted)
    )
    objects = {query.object for query in queries}
    return Evaluation(
        queries=queries,
        map=float(ap.mean()),
        oracle=float(best.mean()),
        categories=_by_category(queries, {name: benchmark.taxonomy.coarse(name) for name in objects}),
        mid_categories=_by_category(queries, {name: benchmark.taxonomy.mid(name) for name in objects}),
        coverage=_by_attribute(lists, {i: a.coverage for i, a in benchmark.attributes.items()}, COVERAGE_EDGES),
        clutter=_by_attribute(lists, {i: a.clutter for i, a in benchmark.attributes.items()}, CLUTTER_EDGES),
        missing=missing,
        uncategorised=sum(benchmark.taxonomy.coarse(name) is None for name in objects),
        protocol=protocol,
        compat=compat,
        depth=int(ranking.rows.shape[1]),
    )


def _asked(ranking: Ranking, benchmark: Benchmark) -> list[str]:
    answered = set(ranking.query_ids)
    kinds = (benchmark.image_queries, benchmark.text_queries)
    unknown = sorted(answered - set(kinds[0]) - set(kinds[1]))
    if unknown:
        raise OpenIliasError(
            f"{len(unknown)} queries of this ranking are not of this benchmark: {first_few(unknown)}.",
            where=benchmark.root,
            fix="Evaluate with the benchmark that was searched.",
        )
    asked = sorted(item for kind in kinds if answered & set(kind) for item in kind)
    if not asked:
        raise OpenIliasError("This ranking answers no query.", fix="Search again.")
    return asked


class _Lists:
    """The hits of the counted queries, and what else their metrics need of their lists.

    Attributes:
        query: (H,) the query of each hit, rising.
        rank: (H,) its rank, from 1; rising within a query.
        end: (H,) the rank at which its block of equal scores ends.
        positive: (H,) number of the positive, as the benchmark has them.
        positives: (Q,) of each query.
        lengths: (Q,) of the lists, down to k.
    """

    def __init__(self, ranking: Ranking, benchmark: Benchmark, queries: list[str], k: int) -> None:
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
        return average_precision_of_hits(self.query, self.end, self.positives, k=self.k)

    def oracle(self, *, official: bool) -> npt.NDArray[np.float64]:
        hits = np.bincount(self.query, minlength=len(self.positives))
        return oracle(hits, self.lengths, self.positives, k=self.k, official=official)

    def ranks(self) -> list[dict[str, int]]:
        """Of each query the ranks of its positives that are in the list."""
        found: list[dict[str, int]] = [{} for _ in self.positives]
        for query, positive, rank in zip(self.query.tolist(), self.positive.tolist(), self.rank.tolist(), strict=True):
            found[query][self.ids[positive]] = rank
        return found

    def within(self, members: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], int]:
        """AP of the queries that have positives in a group, other positives removed; and how many positives.

        Args:
            members: (P,) of the positives, whether they are of the group.
        """
        inside = np.bincount(self.owner[members], minlength=int(self.asked.max(initial=0)) + 1)[self.asked]
        outside = ~members[self.positive]
        ends = ends_without(self.query, self.end, outside)
        some = inside > 0
        ap = average_precision_of_hits(self.query[~outside], ends, np.maximum(inside, 1), k=self.k)[some]
        return ap, int(members[np.isin(self.owner, self.asked)].sum())


def _by_category(queries: tuple[QueryResult, ...], of: dict[str, str | None]) -> tuple[Group, ...]:
    by_object: dict[str, list[float]] = {}
    positives: dict[str, int] = {}
    for query in queries:
        by_object.setdefault(query.object, []).append(query.ap)
        positives[query.object] = len(query.positives)
    groups: dict[str, list[str]] = {}
    for name in sorted(by_object):
        category = of[name]
        if category is not None:
            groups.setdefault(category, []).append(name)
    return tuple(
        Group(
            category,
            fmean(fmean(by_object[name]) for name in names),
            len(names),
            sum(positives[name] for name in names),
        )
        for category, names in sorted(groups.items())
    )


def _by_attribute(lists: _Lists, values: dict[str, Any], edges: tuple[float, ...]) -> tuple[Group, ...]:
    known = np.array([np.nan if values.get(item) is None else values[item] for item in lists.ids], np.float64)
    if np.isnan(known).all():
        return ()
    groups = []
    for low, high in pairwise(edges):
        ap, positives = lists.within((low <= known) & (known < high))
        groups.append(Group(f"{low:g}-{high:g}", float(ap.mean()) if len(ap) else None, len(ap), positives))
    return tuple(groups)
