"""What the pages of a report site are made of, as JSON values and scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openilias.core.errors import OpenIliasError
from openilias.data import Benchmark, Item
from openilias.evaluate.evaluation import Evaluation
from openilias.evaluate.groups import Group
from openilias.report.figures.everything import Analysis
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import Measured, peculiarities
from openilias.report.figures.tables import published_map
from openilias.report.html import ReportInput, score_text
from openilias.report.layout import bold, headings, texts
from openilias.report.pictures import Picture
from openilias.report.tables import best_rank, cut_name, group_tables


@dataclass(frozen=True)
class SiteRun:
    """What the site adds to a measured run: its own page, made when it is written, and what a reader must know."""

    name: str
    page: Callable[[], ReportInput] | None
    notes: tuple[str, ...] = ()


def script(name: str, value: Any) -> bytes:
    """Return a script that gives a name a value."""
    # A line separator ends a line of a script, and "</" the script itself.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign, safe in (("\u2028", "\\u2028"), ("\u2029", "\\u2029"), ("</", "<\\/")):
        text = text.replace(sign, safe)
    return f"{name}={text};\n".encode()


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
    statistics, texts_asked = analysis.statistics, set(benchmark.text_queries)
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
        "queries": [_query_data(benchmark, item, place, item in texts_asked) for item in asked],
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
                "low": None if pair.low is None else 1000 * pair.low,
                "high": None if pair.high is None else 1000 * pair.high,
                "p": pair.p,
                "adjusted": pair.adjusted,
            }
            for pair in found.pairs
        ],
        "exhibits": [_exhibit_data(one) for one in shown],
        "missing": list(analysis.missing),
        "notes": _site_notes(analysis),
        "details": [],
    }


def _site_notes(analysis: Analysis) -> list[str]:
    """Say which runs are not to be ranked with the others, and why."""
    usual = analysis.measured[0].evaluation
    found = {one.name: peculiarities(one, usual) for one in analysis.measured}
    return [f"{name} is not ranked with the others: {', '.join(why)}." for name, why in found.items() if why]


def _asked(analysis: Analysis) -> list[str]:
    return sorted({query.query_id for one in analysis.measured for query in one.evaluation.queries})


def _aps(evaluation: Evaluation, asked: Sequence[str]) -> list[float | None]:
    found = {query.query_id: round(1000 * query.ap, 3) for query in evaluation.queries}
    return [found.get(item) for item in asked]


def _category(benchmark: Benchmark, name: str) -> list[str] | None:
    node = benchmark.taxonomy.nodes.get(name)
    return None if node is None else list(node)


def _query_data(benchmark: Benchmark, item: str, place: Mapping[str, int], is_text: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"id": item, "object": place[item.partition("/")[0]]}
    if is_text:
        found["text"] = text_of_query(benchmark, item)
    return found


def _run_data(one: Measured, run: SiteRun, slug: str, analysis: Analysis) -> dict[str, Any]:
    evaluation, record = one.evaluation, one.record
    interval = analysis.intervals.get(one.name)
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
        "low": None if interval is None else 1000 * interval[0],
        "high": None if interval is None else 1000 * interval[1],
        "oracle": 1000 * evaluation.oracle,
        "hit": 1000 * sum(first) / len(first),
        "paper": None if paper is None else 10 * paper,
        "notes": list(run.notes),
        "flags": list(peculiarities(one, analysis.measured[0].evaluation)),
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


def run_lists(analysis: Analysis, one: Measured) -> dict[str, Any]:
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
