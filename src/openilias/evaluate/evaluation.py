"""From a ranking and a benchmark to mAP@k, per query and by groups."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.ids import object_of
from openilias.core.protocol import Compat, Protocol
from openilias.data import Benchmark
from openilias.evaluate.metrics import average_precision, oracle, without
from openilias.search.ranking import ABSENT, Ranking

ALGORITHM_VERSION = 1

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
    best = oracle(lists.relevant, lists.lengths, lists.positives, k=protocol.k, official=official)
    queries = tuple(
        QueryResult(
            item,
            object_of(item),
            float(ap[row]),
            float(best[row]),
            benchmark.relevance[object_of(item)],
            lists.ranks(row, benchmark.relevance[object_of(item)]),
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
    """The lists of the counted queries as arrays: what is relevant, and which database image stands where."""

    def __init__(self, ranking: Ranking, benchmark: Benchmark, queries: list[str], k: int) -> None:
        place = {item: row for row, item in enumerate(ranking.query_ids)}
        width = min(k, ranking.rows.shape[1])
        self.k = k
        self.rows = np.full((len(queries), width), ABSENT, np.int64)
        self.scores = np.full((len(queries), width), -np.inf, ranking.scores.dtype)
        for row, item in enumerate(queries):
            if item in place:
                self.rows[row] = ranking.rows[place[item], :width]
                self.scores[row] = ranking.scores[place[item], :width]
        self.db_ids = ranking.db_ids
        self.db_place = {item: row for row, item in enumerate(ranking.db_ids)}
        self.objects = [object_of(item) for item in queries]
        self.relevance = {name: benchmark.relevance[name] for name in set(self.objects)}
        self.positives = np.array([len(self.relevance[name]) for name in self.objects], np.int64)
        self.lengths = (self.rows != ABSENT).sum(axis=1)
        self.relevant = self._standing(lambda item: True)

    def _standing(self, wanted: Any) -> npt.NDArray[np.bool_]:
        """(Q, n): a positive of the query stands there and is wanted."""
        marks = np.zeros(self.rows.shape, bool)
        for row, name in enumerate(self.objects):
            places = [self.db_place[i] for i in self.relevance[name] if i in self.db_place and wanted(i)]
            marks[row] = np.isin(self.rows[row], places)
        return marks

    def average_precision(self) -> npt.NDArray[np.float64]:
        return average_precision(self.scores, self.relevant, self.positives, k=self.k)

    def ranks(self, row: int, positives: tuple[str, ...]) -> tuple[int | None, ...]:
        at = {int(db): rank for rank, db in enumerate(self.rows[row], start=1) if db != ABSENT}
        return tuple(at.get(self.db_place.get(item, -2)) for item in positives)

    def within(self, group: set[str]) -> tuple[npt.NDArray[np.float64], int]:
        """AP of the queries that have positives in the group, other positives removed; and how many positives."""
        inside = np.array([sum(i in group for i in self.relevance[name]) for name in self.objects], np.int64)
        outside = self._standing(lambda item: item not in group)
        scores, relevant = without(self.scores, self.relevant, outside)
        rows = inside > 0
        ap = average_precision(scores[rows], relevant[rows], inside[rows], k=self.k)
        positives = sum(i in group for items in self.relevance.values() for i in items)
        return ap, positives


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
            float(np.mean([np.mean(by_object[name]) for name in names])),
            len(names),
            sum(positives[name] for name in names),
        )
        for category, names in sorted(groups.items())
    )


def _by_attribute(lists: _Lists, values: dict[str, Any], edges: tuple[float, ...]) -> tuple[Group, ...]:
    known = {item: value for item, value in values.items() if value is not None}
    if not known:
        return ()
    groups = []
    for low, high in pairwise(edges):
        members = {item for item, value in known.items() if low <= value < high}
        ap, positives = lists.within(members)
        groups.append(Group(f"{low:g}-{high:g}", float(ap.mean()) if len(ap) else None, len(ap), positives))
    return tuple(groups)
