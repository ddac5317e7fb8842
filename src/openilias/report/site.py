"""The report site of many runs: pages made in the browser from data that is written as scripts.

A page that is opened from disk may not fetch files, but it may load scripts; so ``data/report.js`` holds what every
page needs, and ``data/run-N.js`` the lists of one run, loaded when a page shows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.core.files import write_bytes
from openilias.data import Benchmark, Item
from openilias.evaluate.evaluation import Evaluation, QueryResult
from openilias.evaluate.groups import Group
from openilias.report.figures import sheets
from openilias.report.figures.everything import Analysis, exhibits
from openilias.report.figures.exhibit import Exhibit, write_exhibit
from openilias.report.figures.measured import Measured
from openilias.report.figures.style import figure_style
from openilias.report.figures.tables import published_map
from openilias.report.html import KIND, ReportInput, environment, score_text, write_page
from openilias.report.layout import bold, headings, texts
from openilias.report.output import output_folder
from openilias.report.pictures import IMAGES, Images, Picture, draw_all, pictures_of
from openilias.report.tables import best_rank, cut_name, group_tables

SHEET = 6
"""Lines of a sheet of pictures."""
SHOWN_FIRST = 6
"""First images of a list that are shown with pictures, of the queries of the gallery."""


@dataclass(frozen=True)
class SiteRun:
    """What the site adds to a measured run: its own page, made when it is written, and what a reader must know."""

    name: str
    page: Callable[[], ReportInput] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What a site shows.

    Attributes:
        gallery: queries of which the first images of each list are shown.
        positives: whether thumbnails of all queries and positives are made, or only of the gallery.
        figures: whether figures and tables are drawn.
    """

    gallery: int = 60
    positives: bool = True
    figures: bool = True


_CHOICE = Choice()


def write_site(analysis: Analysis, runs: Sequence[SiteRun], out: Path, choice: Choice = _CHOICE) -> Path:
    """Write the site: equal input, equal bytes.

    Args:
        analysis: of the runs.
        runs: in the same order.
        out: folder; a report that was there is replaced, and only by a whole one.
        choice: what is shown.

    Returns:
        The path of ``index.html``.

    Raises:
        OpenIliasError: ``out`` holds something else.
    """
    out = Path(out)
    title = analysis.name if len(runs) > 1 else f"{runs[0].name} on {analysis.name}"
    with output_folder(out, KIND, {"title": title}) as folder:
        slugs = slugs_of([run.name for run in runs])
        pictures = _pictures(analysis, folder, choice)
        for run, slug in zip(runs, slugs, strict=True):
            if run.page is not None:
                page = folder / "runs" / slug
                page.mkdir(parents=True)
                images = Images(folder / IMAGES, f"../../{IMAGES}")
                write_page(run.page(), page, images, gallery_queries=min(choice.gallery, 24))
        shown: list[Exhibit] = []
        if choice.figures:
            (folder / "figures").mkdir()
            with figure_style():
                shown = [*exhibits(analysis), *_sheets(analysis, pictures, folder / IMAGES)]
                for exhibit in shown:
                    write_exhibit(exhibit, folder / "figures")
        (folder / "data").mkdir()
        data = site_data(analysis, runs, slugs, pictures, shown, title)
        write_bytes(folder / "data" / "report.js", _script("window.ILIAS", data))
        for number, one in enumerate(analysis.measured):
            lists = _script(f"window.ILIAS.details[{number}]", _lists(analysis, one))
            write_bytes(folder / "data" / f"run-{number}.js", lists)
        plain = [{"name": run.name, "slug": slug} for run, slug in zip(runs, slugs, strict=True) if run.page]
        html = environment().get_template("site/index.html.j2").render(title=title, runs=plain)
        (folder / "index.html").write_text(html, encoding="utf-8")
    return out / "index.html"


def slugs_of(names: Sequence[str]) -> list[str]:
    """Return names of folders for names of runs: safe everywhere, all different."""
    found: list[str] = []
    for name in names:
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "run"
        slug, number = base, 1
        while slug.lower() in {other.lower() for other in found}:
            number += 1
            slug = f"{base}-{number}"
        found.append(slug)
    return found


def _script(name: str, value: Any) -> bytes:
    # A line separator ends a line of a script, and "</" the script itself.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign, safe in (("\u2028", "\\u2028"), ("\u2029", "\\u2029"), ("</", "<\\/")):
        text = text.replace(sign, safe)
    return f"{name}={text};\n".encode()


def gallery_queries(analysis: Analysis, most: int) -> list[str]:
    """Choose the queries whose lists are shown: those on which the runs differ most; of one run the worst and the best.

    Args:
        analysis: of the runs.
        most: how many.
    """
    aps: dict[str, list[float]] = {}
    for one in analysis.measured:
        for query in one.evaluation.queries:
            aps.setdefault(query.query_id, []).append(query.ap)
    if len(aps) <= most:
        return sorted(aps)
    if len(analysis.measured) == 1:
        order = sorted(aps, key=lambda item: (aps[item][0], item))
        third = most // 3
        middle = (len(order) - third) // 2
        worst, best = order[: most - 2 * third], order[len(order) - third :]
        return sorted({*worst, *order[middle : middle + third], *best})
    order = sorted(aps, key=lambda item: (-float(np.ptp(aps[item])), item))
    return sorted(order[:most])


