"""One static HTML folder that explains a result: open ``index.html``, no network and no server needed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from openilias.core.errors import first_few
from openilias.core.protocol import OF_SEARCH
from openilias.data import Benchmark
from openilias.evaluate.evaluation import Evaluation, QueryResult
from openilias.report import compression, reranking, tables
from openilias.report.gallery import Gallery, Shown, make_gallery
from openilias.report.output import output_folder
from openilias.report.pictures import IMAGES, Images
from openilias.search.ranking import Ranking

KIND = "report"

PROTOCOL_MEANING = {
    "resolution": "target size of an image in pixels",
    "resize": "how an image is brought to that size: longest = larger side, aspect kept; small = smaller "
    "side; center = small, then the central square; square = distorted; pad = longest, then zeros up to a "
    "square",
    "min_size": "zeros are put around sides shorter than this, in pixels",
    "resizer": "the library that resizes",
    "query_boxes": "what is done to the boxes of query images: none, mask = zeros outside, crop = cut around them",
    "positive_boxes": "likewise of the positives",
    "scales": "factors of the size at which an image is described; the descriptors are averaged",
    "rotations": "angles, in degrees, at which an image is described; likewise",
    "combine": "how the descriptors of several views become one",
    "views": "whose scales and rotations these are: of all images, or of the queries",
    "pooling": "how the network's output becomes one vector: head = as it returns it, or cls, gap, mac, gem, rmac, "
    "rgem",
    "precision": "number format in which the network computes",
    "dtype": "number format of the stored descriptors; scores are those of the stored values",
    "k": "how many database images are retrieved and evaluated per query",
    "expand": "query expansion: how many of the best are put together with the query, and the power of their weights",
    "self_matches": "whether the query itself is listed where the database holds it",
    "duplicates": "whether database images with the same descriptor are all listed, or only the first",
    "compat": "paper = as the paper defines it; official = also what the official code does where it errs",
}
_BY_DEFAULT = {"resolution": "the model's own", "pooling": "the model's own"}

PLOT_WIDTH, PLOT_HEIGHT = 600, 200
STRIP_WIDTH, STRIP_HEIGHT = 120, 12


@dataclass(frozen=True)
class ReportInput:
    """What a report is made of.

    Attributes:
        title: of the page.
        benchmark: that was searched; pictures and boxes come from it.
        ranking: that was evaluated.
        evaluation: of that ranking.
        model: record of the model, shown as it is.
        database_size: how many images were searched, if known.
        notes: what a reader must know, shown at the top.
        times: step -> seconds.
        compressed: searches of compressed indexes of the same; there is a section if there are any.
        reranked: what was re-ranked, if the ranking came of that; likewise.
    """

    title: str
    benchmark: Benchmark
    ranking: Ranking
    evaluation: Evaluation
    model: Mapping[str, Any]
    database_size: int | None = None
    notes: tuple[str, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)
    compressed: tuple[compression.CompressedSearch, ...] = ()
    reranked: reranking.RerankedSearch | None = None


@dataclass(frozen=True)
class QueryRow:
    """One line of the table of queries; ``anchor`` is empty if the gallery does not show the query."""

    result: QueryResult
    anchor: str
    best_rank: int | None
    strip: str


@dataclass(frozen=True)
class Dot:
    """A gallery query on the curve of APs."""

    x: float
    y: float
    anchor: str
    label: str


def write_report(report: ReportInput, out: Path, *, gallery_queries: int = 24) -> Path:
    """Write the report of one run: equal input, equal bytes.

    Args:
        report: what is shown.
        out: folder; a report that was there is replaced, and only by a whole one.
        gallery_queries: how many queries are shown with pictures.

    Returns:
        The path of ``index.html``.

    Raises:
        OpenIliasError: ``out`` holds something else.
    """
    out = Path(out)
    with output_folder(out, KIND, {"title": report.title}) as folder:
        write_page(report, folder, Images(folder / IMAGES), gallery_queries=gallery_queries)
    return out / "index.html"


def write_page(report: ReportInput, folder: Path, images: Images, *, gallery_queries: int) -> None:
    """Write ``index.html``, ``queries.csv``, ``groups.csv`` and, if there are compressed searches, ``compression.csv``.

    Args:
        report: what is shown.
        folder: of the page.
        images: where the pictures go.
        gallery_queries: how many queries are shown with pictures.
    """
    gallery = make_gallery(report.benchmark, report.ranking, report.evaluation, images, queries=gallery_queries)
    (folder / "queries.csv").write_text(tables.queries_csv(report.evaluation), encoding="utf-8")
    (folder / "groups.csv").write_text(tables.groups_csv(report.evaluation), encoding="utf-8")
    found = compression.compression_of(report.ranking, report.evaluation, report.compressed)
    if found is not None:
        (folder / "compression.csv").write_text(compression.compression_csv(found), encoding="utf-8")
    moved = None
    if report.reranked is not None:
        moved = reranking.moved_of(report.reranked, report.evaluation, report.benchmark, images)
    (folder / "index.html").write_text(_render(report, gallery, found, moved), encoding="utf-8")


def environment() -> jinja2.Environment:
    """Return what renders the templates of this room."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("openilias.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=tables.percent,
        number=tables.number,
        count=tables.count,
        duration=tables.duration,
        score=score_text,
        breakable=breakable,
    )
    return made


