"""From a ranking and a benchmark to mAP@k, per query and by groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError, first_few
from openilias.core.ids import object_of
from openilias.core.protocol import Compat, Protocol
from openilias.data import Benchmark
from openilias.evaluate.groups import CLUTTER_EDGES, COVERAGE_EDGES, Group, by_attribute, by_category
from openilias.evaluate.hits import Hits
from openilias.search.ranking import Ranking

ALGORITHM_VERSION = 2

Attribute = Literal["coverage", "clutter"]


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
    hits = Hits(ranking, benchmark, counted, protocol.k)
    ap = hits.average_precision()
    best = hits.oracle(official=official)
    ranks = hits.ranks()
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
        categories=by_category(queries, {name: benchmark.taxonomy.coarse(name) for name in objects}),
        mid_categories=by_category(queries, {name: benchmark.taxonomy.mid(name) for name in objects}),
        coverage=by_attribute(hits, values_of(benchmark, "coverage"), COVERAGE_EDGES),
        clutter=by_attribute(hits, values_of(benchmark, "clutter"), CLUTTER_EDGES),
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


def values_of(benchmark: Benchmark, attribute: Attribute) -> npt.NDArray[np.float64]:
    """Return an attribute of all positives in order, (P,); NaN where it is not known."""
    values = (getattr(benchmark.attributes[item], attribute) for item in benchmark.positives)
    return np.array([np.nan if value is None else value for value in values], np.float64)
