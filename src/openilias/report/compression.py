"""What compression of the descriptors costs and saves: compressed searches against the exact one. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from openilias.core.errors import OpenIliasError
from openilias.evaluate.evaluation import Evaluation
from openilias.report import tables
from openilias.search.compressed import IndexFacts
from openilias.search.indexes import IndexSpec
from openilias.search.ranking import ABSENT, Ranking

CUTS = (10, 100, 1000)
"""Depths at which a compressed ranking is compared with the exact one."""

WIDTH, HEIGHT = 600, 300
_LETTER, _LINE = 7.4, 15.0
_MARK = 7.0

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class CompressedSearch:
    """A search of a compressed index, and how well it did."""

    spec: IndexSpec
    facts: IndexFacts
    ranking: Ranking
    evaluation: Evaluation


@dataclass(frozen=True)
class CompressionRow:
    """One line of the table; the exact search is the first.

    Attributes:
        name: of the index with its search parameters.
        rescored: how many of its best are scored exactly; None for the exact search.
        recall: share of the exact first k that are within the first k, for each of the cuts; mean over the queries.
        map: mAP@k in [0, 1].
        lost: mAP of the exact search minus this; negative where compression gains.
        bytes_per_image: of the index; of the exact search those of the stored descriptors.
        ratio: stored descriptors over index, in bytes.
        rescore_bytes: bytes per image that rescoring needs besides.
        queries_per_second: None if it was not measured.
        threads: on which that was measured.
        short: how many queries got fewer than k images.
    """

    name: str
    rescored: int | None
    recall: tuple[float, ...]
    map: float
    lost: float
    bytes_per_image: float
    ratio: float
    rescore_bytes: float
    queries_per_second: float | None
    threads: int | None
    short: int


class Mark(NamedTuple):
    """A point of a chart with its label; ``leader`` is the path from one to the other, empty if they are close.

    ``anchor`` is where the label is held, at the side of the point: fonts differ in width.
    """

    x: float
    y: float
    label: str
    label_x: float
    label_y: float
    anchor: str
    leader: str
    title: str


class Series(NamedTuple):
    """Points of one kind: ``best`` is the path of the best that at most so many bytes give."""

    key: str
    marks: tuple[Mark, ...]
    best: str


@dataclass(frozen=True)
class Chart:
    """A measure over bytes per image, ready to be drawn; ``reference`` is the height of the exact search."""

    title: str
    series: tuple[Series, ...]
    reference: float
    exact: tuple[float, float]
    reference_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    size: tuple[int, int] = (WIDTH, HEIGHT)


@dataclass(frozen=True)
class Compression:
    """The section of a report."""

    k: int
    cuts: tuple[int, ...]
    rows: tuple[CompressionRow, ...]
    charts: tuple[Chart, ...]

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        return (
            "index",
            "rescored",
            *(f"recall@{tables.number(k)}" for k in self.cuts),
            f"mAP@{tables.cut_name(self.k)}",
            "mAP lost",
            "bytes per image",
            "smaller by",
            "bytes to rescore",
            "queries/s",
            "short lists",
        )

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """The lines of the table as text; shares are in percent, what is lost in percentage points."""
        return [
            (
                row.name,
                tables.NOTHING if not row.rescored else tables.number(row.rescored),
                *(f"{100 * share:.1f}" for share in row.recall),
                f"{100 * row.map:.1f}",
                f"{100 * row.lost:.1f}".replace("-0.0", "0.0"),
                bytes_text(row.bytes_per_image),
                f"{row.ratio:.1f}×",
                tables.NOTHING if not row.rescore_bytes else bytes_text(row.rescore_bytes),
                tables.NOTHING if row.queries_per_second is None else f"{row.queries_per_second:,.0f}",
                tables.number(row.short),
            )
            for row in self.rows
        ]


def compression_of(exact: Ranking, evaluation: Evaluation, found: Sequence[CompressedSearch]) -> Compression | None:
    """Return the section for compressed searches of the same queries and database, None if there are none.

    Args:
        exact: the exact ranking.
        evaluation: of it.
        found: in any order.

    Raises:
        OpenIliasError: a search is of other queries.
    """
    if not found:
        return None
    cuts = tuple(k for k in CUTS if k <= exact.rows.shape[1]) or (exact.rows.shape[1],)
    rows = compression_rows(exact, evaluation, found, cuts)
    cut = tables.cut_name(evaluation.protocol.k)
    charts = (
        chart(f"mAP@{cut}", rows, [row.map for row in rows]),
        chart(f"recall@{tables.number(cuts[-1])} of the exact ranking", rows, [row.recall[-1] for row in rows]),
    )
    return Compression(evaluation.protocol.k, cuts, rows, charts)


def compression_rows(
    exact: Ranking, evaluation: Evaluation, found: Sequence[CompressedSearch], cuts: Sequence[int]
) -> tuple[CompressionRow, ...]:
    """Return the exact search, then the compressed ones by rising size of the index, then name.

    Raises:
        OpenIliasError: as :func:`compression_of`.
    """
    stored = found[0].facts.stored_bytes
    first = CompressionRow(
        "exact", None, tuple(1.0 for _ in cuts), evaluation.map, 0.0, stored, 1.0, 0.0, None, None, 0
    )
    rows = [
        CompressionRow(
            name=label_of(one.spec),
            rescored=one.spec.rescore,
            recall=tuple(recall_of(exact, one.ranking, k) for k in cuts),
            map=one.evaluation.map,
            lost=evaluation.map - one.evaluation.map,
            bytes_per_image=one.facts.bytes_per_image,
            ratio=one.facts.stored_bytes / one.facts.bytes_per_image,
            rescore_bytes=one.facts.rescore_bytes,
            queries_per_second=one.facts.queries_per_second,
            threads=one.facts.threads,
            short=one.facts.short,
        )
        for one in found
    ]
    return first, *sorted(rows, key=lambda row: (row.bytes_per_image, row.name, row.rescored or 0))


def label_of(spec: IndexSpec) -> str:
    """Return the name of an index with its search parameters, without rescoring."""
    return f"{spec.index_name} {spec.parameters}".strip()


def recall_of(exact: Ranking, other: Ranking, k: int) -> float:
    """Return which share of the exact first k images are within the first k of another ranking.

    Mean over the queries; of queries with fewer than k exact images, of those.

    Raises:
        OpenIliasError: the queries differ.
    """
    if set(exact.query_ids) != set(other.query_ids):
        raise OpenIliasError("The compressed ranking is of other queries than the exact one.", fix="Run again.")
    number = {item: row for row, item in enumerate(exact.db_ids)}
    # One past the end stands for what the exact ranking does not know.
    known = np.array([number.get(item, len(number)) for item in other.db_ids], np.int64)
    place = {item: row for row, item in enumerate(other.query_ids)}
    shares = []
    for query, row in zip(exact.query_ids, exact.rows[:, :k], strict=True):
        wanted = row[row != ABSENT]
        theirs = other.rows[place[query], :k]
        shares.append(np.isin(wanted, known[theirs[theirs != ABSENT]]).mean() if len(wanted) else 1.0)
    return float(np.mean(shares))


def markdown(found: Compression) -> str:
    """Return the table in Markdown."""
    return tables.markdown_table(found.header, found.cells)


def compression_csv(found: Compression) -> str:
    """Return one line per search, the exact one first; shares in [0, 1] at full precision."""
    recall = tuple(f"recall@{k}" for k in found.cuts)
    names = ("map", "lost", "bytes_per_image", "ratio", "rescore_bytes", "queries_per_second", "threads", "short")
    lines = (
        (row.name, row.rescored, *map(repr, row.recall), *(_plain(getattr(row, name)) for name in names))
        for row in found.rows
    )
    return tables.csv_text(("index", "rescored", *recall, *names), lines)


def _plain(value: float | None) -> str | int | None:
    return repr(value) if isinstance(value, float) else value


def bytes_text(value: float) -> str:
    """Return bytes as a whole number, or with one decimal where it is none."""
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"


def chart(title: str, rows: Sequence[CompressionRow], values: Sequence[float]) -> Chart:
    """Lay out a measure in [0, 1] over bytes per image on a logarithmic axis.

    Args:
        title: of the measure.
        rows: the exact search first.
        values: of each row.
    """
    sizes = [row.bytes_per_image for row in rows]
    left, right = math.log2(min(sizes)) - 0.6, math.log2(max(sizes)) + 0.6
    y_ticks, low, high = _ticks(min(values), max(values))

    def x_of(size: float) -> float:
        return WIDTH * (math.log2(size) - left) / (right - left)

    def y_of(value: float) -> float:
        return HEIGHT * (1 - (value - low) / (high - low))

    places = [(x_of(size), y_of(value)) for size, value in zip(sizes, values, strict=True)]
    reference_label = f"exact {tables.percent(values[0])}"
    reference = places[0][1]
    keys = ["rescored" if row.rescored else "plain" for row in rows]
    points = {key: [places[n] for n in range(1, len(rows)) if keys[n] == key] for key in ("plain", "rescored")}
    corners = {key: _staircase(points[key]) for key in points}
    lines = [_box_of(*pair) for path in corners.values() for pair in pairwise(path)]
    lines.append(_box_of((0.0, reference), (float(WIDTH), reference)))
    taken = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in places]
    taken.append((0.0, reference - 6 - _LINE, 2 + _LETTER * (len(reference_label) + 2), reference))
    marks: dict[str, list[Mark]] = {"plain": [], "rescored": []}
    # From left to right, and of one size from top to bottom: labels of a heap of points stand in their order.
    for n in sorted(range(1, len(rows)), key=lambda n: (places[n], n)):
        row, (x, y) = rows[n], places[n]
        label_x, label_y, anchor, leader = _label(row.name, (x, y), places, taken, lines)
        how = f", the best {tables.number(row.rescored)} scored exactly" if row.rescored else ""
        text = f"{row.name}{how}: {tables.percent(values[n])}, {bytes_text(row.bytes_per_image)} bytes per image"
        marks[keys[n]].append(Mark(x, y, row.name, label_x, label_y, anchor, leader, text))
    series = tuple(
        Series(key, tuple(sorted(marks[key])), "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners[key]))
        for key in marks
        if marks[key]
    )
    powers = range(math.ceil(left), math.floor(right) + 1)
    x_ticks = tuple(
        (x_of(2.0**power), f"{2**power:,}" if power >= 0 else f"1/{2**-power}")
        for power in powers
        if len(powers) <= 8 or power % 2 == 0
    )
    ticks = tuple((y_of(value), f"{100 * value:.4g}") for value in y_ticks)
    return Chart(title, series, reference, places[0], reference_label, x_ticks, ticks)


def _ticks(least: float, most: float) -> tuple[list[float], float, float]:
    """Return about five round values around a range, within 0 and 1, and the ends of the axis."""
    spread = max(most - least, 0.01)
    step = next(s for p in range(-4, 1) for f in (1, 2, 5) if (s := f * 10.0**p) >= spread / 5)
    first, last = math.floor(least / step - 0.15), math.ceil(most / step + 0.15)
    values = [round(n * step, 6) for n in range(max(first, 0), last + 1) if n * step <= 1 + 1e-9]
    low, high = values[0], values[-1]
    return values, low, max(high, most) + 0.06 * (high - low)  # room above for labels


def _label(
    text: str, at: Point, points: list[Point], taken: list[Box], lines: list[Box]
) -> tuple[float, float, str, str]:
    """Find the best free place for the label of a point, and take it.

    A place is the better the nearer it is; lines beneath it and another point as near count as so much farther.

    Returns:
        x and y of its base line where it is held, by which side, and the path of a leader, if it is needed.
    """
    width = _LETTER * len(text)
    spots = [(left, top, left + width, top + _LINE) for left, top in _spots(*at, width)]
    spots = [box for box in spots if box[0] >= 0 and box[1] >= 0 and box[2] <= WIDTH and box[3] <= HEIGHT]
    free = [box for box in spots if not any(_overlap(box, other) for other in taken)]

    def doubtful(box: Box) -> bool:
        own = _distance(at, box)
        return own > 2 * _MARK or any(_distance(other, box) <= own for other in points if other != at)

    def cost(box: Box) -> float:
        crossed = sum(_overlap(box, line) for line in lines)
        return _distance(at, box) + 2 * _LINE * crossed + _LINE * doubtful(box)

    box = min(free or spots or [(0.0, 0.0, width, _LINE)], key=cost)
    taken.append(box)
    left, top, right, bottom = box
    x, y = at
    end = min(max(x, left), right), min(max(y, top), bottom)
    held, anchor = (left, "start") if left >= x else (right, "end") if right <= x else (left + width / 2, "middle")
    leader = f"M{x:.1f} {y:.1f}L{end[0]:.1f} {end[1]:.1f}" if doubtful(box) else ""
    return held, bottom - 4, anchor, leader


def _distance(point: Point, box: Box) -> float:
    """Return how far a point is from a box."""
    x, y = point
    return math.dist(point, (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])))


def _spots(x: float, y: float, width: float) -> Iterator[tuple[float, float]]:
    """Yield left upper corners for a label, the nearest first: beside, above, below, then in rings."""
    gap = _MARK + 2
    yield from ((x + gap, y - _LINE / 2), (x - gap - width, y - _LINE / 2))
    yield from ((x - width / 2, y - gap - _LINE), (x - width / 2, y + gap))
    for ring in range(1, 24):
        reach = gap + 6 * ring
        for turn in range(16):
            angle = math.pi * turn / 8
            across, down = math.cos(angle) * reach, math.sin(angle) * reach
            yield x + across - (width if across < -1 else 0 if across > 1 else width / 2), y + down - _LINE / 2


def _box_of(a: Point, b: Point) -> Box:
    return min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _staircase(points: list[Point]) -> list[Point]:
    """Return the corners of the path of the highest point (lowest y) at or to the left of each x."""
    corners: list[Point] = []
    for x, y in sorted(points):
        if not corners or y < corners[-1][1]:
            corners += [(x, corners[-1][1]), (x, y)] if corners else [(x, y)]
    return [*corners, (float(WIDTH), corners[-1][1])] if corners else []
