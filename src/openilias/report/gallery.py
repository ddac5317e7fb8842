"""The gallery: which queries and images are shown, where their pictures are, and their thumbnails."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw

from openilias.core.errors import OpenIliasError
from openilias.core.ids import distractor_shard, object_of
from openilias.data import Benchmark, Item
from openilias.evaluate.evaluation import Evaluation, QueryResult
from openilias.images.boxes import Box
from openilias.images.decode import decode
from openilias.search.ranking import Ranking

IMAGES = "images"
SIDE = 220
QUALITY = 80
BOX_COLOUR = (255, 214, 10)
_BOX_EDGE = (24, 24, 24)
POSITIVES_EACH = 4
NEGATIVES = 6

Kind = Literal["query", "positive", "negative"]


@dataclass(frozen=True)
class Picture:
    """A thumbnail, or why there is none. Where only its boxes cannot be read it has a file and a problem."""

    id: str
    file: str | None
    width: int
    height: int
    problem: str | None = None


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


def find_items(benchmark: Benchmark, ids: Iterable[str]) -> dict[str, Item]:
    """Find where the images of database ids are.

    Only the tars that are needed are indexed, each once. Ids that are not there, or whose tar cannot be read,
    are left out.
    """
    return _locate(benchmark, ids)[0]


def _locate(benchmark: Benchmark, ids: Iterable[str]) -> tuple[dict[str, Item], dict[str, str]]:
    """Return the items that are there, and for each tar that cannot be read the reason."""
    wanted = set(ids)
    found = {item: Item(item, benchmark.path_of(item)) for item in wanted.intersection(benchmark.positives)}
    tars = {distractor_shard(item) for item in wanted} - {None}
    reasons: dict[str, str] = {}
    for shard in benchmark.distractor_shards:
        if shard.tar is not None and shard.name not in tars:
            continue
        try:
            found.update((item.id, item) for item in shard.items() if item.id in wanted)
        except OpenIliasError as error:
            reasons[shard.name] = plain_reason(error, benchmark)
    return found, reasons


def plain_reason(error: OpenIliasError, benchmark: Benchmark) -> str:
    """Return the message of an error without paths and memory addresses, which differ between runs."""
    text = error.what.replace(str(benchmark.root), benchmark.root.resolve().name)
    return re.sub(r" ?<[^<>]* at 0x[0-9a-fA-F]+>", "", text)


def thumbnail_name(item: str) -> str:
    """Return a file name that is safe on every system and differs for different ids."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", item).strip("-")[-60:]
    return f"{readable}-{hashlib.sha256(item.encode()).hexdigest()[:10]}.jpg"


def thumbnail(image: Image.Image, boxes: Iterable[Box]) -> Image.Image:
    """Return a picture of at most :data:`SIDE` pixels with the boxes drawn on it.

    Args:
        image: upright.
        boxes: in pixels of ``image``; what they have outside it is not drawn.
    """
    scale = min(1.0, SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.LANCZOS)
    small.info = {}  # Pillow would write the comments of the original into the thumbnail.
    draw = ImageDraw.Draw(small)
    for box in boxes:
        left, right = (min(round(x * scale), size[0] - 1) for x in (box.x, box.x + box.width))
        top, bottom = (min(round(y * scale), size[1] - 1) for y in (box.y, box.y + box.height))
        # A dark line around the bright one keeps the box visible on any picture.
        draw.rectangle((left, top, right, bottom), outline=_BOX_EDGE, width=5)
        if right - left > 2 and bottom - top > 2:
            draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=BOX_COLOUR, width=3)
    return small