def _pictures(analysis: Analysis, folder: Path, choice: Choice) -> dict[str, Picture]:
    benchmark = analysis.benchmark
    chosen = gallery_queries(analysis, choice.gallery)
    wanted: list[str] = []
    objects = {item.partition("/")[0] for item in chosen}
    for item in (*benchmark.image_queries, *benchmark.positives):
        if choice.positives or item.partition("/")[0] in objects:
            wanted.append(item)
    for derived in analysis.derived.values():
        wanted += [item for query in chosen for item, _ in derived.first.get(query, ())[:SHOWN_FIRST]]
        wanted += [item for move in derived.moved for item in (move.query_id, move.positive)]
    for best, queries, are_texts in _sheet_queries(analysis):
        first = analysis.derived[best.name].first if best.name in analysis.derived else {}
        for query in queries:
            wanted += [*(() if are_texts else (query.query_id,)), *query.positives[: 2 * sheets.SHOWN]]
            wanted += [item for item, _ in first.get(query.query_id, ())]
    pictures = pictures_of(benchmark, wanted, Images(folder / IMAGES))
    return draw_all(pictures, wanted)


def _sheets(analysis: Analysis, pictures: Mapping[str, Picture], images: Path) -> list[Exhibit]:
    """Draw the sheets of pictures, from thumbnails that are there."""
    benchmark = analysis.benchmark

    def look(item: str) -> npt.NDArray[np.uint8] | None:
        found = pictures.get(item)
        if found is None or found.file is None:
            return None
        with Image.open(images / Path(found.file).name) as image:
            return np.asarray(image.convert("RGB"))

    made: list[Exhibit | None] = []
    for best, chosen, are_texts in _sheet_queries(analysis):
        first = analysis.derived[best.name].first if best.name in analysis.derived else {}
        words = {q.query_id: text_of_query(benchmark, q.query_id) or "" for q in chosen} if are_texts else None
        made.append(sheets.retrieved(best.name, best.evaluation, chosen, first, look, words))
    for name, derived in analysis.derived.items():
        if derived.moved:
            made.append(sheets.reranked(name, derived.moved, look))
            break
    queries: dict[str, list[str]] = {}
    for item in benchmark.image_queries:
        if item in pictures:
            queries.setdefault(item.partition("/")[0], []).append(item)
    some = dict(list(queries.items())[:: max(1, len(queries) // SHEET)][:SHEET])
    made.append(sheets.objects(some, benchmark.relevance, look))
    return [one for one in made if one is not None]


def _sheet_queries(analysis: Analysis) -> list[tuple[Measured, list[QueryResult], bool]]:
    """Choose queries of the best run, images and texts: from hard to easy ones, with a positive found."""
    texts, found = set(analysis.benchmark.text_queries), []
    for are_texts in (False, True):
        by_run = {
            one.name: [q for q in one.evaluation.queries if (q.query_id in texts) == are_texts and q.hits]
            for one in analysis.measured
        }
        asked = [one for one in analysis.measured if by_run[one.name]]
        if asked:
            best = max(asked, key=lambda one: one.evaluation.map)
            order = sorted(by_run[best.name], key=lambda q: (q.ap, q.query_id))
            places = sorted({round(n * (len(order) - 1) / (SHEET - 1)) for n in range(SHEET)})
            found.append((best, [order[place] for place in places], are_texts))
    return found


def text_of_query(benchmark: Benchmark, item: str) -> str | None:
    """Return the text of a text query; None if it cannot be read."""
    try:
        return Item(item, benchmark.path_of(item)).read().decode("utf-8").strip()
    except (OpenIliasError, UnicodeDecodeError):
        return None


def site_data(
    analysis: Analysis,
    runs: Sequence[SiteRun],
    slugs: Sequence[str],
    pictures: Mapping[str, Picture],
    shown: Sequence[Exhibit],
    title: str,
) -> dict[str, Any]:
    """Return what every page needs, as JSON values; APs in thousandths."""
    benchmark = analysis.benchmark
    asked = _asked(analysis)
    place = {name: n for n, name in enumerate(benchmark.relevance)}
    found = analysis.comparison
    names = {} if found is None else {one.name: n for n, one in enumerate(analysis.measured)}
    queries = {"image": benchmark.image_queries, "text": benchmark.text_queries}
    kinds = {kind: len(set(asked) & set(ids)) for kind, ids in queries.items()}
    statistics = analysis.statistics
    k = analysis.measured[0].evaluation.protocol.k
    return {
        "title": title,
        "made": "Made by OpenILIAS.",
        "cut": cut_name(k),
        "k": k,
        "benchmark": {
            "name": analysis.name,
            "objects": len({item.partition("/")[0] for item in asked}),
            "positives": len(benchmark.positives),
            "distractors": None if statistics is None else statistics.distractors,
            "kinds": ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count),
        },
        "runs": [
            _run_data(one, run, slug, analysis) for one, run, slug in zip(analysis.measured, runs, slugs, strict=True)
        ],
        "objects": [
            {"name": name, "category": _category(benchmark, name), "positives": list(benchmark.relevance[name])}
            for name in benchmark.relevance
        ],
        "queries": [_query_data(benchmark, item, place) for item in asked],
        "ap": [_aps(one.evaluation, asked) for one in analysis.measured],
        "images": {
            item: [Path(picture.file).name, picture.width, picture.height]
            for item, picture in sorted(pictures.items())
            if picture.file is not None
        },
        "pairs": []
        if found is None
        else [
            {
                "a": names[pair.a],
                "b": names[pair.b],
                "low": 1000 * pair.low,
                "high": 1000 * pair.high,
                "p": pair.p,
                "adjusted": pair.adjusted,
            }
            for pair in found.pairs
        ],
        "exhibits": [_exhibit_data(one) for one in shown],
        "missing": list(analysis.missing),
        "notes": [],
        "details": [],
    }


def _asked(analysis: Analysis) -> list[str]:
    return sorted({query.query_id for one in analysis.measured for query in one.evaluation.queries})


def _aps(evaluation: Evaluation, asked: Sequence[str]) -> list[int | None]:
    found = {query.query_id: round(1000 * query.ap) for query in evaluation.queries}
    return [found.get(item) for item in asked]


def _category(benchmark: Benchmark, name: str) -> list[str] | None:
    node = benchmark.taxonomy.nodes.get(name)
    return None if node is None else list(node)


def _query_data(benchmark: Benchmark, item: str, place: Mapping[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {"id": item, "object": place[item.partition("/")[0]]}
    if item in set(benchmark.text_queries):
        found["text"] = text_of_query(benchmark, item)
    return found


def _run_data(one: Measured, run: SiteRun, slug: str, analysis: Analysis) -> dict[str, Any]:
    evaluation, record = one.evaluation, one.record
    standing = None
    if analysis.comparison is not None:
        standing = next(s for s in analysis.comparison.standings if s.name == one.name)
    groups = {table.key: table for table in group_tables(evaluation)}
    paper = published_map(one)
    first = [best_rank(query) == 1 for query in evaluation.queries]
    protocol = evaluation.protocol.model_dump(mode="json") if evaluation.described else {"k": evaluation.protocol.k}
    return {
        "name": one.name,
        "slug": slug,
        "page": f"runs/{slug}/index.html" if run.page is not None else None,
        "model": one.model,
        "year": None if record is None else record.year,
        "arch": None if record is None else record.kind,
        "train": None if record is None else record.training,
        "dataset": None if record is None else record.dataset,
        "dims": one.dims,
        "adapted": one.adapted,
        "rerank": one.reranked,
        "queries": one.queries,
        "resolution": one.resolution,
        "database": one.database_size,
        "map": 1000 * evaluation.map,
        "low": None if standing is None else 1000 * standing.low,
        "high": None if standing is None else 1000 * standing.high,
        "oracle": 1000 * evaluation.oracle,
        "hit": 1000 * sum(first) / len(first),
        "paper": None if paper is None else 10 * paper,
        "notes": list(run.notes),
        "protocol": [[name, _plain(value)] for name, value in protocol.items() if value is not None],
        "coarse": [[group.name, _thousandths(group), group.size] for group in evaluation.categories],
        **{
            key: [[row.label, _thousandths(row.group), row.group.size] for row in groups[key].rows]
            for key in ("coverage", "clutter")
        },
    }


def _thousandths(group: Group) -> float | None:
    return None if group.map is None else 1000 * group.map


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _lists(analysis: Analysis, one: Measured) -> dict[str, Any]:
    """Return the ranks of the positives (0: not in the list) and the first images, by number of the query."""
    number = {item: n for n, item in enumerate(_asked(analysis))}
    derived = analysis.derived.get(one.name)
    first = {} if derived is None else derived.first
    return {
        "ranks": {number[q.query_id]: [rank or 0 for rank in q.ranks] for q in one.evaluation.queries},
        "first": {
            number[query]: [[item, score_text(score)] for item, score in images]
            for query, images in first.items()
            if query in number
        },
    }


def _exhibit_data(exhibit: Exhibit) -> dict[str, Any]:
    table = exhibit.table
    numbers = [all(not isinstance(row[n], str) for row in table.rows) for n in range(len(table.columns))]
    return {
        "name": exhibit.name,
        "paper": exhibit.paper,
        "title": table.title,
        "drawn": exhibit.figure is not None,
        "columns": headings(table),
        "numbers": numbers,
        "rows": texts(table),
        "bold": sorted(map(list, bold(table))),
        "notes": list(table.notes),
    }