def _render(
    report: ReportInput, gallery: Gallery, found: compression.Compression | None, moved: reranking.Section | None
) -> str:
    evaluation, benchmark = report.evaluation, report.benchmark
    anchors = _anchors(evaluation, gallery)
    rows = _query_rows(evaluation, anchors)
    return (
        environment()
        .get_template("index.html.j2")
        .render(
            title=report.title,
            benchmark_name=benchmark.root.resolve().name,
            kinds=_kinds(report),
            summary=tables.summary_rows(evaluation, database_size=report.database_size),
            warnings=_warnings(report, gallery),
            notes=report.notes,
            protocol=_protocol_rows(evaluation),
            cut=tables.cut_name(evaluation.protocol.k),
            model=[(name, value_text(value)) for name, value in report.model.items()],
            times=report.times,
            evaluation=evaluation,
            tables=tables.group_tables(evaluation),
            rows=rows,
            curve=step_curve([row.result.ap for row in reversed(rows)]),
            dots=_dots(rows),
            recall=recall_curve(evaluation),
            rank_ticks=rank_ticks(_depth(evaluation)),
            plot=(PLOT_WIDTH, PLOT_HEIGHT),
            strip=(STRIP_WIDTH, STRIP_HEIGHT),
            strips={row.result.query_id: row.strip for row in rows},
            gallery=gallery,
            anchors=anchors,
            categories={q.object: benchmark.taxonomy.mid(q.object) for q in evaluation.queries},
            depth=_depth(evaluation),
            alt=alt_text,
            compression=found,
            reranking=moved,
        )
    )


def _depth(evaluation: Evaluation) -> int:
    """How many images of a list are looked at."""
    return min(evaluation.protocol.k, evaluation.depth)


def _kinds(report: ReportInput) -> str:
    """Say how many image and text queries there are, and the mAP of each kind where there are both."""
    texts = set(report.benchmark.text_queries)
    text = [q.ap for q in report.evaluation.queries if q.query_id in texts]
    image = [q.ap for q in report.evaluation.queries if q.query_id not in texts]
    if not (image and text):
        return tables.count(len(image or text), "image query" if image else "text query")
    return " and ".join(
        f"{tables.count(len(aps), f'{kind} query')} (mAP {tables.percent(sum(aps) / len(aps))})"
        for kind, aps in (("image", image), ("text", text))
    )


def _warnings(report: ReportInput, gallery: Gallery) -> list[str]:
    evaluation = report.evaluation
    k, found = evaluation.protocol.k, []
    if evaluation.missing:
        left_out = evaluation.compat == "official"
        how = "left out of every mean, as the official code does" if left_out else "counted as zero"
        found.append(
            f"{tables.count(len(evaluation.missing), 'query')} of the benchmark without an answer in the "
            f"ranking, {how}: {first_few(list(evaluation.missing))}."
        )
    if evaluation.depth < k:
        found.append(_short_lists(evaluation, report.database_size))
    if evaluation.uncategorised:
        found.append(
            f"{tables.count(evaluation.uncategorised, 'object')} of the queries not named by the taxonomy: "
            "no category table counts them."
        )
    if gallery.problems:
        found.append(
            f"{len(gallery.problems)} of {tables.count(gallery.pictures, 'picture')} of the gallery cannot "
            f"be shown, or not with boxes; the reason is beneath each: {first_few(list(gallery.problems))}."
        )
    return found


def _short_lists(evaluation: Evaluation, database_size: int | None) -> str:
    k, depth = tables.number(evaluation.protocol.k), tables.count(evaluation.depth, "image")
    if database_size is not None and database_size > evaluation.depth:
        return (
            f"The lists hold only {depth} each, fewer than k = {k}, of a database of "
            f"{tables.number(database_size)}: positives further down count as not found."
        )
    return f"The database has fewer images than k = {k}: the lists are full rankings of {depth}."


