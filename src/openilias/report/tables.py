"""Numbers as text: the summary, the groups, the CSV files and Markdown tables. Pure functions."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from openilias.data.taxonomy import UNASSIGNED
from openilias.evaluate.evaluation import Evaluation, QueryResult
from openilias.evaluate.groups import CLUTTER_EDGES, COVERAGE_EDGES, Group

NOTHING = "–"
_UNASSIGNED_LABEL = "other (not assigned at this level)"


class SummaryRow(NamedTuple):
    """One headline number: what it is, its value with its unit, and how to read it."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class GroupRow:
    """A group as it is shown. ``parent`` is the coarse category of a mid category, else empty."""

    parent: str
    label: str
    group: Group


@dataclass(frozen=True)
class GroupTable:
    """One table of groups; ``absent`` says why there is none when ``rows`` is empty."""

    key: str
    title: str
    heading: str
    size_of: Literal["objects", "queries"]
    reading: str
    rows: tuple[GroupRow, ...]
    absent: str


def percent(value: float | None) -> str:
    """Return a share in [0, 1] as percent with one decimal."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def number(value: int) -> str:
    """Return a whole number with commas between thousands."""
    return f"{value:,}"


def count(value: int, noun: str) -> str:
    """Return ``1 query``, ``2 queries``, ``1,000 images``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number(value)} {noun if value == 1 else plural}"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def cut_name(k: int) -> str:
    """Return k as the paper writes it: ``1k`` for 1000."""
    return f"{k // 1000}k" if k % 1000 == 0 else str(k)


def best_rank(query: QueryResult) -> int | None:
    """Return the rank of the first hit of a query, None if there is none."""
    return min((rank for rank in query.ranks if rank is not None), default=None)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns; columns of numbers go to the right.

    Bars and line breaks within a cell are escaped.
    """
    cells = [[_markdown_cell(cell) for cell in row] for row in (header, *rows)]
    if any(len(row) != len(header) for row in cells):
        raise ValueError("Every row of a table must be as long as its header.")
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]
    right = [bool(rows) and all(_numeric(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        [
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ]
        for row in cells
    ]
    rule = ["-" * (width - 1) + (":" if at_right else "-") for width, at_right in zip(widths, right, strict=True)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (lines[0], rule, *lines[1:]))


def _markdown_cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _numeric(text: str) -> bool:
    return text == NOTHING or text.lstrip("+-*")[:1].isdigit()


def summary_rows(evaluation: Evaluation, *, database_size: int | None = None) -> list[SummaryRow]:
    """Return the headline numbers; the first row is mAP@k, the second the oracle."""
    queries, k = evaluation.queries, cut_name(evaluation.protocol.k)
    objects = {query.object: len(query.positives) for query in queries}
    positives = sum(objects.values())
    first = sum(best_rank(query) == 1 for query in queries)
    size = "not stated" if database_size is None else number(database_size)
    return [
        SummaryRow(f"mAP@{k}", percent(evaluation.map), "mean AP over all queries; higher is better"),
        SummaryRow(f"oracle@{k}", percent(evaluation.oracle), f"mAP if the first {k} were re-ranked perfectly"),
        SummaryRow(
            "correct first hit",
            percent(first / len(queries) if queries else None),
            f"{number(first)} of {count(len(queries), 'query')}",
        ),
        SummaryRow("queries", number(len(queries)), f"of {count(len(objects), 'object')}"),
        SummaryRow("positives", number(positives), f"{positives / max(len(objects), 1):.1f} per object"),
        SummaryRow("database", size, "images searched, positives included"),
    ]


def group_tables(evaluation: Evaluation) -> tuple[GroupTable, ...]:
    """Return the tables by category, mid category, coverage and clutter, with their names made readable."""
    by_object = "Mean over the objects of a category of the mean AP of their queries."
    by_positive = (
        "Only positives of the group count: the others are taken out of the lists, queries without a "
        "positive in the group are left out."
    )
    no_taxonomy = "There is no such table: the benchmark has no taxonomy.json that names the objects asked for."
    return (
        GroupTable(
            "category",
            "By category",
            "category",
            "objects",
            by_object,
            tuple(GroupRow("", _category(group.name), group) for group in evaluation.categories),
            no_taxonomy,
        ),
        GroupTable(
            "mid_category",
            "By mid-level category",
            "category",
            "objects",
            by_object,
            tuple(_mid_row(group) for group in evaluation.mid_categories),
            no_taxonomy,
        ),
        GroupTable(
            "coverage",
            "By area covered by the object",
            "area inside boxes",
            "queries",
            by_positive,
            _ranged(evaluation.coverage, COVERAGE_EDGES, _coverage_label),
            "There is no such table: the positives have no box files, and no coverage in positive_ids.txt.",
        ),
        GroupTable(
            "clutter",
            "By background clutter",
            "segments outside the boxes",
            "queries",
            by_positive,
            _ranged(evaluation.clutter, CLUTTER_EDGES, _clutter_label),
            "There is no such table: the benchmark has no clutter counts (image_ids/positive_ids.txt).",
        ),
    )


def _category(name: str) -> str:
    return _UNASSIGNED_LABEL if name == UNASSIGNED else name


def _mid_row(group: Group) -> GroupRow:
    coarse, _, mid = group.name.partition("/")
    return GroupRow(coarse, _category(mid), group)


def _ranged(
    groups: Iterable[Group], edges: tuple[float, ...], label: Callable[[float, float], str]
) -> tuple[GroupRow, ...]:
    labels = {f"{low:g}-{high:g}": label(low, high) for low, high in itertools.pairwise(edges)}
    return tuple(GroupRow("", labels.get(group.name, group.name), group) for group in groups)


def _coverage_label(low: float, high: float) -> str:
    ends = (f"{100 * min(edge, 1.0):.1f}".removesuffix(".0") for edge in (low, high))
    return f"{'–'.join(ends)} %"


def _clutter_label(low: float, high: float) -> str:
    # Counts are whole and the upper edge is not of the group.
    return f"{low:.0f} or more" if math.isinf(high) else f"{low:.0f}–{high - 1:.0f}"


def queries_csv(evaluation: Evaluation) -> str:
    """Return one line per query; AP and oracle in [0, 1] at full precision, best rank empty without a hit."""
    header = ("query_id", "object", "ap", "oracle", "positives", "hits", "best_rank")
    return csv_text(
        header,
        (
            (q.query_id, q.object, repr(q.ap), repr(q.oracle), len(q.positives), q.hits, best_rank(q))
            for q in evaluation.queries
        ),
    )


def groups_csv(evaluation: Evaluation) -> str:
    """Return one line per group of every table; the names are those of the evaluation."""
    header = ("table", "group", "map", "objects", "queries", "positives")
    return csv_text(
        header,
        (
            (
                table.key,
                row.group.name,
                None if row.group.map is None else repr(row.group.map),
                row.group.size if table.size_of == "objects" else None,
                row.group.size if table.size_of == "queries" else None,
                row.group.positives,
            )
            for table in group_tables(evaluation)
            for row in table.rows
        ),
    )


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> str:
    """Return lines as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
