"""The report site of many runs: pages made in the browser from data that is written as scripts.

A page that is opened from disk may not fetch files, but it may load scripts; so ``data/report.js`` holds what every
page needs, and ``data/run-N.js`` the lists of one run, loaded when a page shows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from openilias.core.files import write_bytes
from openilias.evaluate.evaluation import QueryResult
from openilias.report.figures import sheets
from openilias.report.figures.everything import Analysis, exhibits
from openilias.report.figures.exhibit import Exhibit, write_exhibit
from openilias.report.figures.measured import Measured
from openilias.report.figures.style import figure_style
from openilias.report.html import KIND, environment, write_page
from openilias.report.output import output_folder
from openilias.report.pictures import IMAGES, Images, Picture, draw_all, pictures_of
from openilias.report.site_data import SiteRun, run_lists, script, site_data, text_of_query

SHEET = 6
"""Lines of a sheet of pictures."""
SHOWN_FIRST = 6
"""First images of a list that are shown with pictures, of the queries of the gallery."""


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
        write_bytes(folder / "data" / "report.js", script("window.ILIAS", data))
        for number, one in enumerate(analysis.measured):
            lists = script(f"window.ILIAS.details[{number}]", run_lists(analysis, one))
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
