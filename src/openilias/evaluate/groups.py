"""mAP@k by groups of objects and of positives (paper, sections 5.3 and B.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from openilias.evaluate.hits import Hits

if TYPE_CHECKING:
    from openilias.evaluate.evaluation import QueryResult

COVERAGE_EDGES = (0.0, 0.06880213760855043, 0.13526567164179104, 0.2729876723163842, float("inf"))
CLUTTER_EDGES = (0.0, 18.0, 33.0, 53.0, float("inf"))
RANK_EDGES = (0, 10, 100, 1000)
"""Ranges of ranks of Fig. E: above the first edge up to the next one; what is further down is the last range."""


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


def by_category(queries: Sequence[QueryResult], of: Mapping[str, str | None]) -> tuple[Group, ...]:
    """Return the groups by category: the mean over the queries of an object first, then over objects.

    Args:
        queries: with their APs.
        of: object -> category; None leaves it out.
    """
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


def by_attribute(hits: Hits, values: npt.NDArray[np.float64], edges: Sequence[float]) -> tuple[Group, ...]:
    """Return the groups by an attribute of positives: those outside a group are taken out of the lists.

    Args:
        hits: of the queries.
        values: (P,) of the positives in the order of ``hits.ids``; NaN where it is not known.
        edges: of the groups, each from one on and below the next.

    Returns:
        One less than edges; none if no value is known. Queries without a positive in a group are left out of it.
    """
    if np.isnan(values).all():
        return ()
    groups = []
    for low, high in pairwise(edges):
        ap, positives = hits.within((low <= values) & (values < high))
        groups.append(Group(f"{low:g}-{high:g}", float(ap.mean()) if len(ap) else None, len(ap), positives))
    return tuple(groups)


def quartile_edges(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Return edges of four groups of equally many values, but for ties; of fewer, where quartiles are equal.

    Args:
        values: (P,); NaN is not counted.
    """
    known = values[~np.isnan(values)]
    inner = np.unique(np.quantile(known, (0.25, 0.5, 0.75))).tolist() if len(known) else []
    least = float(known.min()) if len(known) else 0.0
    return (min(0.0, least), *(edge for edge in inner if edge > least), float("inf"))


def rank_table(
    queries: Sequence[QueryResult],
    values: Mapping[str, float],
    edges: Sequence[float],
    ranks: Sequence[int] = RANK_EDGES,
) -> npt.NDArray[np.int64]:
    """Count the positives of a group in each range of ranks (paper, Fig. E).

    Args:
        queries: with the ranks of their positives.
        values: positive -> attribute; others are not counted.
        edges: of the groups, each from one on and below the next.
        ranks: edges of the ranges: above one, up to the next.

    Returns:
        (ranges, groups) pairs of a query and a positive; the last range holds all that are further down, or not in
        the list.
    """
    counts = np.zeros((len(ranks), len(edges) - 1), np.int64)
    for query in queries:
        for positive, rank in zip(query.positives, query.ranks, strict=True):
            if positive in values:
                group = int(np.searchsorted(edges, values[positive], side="right")) - 1
                place = len(ranks) - 1 if rank is None else int(np.searchsorted(ranks, rank, side="left")) - 1
                if 0 <= group < counts.shape[1]:
                    counts[min(place, len(ranks) - 1), group] += 1
    return counts