@dataclass
class _Pictures:
    """Thumbnails in a folder, each written once."""

    benchmark: Benchmark
    folder: Path
    items: Mapping[str, Item]
    reasons: Mapping[str, str]
    done: dict[str, Picture] = field(default_factory=dict)

    def of(self, item: str) -> Picture:
        if item not in self.done:
            self.done[item] = self._make(item)
        return self.done[item]

    def fail(self, item: str, problem: str) -> Picture:
        self.done[item] = Picture(item, None, 0, 0, problem)
        return self.done[item]

    def _make(self, item: str) -> Picture:
        source = self.items.get(item)
        if source is None:
            return Picture(item, None, 0, 0, self._absence(item))
        try:
            image = decode(source.read(), where=item)
        except OpenIliasError as error:
            return Picture(item, None, 0, 0, plain_reason(error, self.benchmark))
        boxes, problem = self._boxes(item)
        small = thumbnail(image, boxes)
        name = thumbnail_name(item)
        small.save(self.folder / name, "JPEG", quality=QUALITY, optimize=True)
        return Picture(item, f"{IMAGES}/{name}", small.width, small.height, problem)

    def _absence(self, item: str) -> str:
        shard = distractor_shard(item)
        if shard is None:
            return "This image is not in the benchmark folder."
        names = {s.name for s in self.benchmark.distractor_shards}
        if shard not in names:
            return f"The shard {shard} is not in the benchmark folder."
        return self.reasons.get(shard, f"The shard {shard} has no such image.")

    def _boxes(self, item: str) -> tuple[tuple[Box, ...], str | None]:
        if object_of(item) not in self.benchmark.relevance:
            return (), None
        try:
            return self.benchmark.boxes(item), None
        except OpenIliasError as error:
            return (), plain_reason(error, self.benchmark)


def make_gallery(benchmark: Benchmark, ranking: Ranking, evaluation: Evaluation, out: Path, *, queries: int) -> Gallery:
    """Choose what is shown and write the thumbnails to ``out/images``.

    Args:
        benchmark: where the pictures are.
        ranking: where the negatives and the scores are.
        evaluation: where the ranks of the positives are.
        out: folder of the report.
        queries: how many entries there may be.
    """
    chosen = select_queries(evaluation, queries)
    rows = {item: row for row, item in enumerate(ranking.query_ids)}
    plans = {q.query_id: _plan(q, ranking, rows[q.query_id], evaluation.protocol.k) for _, part in chosen for q in part}
    asked = {item: Item(item, benchmark.path_of(item)) for item in plans}
    shown = {item for p in plans.values() for item, _ in (*p.best, *p.worst, *p.negatives)}
    found, reasons = _locate(benchmark, shown)
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    pictures = _Pictures(benchmark, out / IMAGES, {**found, **asked}, reasons)
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


def _entry(plan: _Plan, pictures: _Pictures, *, is_text: bool) -> Entry:
    def shown(kind: Kind, item: str, rank: int | None) -> Shown:
        owner = object_of(item)
        other = owner if kind == "negative" and item in relevance.get(owner, ()) else None
        score = None if rank is None else plan.scores[rank]
        return Shown(kind, pictures.of(item), rank, score, other)

    relevance = pictures.benchmark.relevance
    text, query = _asked(plan.result.query_id, pictures, is_text=is_text)
    return Entry(
        plan.result,
        text,
        Shown("query", query),
        tuple(shown("positive", item, rank) for item, rank in plan.best),
        tuple(shown("positive", item, rank) for item, rank in plan.worst),
        tuple(shown("negative", item, rank) for item, rank in plan.negatives),
    )


def _asked(query: str, pictures: _Pictures, *, is_text: bool) -> tuple[str | None, Picture]:
    """Return the text of a text query, and the picture of an image query or the problem with either."""
    if not is_text:
        return None, pictures.of(query)
    try:
        data = Item(query, pictures.benchmark.path_of(query)).read()
        return data.decode("utf-8").strip(), Picture(query, None, 0, 0)
    except OpenIliasError as error:
        return None, pictures.fail(query, plain_reason(error, pictures.benchmark))
    except UnicodeDecodeError:
        return None, pictures.fail(query, "This text is not UTF-8.")


def show(benchmark: Benchmark, ids: Iterable[str], out: Path) -> list[tuple[str | None, Picture]]:
    """Write the thumbnails of any ids of a benchmark to ``out/images``; return the text or the picture of each."""
    wanted, texts = list(ids), set(benchmark.text_queries)
    found, reasons = _locate(benchmark, wanted)
    found.update((item, Item(item, benchmark.path_of(item))) for item in wanted if item in set(benchmark.image_queries))
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    pictures = _Pictures(benchmark, out / IMAGES, found, reasons)
    return [_asked(item, pictures, is_text=item in texts) for item in wanted]
