"""What figures need of a ranking, computed while it is at hand and small afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from openilias.core.errors import OpenIliasError
from openilias.data import Benchmark
from openilias.evaluate.distractors import Curve, Numbered, curve_sizes, distractor_curve, numbered, within_members
from openilias.evaluate.evaluation import Attribute, Evaluation, values_of
from openilias.evaluate.groups import Group, by_attribute, quartile_edges
from openilias.evaluate.hits import Hits
from openilias.report.figures.database import MiniSet
from openilias.report.figures.sheets import Moved
from openilias.search.ranking import ABSENT, Ranking
from openilias.search.restriction import IdList

ATTRIBUTES: tuple[Attribute, ...] = ("coverage", "clutter")
SHOWN = 10
"""First images of each list that are kept by name."""


@dataclass(frozen=True, eq=False)
class Derived:
    """What was computed from one ranking.

    Attributes:
        quartiles: attribute -> groups between the quartiles of the benchmark's positives.
        curve: mAP against the number of distractors; None where the ranking does not say its rows.
        mini: with a chosen set of distractors; None without.
        first: query -> ids and scores of the first images.
        moved: queries that gain most where it was re-ranked, with the positive that rises most.
        why: what could not be computed, and why.
    """

    quartiles: Mapping[Attribute, tuple[Group, ...]] = field(default_factory=dict)
    curve: Curve | None = None
    mini: MiniSet | None = None
    first: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    moved: tuple[Moved, ...] = ()
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Searched:
    """What a ranking was searched in: how many positives and distractors; None where that is not known.

    ``why`` says why a list without some of its images is not that of a search without them, if it is not.
    """

    positives: int | None
    distractors: int | None
    why: str | None = None


@dataclass(frozen=True, eq=False)
class Chosen:
    """A set of distractors, as the official list of mini-ILIAS, and how many of them the database holds."""

    ids: IdList
    size: int


def edges_of(benchmark: Benchmark) -> dict[Attribute, tuple[float, ...]]:
    """Return the quartile edges of each attribute that is known."""
    found = {attribute: values_of(benchmark, attribute) for attribute in ATTRIBUTES}
    return {attribute: quartile_edges(values) for attribute, values in found.items() if not np.isnan(values).all()}


def derive(
    name: str,
    ranking: Ranking,
    evaluation: Evaluation,
    benchmark: Benchmark,
    searched: Searched,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    chosen: Chosen | None = None,
) -> Derived:
    """Compute what figures need of a ranking.

    Args:
        name: of the model.
        ranking: that was evaluated.
        evaluation: of it.
        benchmark: that was searched.
        searched: how much of it.
        seeds: of the random subsets of distractors.
        chosen: a smaller set of distractors.
    """
    k = evaluation.protocol.k
    hits = Hits(ranking, benchmark, [query.query_id for query in evaluation.queries], k)
    quartiles = {
        attribute: by_attribute(hits, values_of(benchmark, attribute), edges)
        for attribute, edges in edges_of(benchmark).items()
    }
    why: list[str] = []
    curve, mini = None, None
    try:
        found = _numbered(ranking, benchmark, searched)
        curve = distractor_curve(found, curve_sizes(found.total), seeds=seeds, k=k)
        mini = None if chosen is None else _mini(name, found, evaluation, chosen, seeds)
    except OpenIliasError as error:
        why.append(f"{name}: no curve over the number of distractors. {error.what}")
    return Derived(quartiles, curve, mini, first_images(ranking), why=tuple(why))


def _numbered(ranking: Ranking, benchmark: Benchmark, searched: Searched) -> Numbered:
    if searched.why is not None:
        raise OpenIliasError(searched.why)
    if searched.positives is None or searched.distractors is None:
        raise OpenIliasError("The ranking does not say how many images were searched.")
    return numbered(ranking, benchmark, positives=searched.positives, distractors=searched.distractors)


def _mini(name: str, found: Numbered, evaluation: Evaluation, chosen: Chosen, seeds: Sequence[int]) -> MiniSet | None:
    members = members_of(found.ranking.db_ids, chosen.ids)
    size = chosen.size
    if not 0 < size < found.total:
        return None
    k = evaluation.protocol.k
    within = within_members(found, members, k=k)
    sizes = sorted({*curve_sizes(found.total), size})
    curve = distractor_curve(found, sizes, seeds=seeds, k=k)
    return MiniSet(name, evaluation.map, size, (float(within.low.mean()), float(within.high.mean())), curve)


def members_of(ids: Sequence[str], chosen: IdList) -> npt.NDArray[np.bool_]:
    """Return which of these database ids a list of distractors names."""
    names = np.array([item.encode() for item in ids], np.bytes_)
    return chosen.members(names, "distractors")


def first_images(ranking: Ranking, most: int = SHOWN) -> dict[str, tuple[tuple[str, float], ...]]:
    """Return the first images of every list, with their scores."""
    return {
        query: tuple(
            (ranking.db_ids[row], float(score))
            for row, score in zip(ranking.rows[n, :most].tolist(), ranking.scores[n, :most].tolist(), strict=True)
            if row != ABSENT
        )
        for n, query in enumerate(ranking.query_ids)
    }