def _protocol_rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    protocol = evaluation.protocol
    fields = protocol.model_dump(mode="json", include=None if evaluation.described else {*OF_SEARCH, "compat"})
    rows = [
        (
            name,
            _BY_DEFAULT.get(name, "none") if value is None else value_text(value),
            PROTOCOL_MEANING.get(name, ""),
        )
        for name, value in fields.items()
    ]
    if evaluation.compat != protocol.compat:
        rows.append(("compat of the evaluation", evaluation.compat, PROTOCOL_MEANING["compat"]))
    return rows


def value_text(value: Any) -> str:
    """Return a value of a record as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def score_text(score: float) -> str:
    """Return a score with three decimals, or four digits where that says more."""
    return f"{score:.3f}" if 0.01 <= abs(score) < 10 or score == 0 else f"{score:.4g}"


def breakable(text: str) -> Markup:
    """Return a long id, escaped, that a browser may break after ``_`` and ``/``."""
    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(text))))  # noqa: S704 - escaped in the same line


def alt_text(shown: Shown) -> str:
    """Return what a picture shows, in words."""
    if shown.kind == "query":
        return f"query {shown.picture.id}"
    place = "not in the list" if shown.rank is None else f"rank {tables.number(shown.rank)}"
    owner = "" if shown.other is None else f", a positive of {shown.other}"
    return f"{shown.kind} {shown.picture.id}, {place}{owner}"


def _anchors(evaluation: Evaluation, gallery: Gallery) -> dict[str, str]:
    shown = {entry.result.query_id for part in gallery.parts for entry in part.entries}
    return {q.query_id: f"query-{n}" for n, q in enumerate(evaluation.queries, start=1) if q.query_id in shown}


def _query_rows(evaluation: Evaluation, anchors: Mapping[str, str]) -> list[QueryRow]:
    """Return the lines by rising AP, then id."""
    depth = _depth(evaluation)
    return [
        QueryRow(q, anchors.get(q.query_id, ""), tables.best_rank(q), rank_strip(q, depth))
        for q in sorted(evaluation.queries, key=lambda q: (q.ap, q.query_id))
    ]


def rank_place(rank: int, depth: int) -> float:
    """Return where a rank stands on a logarithmic axis from 0 (rank 1) to 1 (rank ``depth``)."""
    return math.log(rank) / math.log(depth) if depth > 1 else 0.0


def rank_strip(query: QueryResult, depth: int) -> str:
    """Return the SVG path of ticks where the positives of a query are."""
    ranks = sorted(rank for rank in query.ranks if rank is not None)
    places = (1 + (STRIP_WIDTH - 2) * rank_place(rank, depth) for rank in ranks)
    return "".join(f"M{x:.1f} 0V{STRIP_HEIGHT}" for x in places)


def step_curve(values: list[float]) -> str:
    """Return the SVG path of values in [0, 1] as steps of equal width across the plot."""
    width = PLOT_WIDTH / max(len(values), 1)
    steps = (f"V{PLOT_HEIGHT * (1 - value):.1f}H{width * place:.1f}" for place, value in enumerate(values, start=1))
    return f"M0 {PLOT_HEIGHT}{''.join(steps)}V{PLOT_HEIGHT}Z"


def recall_curve(evaluation: Evaluation) -> str:
    """Return the SVG path of the share of (query, positive) pairs found within a rank."""
    ranks = [rank for q in evaluation.queries for rank in q.ranks]
    counts: dict[int, int] = {}
    for rank in ranks:
        if rank is not None:
            counts[rank] = counts.get(rank, 0) + 1
    path, found, depth = [f"M0 {PLOT_HEIGHT}"], 0, _depth(evaluation)
    for rank in sorted(counts):
        found += counts[rank]
        x = PLOT_WIDTH * rank_place(rank, depth)
        path.append(f"H{x:.1f}V{PLOT_HEIGHT * (1 - found / len(ranks)):.1f}")
    return f"{''.join(path)}H{PLOT_WIDTH}"


def rank_ticks(depth: int) -> list[tuple[float, str]]:
    """Return the place (0 to 1) and name of the ticks of a logarithmic rank axis."""
    powers = [10**power for power in range(len(str(depth)))]
    if depth > 1 and rank_place(powers[-1], depth) > 0.9:
        powers.pop()
    ranks = [1, *(rank for rank in powers if 1 < rank < depth), depth] if depth > 1 else [1]
    return [(rank_place(rank, depth), tables.number(rank)) for rank in ranks]


def _dots(rows: list[QueryRow]) -> list[Dot]:
    """Return the gallery queries on the curve, which falls from left to right."""
    width = PLOT_WIDTH / max(len(rows), 1)
    return [
        Dot(
            width * (place + 0.5),
            PLOT_HEIGHT * (1 - row.result.ap),
            row.anchor,
            f"{row.result.query_id}: AP {tables.percent(row.result.ap)}",
        )
        for place, row in enumerate(reversed(rows))
        if row.anchor
    ]
