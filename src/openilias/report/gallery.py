"""The gallery: which queries and images are shown, where their pictures are, and their thumbnails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from openilias.core.ids import object_of
from openilias.data import Benchmark
from openilias.evaluate.evaluation import Evaluation, QueryResult
from openilias.report.pictures import Images, Picture, Pictures, asked_of, pictures_of
from openilias.search.ranking import Ranking

POSITIVES_EACH = 4
NEGATIVES = 6

Kind = Literal["query", "positive", "negative"]


@dataclass(frozen=True)
class Shown:
    """A picture in its frame.

    ``rank`` is None where it is not in the list; ``other`` is the object it belongs to when that is not the
    one asked for.
    """

    kind: Kind
    picture: Picture
    rank: int | None = None
    score: float | None = None
    other: str | None = None


@dataclass(frozen=True)
class Entry:
    """One query with its best- and worst-ranked positives and its hardest negatives."""

    result: QueryResult
    text: str | None
    query: Shown
    best: tuple[Shown, ...]
    worst: tuple[Shown, ...]
    negatives: tuple[Shown, ...]


@dataclass(frozen=True)
class Part:
    """Some entries under one title."""

    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Gallery:
    """What is shown, of how many pictures, and the ids of those with a problem."""

    parts: tuple[Part, ...]
    pictures: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """The ids of one entry, before any picture is looked at."""

    result: QueryResult
    best: tuple[tuple[str, int | None], ...]
    worst: tuple[tuple[str, int | None], ...]
    negatives: tuple[tuple[str, int], ...]
    scores: Mapping[int, float]


def select_queries(evaluation: Evaluation, most: int) -> list[tuple[str, list[QueryResult]]]:
    """Choose the queries of the gallery: the worst, the middling and the best by AP, in equal parts.

    Queries that were not answered have nothing to show. Equal APs are in the order of their ids.

    Args:
        evaluation: the result.
        most: how many; all if there are no more than that.

    Returns:
        Titled parts, each sorted by rising AP.
    """
    ordered = sorted((q for q in evaluation.queries if q.answered), key=lambda q: (q.ap, q.query_id))
    most = max(most, 0)
    if len(ordered) <= most:
        return [("All queries, worst first", ordered)] if ordered else []
    low = -(-most // 3)
    high = -(-(most - low) // 2)
    middle = most - low - high
    start = (len(ordered) - middle) // 2
    parts = [
        ("Worst queries", ordered[:low]),
        ("Middling queries, around the median", ordered[start : start + middle]),
        ("Best queries", ordered[len(ordered) - high :]),
    ]
    return [(title, queries) for title, queries in parts if queries]


def make_gallery(
    benchmark: Benchmark, ranking: Ranking, evaluation: Evaluation, images: Images, *, queries: int
) -> Gallery:
    """Choose what is shown and write the thumbnails.

    Args:
        benchmark: where the pictures are.
        ranking: where the negatives and the scores are.
        evaluation: where the ranks of the positives are.
        images: where the thumbnails go.
        queries: how many entries there may be.
    """
    chosen = select_queries(evaluation, queries)
    rows = {item: row for row, item in enumerate(ranking.query_ids)}
    plans = {q.query_id: _plan(q, ranking, rows[q.query_id], evaluation.protocol.k) for _, part in chosen for q in part}
    shown = {item for p in plans.values() for item, _ in (*p.best, *p.worst, *p.negatives)}
    pictures = pictures_of(benchmark, {*plans, *shown}, images)
    texts = set(benchmark.text_queries)
    parts = tuple(
        Part(title, tuple(_entry(plans[q.query_id], pictures, is_text=q.query_id in texts) for q in part))
        for title, part in chosen
    )
    problems = tuple(sorted(item for item, picture in pictures.done.items() if picture.problem is not None))
    return Gallery(parts, len(pictures.done), problems)


def _plan(result: QueryResult, ranking: Ranking, row: int, k: int) -> _Plan:
    ordered = sorted(
        zip(result.positives, result.ranks, strict=True),
        key=lambda pair: (pair[1] is None, pair[1] or 0, pair[0]),
    )
    worst = ordered[max(POSITIVES_EACH, len(ordered) - POSITIVES_EACH) :]
    negatives: list[tuple[str, int]] = []
    own = set(result.positives)
    for rank, place in enumerate(ranking.rows[row, :k].tolist(), start=1):
        if len(negatives) == NEGATIVES or place < 0:
            break
        if ranking.db_ids[place] not in own:
            negatives.append((ranking.db_ids[place], rank))
    best = tuple(ordered[:POSITIVES_EACH])
    ranks = [rank for _, rank in (*best, *worst, *negatives) if rank is not None]
    scores = {rank: float(ranking.scores[row, rank - 1]) for rank in ranks}
    return _Plan(result, best, tuple(worst), tuple(negatives), scores)


def _entry(plan: _Plan, pictures: Pictures, *, is_text: bool) -> Entry:
    def shown(kind: Kind, item: str, rank: int | None) -> Shown:
        owner = object_of(item)
        other = owner if kind == "negative" and item in relevance.get(owner, ()) else None
        score = None if rank is None else plan.scores[rank]
        return Shown(kind, pictures.of(item), rank, score, other)

    relevance = pictures.benchmark.relevance
    text, query = asked_of(plan.result.query_id, pictures, is_text=is_text)
    return Entry(
        plan.result,
        text,
        Shown("query", query),
        tuple(shown("positive", item, rank) for item, rank in plan.best),
        tuple(shown("positive", item, rank) for item, rank in plan.worst),
        tuple(shown("negative", item, rank) for item, rank in plan.negatives),
    )
