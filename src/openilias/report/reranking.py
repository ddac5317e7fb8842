"""What re-ranking did: before and after, and the queries that gain and lose most with their matches (Fig. J)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.data import Benchmark, Item
from openilias.evaluate.evaluation import Evaluation, QueryResult
from openilias.images.decode import decode
from openilias.models.local_features import LocalFeatures
from openilias.report.figures.sheets import Moved
from openilias.report.matches import draw_matches
from openilias.report.pictures import Images, find_items, plain_reason, thumbnail_name

EACH = 6
"""Queries that gain, and that lose, with pictures."""
SIDE = 640
_SIZE = 300


@dataclass(frozen=True, eq=False)
class Match:
    """How a query and an image match.

    Attributes:
        query: local features of the query.
        image: of the image.
        pairs: (n, 2) places of descriptors that one map brings together.
        tentative: how many pairs were near enough.
    """

    query: LocalFeatures
    image: LocalFeatures
    pairs: npt.NDArray[np.int64]
    tentative: int


@dataclass(frozen=True)
class RerankedSearch:
    """A re-ranking to report.

    Attributes:
        method: that compared local descriptors.
        facts: what else is to be said of it, name -> value.
        before: the evaluation of the ranking that was re-ranked.
        match: how a query and an image match, by their ids; None where local descriptors are not at hand.
    """

    method: str
    facts: Mapping[str, str]
    before: Evaluation
    match: Callable[[str, str], Match] | None = None


@dataclass(frozen=True)
class Move:
    """A query, and the positive whose place has changed most.

    Attributes:
        query_id: the query.
        before: AP.
        after: AP.
        positive: the positive; None if all are where they were.
        above: negatives above it, before and after; None where it is not in the list.
        picture: file of both side by side with their matches, width, height; None if there is none.
        matched: what is drawn, in words, or why nothing is.
    """

    query_id: str
    before: float
    after: float
    positive: str | None
    above: tuple[int | None, int | None]
    picture: tuple[str, int, int] | None
    matched: str


@dataclass(frozen=True)
class Section:
    """All that the section shows.

    Attributes:
        method: that compared local descriptors.
        facts: name -> value.
        maps: mAP before and after.
        oracle: mAP that a perfect re-ranking reaches: the same before and after, where all of each list is re-ranked.
        counts: queries that gain, lose, and stay.
        points: (x, y, title) of each query in the plot: AP before and after, in plot units.
        parts: titled moves.
    """

    method: str
    facts: Mapping[str, str]
    maps: tuple[float, float]
    oracle: float
    counts: tuple[int, int, int]
    points: tuple[tuple[float, float, str], ...]
    parts: tuple[tuple[str, tuple[Move, ...]], ...]


def negatives_above(result: QueryResult) -> dict[str, int | None]:
    """Return how many images of anything else stand above each positive; None where it is not in the list."""
    found = sorted(rank for rank in result.ranks if rank is not None)
    return {
        item: None if rank is None else rank - 1 - found.index(rank)
        for item, rank in zip(result.positives, result.ranks, strict=True)
    }


def moved_positive(before: QueryResult, after: QueryResult, *, gained: bool) -> str | None:
    """Return the positive that has risen, or else fallen, most; None if none has."""
    one, other = negatives_above(before), negatives_above(after)
    changes: dict[str, int] = {}
    for item, above in sorted(one.items()):
        later = other.get(item)
        if above is not None and later is not None:
            changes[item] = above - later
    chosen = max(changes, key=lambda item: changes[item] if gained else -changes[item], default=None)
    if chosen is None or (changes[chosen] <= 0 if gained else changes[chosen] >= 0):
        return None
    return chosen


def gained_most(before: Evaluation, after: Evaluation, most: int = EACH) -> tuple[Moved, ...]:
    """Return the queries that gain most, with the positive that rises most of each."""
    earlier = {query.query_id: query for query in before.queries}
    both = [(earlier[query.query_id], query) for query in after.queries if query.query_id in earlier]
    found = []
    for old, new in sorted(both, key=lambda pair: (pair[0].ap - pair[1].ap, pair[1].query_id)):
        item = moved_positive(old, new, gained=True) if new.ap > old.ap else None
        if item is not None:
            above = negatives_above(old)[item], negatives_above(new)[item]
            found.append(Moved(new.query_id, item, above[0] or 0, above[1] or 0, old.ap, new.ap))
    return tuple(found[:most])


def moved_of(search: RerankedSearch, evaluation: Evaluation, benchmark: Benchmark, images: Images) -> Section:
    """Compare before and after, and draw what has moved most.

    Args:
        search: what was re-ranked.
        evaluation: of the new ranking.
        benchmark: where the pictures are.
        images: where the pictures go.
    """
    earlier = {query.query_id: query for query in search.before.queries}
    both = [(earlier[query.query_id], query) for query in evaluation.queries if query.query_id in earlier]
    risen = sorted((p for p in both if p[1].ap > p[0].ap), key=lambda p: (p[0].ap - p[1].ap, p[1].query_id))
    fallen = sorted((p for p in both if p[1].ap < p[0].ap), key=lambda p: (p[1].ap - p[0].ap, p[1].query_id))
    chosen = [
        ("Queries that gain most", [(b, a, moved_positive(b, a, gained=True)) for b, a in risen[:EACH]]),
        ("Queries that lose most", [(b, a, moved_positive(b, a, gained=False)) for b, a in fallen[:EACH]]),
    ]
    items = find_items(benchmark, [item for _, part in chosen for *_, item in part if item is not None])
    parts = tuple(
        (title, tuple(_move(before, after, item, search, benchmark, items, images) for before, after, item in part))
        for title, part in chosen
        if part
    )
    return Section(
        search.method,
        search.facts,
        (search.before.map, evaluation.map),
        search.before.oracle,
        (len(risen), len(fallen), len(both) - len(risen) - len(fallen)),
        tuple(
            (
                _SIZE * before.ap,
                _SIZE * (1 - after.ap),
                f"{after.query_id}: {100 * before.ap:.1f} → {100 * after.ap:.1f}",
            )
            for before, after in both
        ),
        parts,
    )


def _move(
    before: QueryResult,
    after: QueryResult,
    item: str | None,
    search: RerankedSearch,
    benchmark: Benchmark,
    items: Mapping[str, Item],
    images: Images,
) -> Move:
    if item is None:
        why = "No positive that is in both lists has moved that way."
        return Move(after.query_id, before.ap, after.ap, None, (None, None), None, why)
    above = negatives_above(before)[item], negatives_above(after)[item]
    try:
        picture, matched = _picture(after.query_id, item, search, benchmark, items, images)
    except OpenIliasError as error:
        picture, matched = None, plain_reason(error, benchmark)
    return Move(after.query_id, before.ap, after.ap, item, above, picture, matched)


def _picture(
    query: str, item: str, search: RerankedSearch, benchmark: Benchmark, items: Mapping[str, Item], images: Images
) -> tuple[tuple[str, int, int], str]:
    if item not in items:
        raise OpenIliasError("This image is not in the benchmark folder.")
    sides = [decode(source.read(), where=source.id) for source in (Item(query, benchmark.path_of(query)), items[item])]
    nothing, matched = np.zeros((0, 4), np.float32), "The local descriptors are not at hand: no matches are drawn."
    geometries, pairs = (nothing, nothing), np.zeros((0, 2), np.int64)
    if search.match is not None:
        match = search.match(query, item)
        geometries, pairs = (match.query.geometry, match.image.geometry), match.pairs
        matched = f"{len(pairs)} of {match.tentative} matches agree with one map"
    asked, known = (np.asarray(side) for side in sides)
    drawn = draw_matches(asked, known, geometries[0], geometries[1], pairs, side=SIDE)
    name = "match-" + thumbnail_name(f"{query} {item}")
    picture = Image.fromarray(drawn)
    return (images.write(name, picture), picture.width, picture.height), matched
