"""Sheets of pictures: what queries find (Figs. 2, L, M), what re-ranking moves (J), the objects (N of the paper)."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from openilias.evaluate.evaluation import Evaluation, QueryResult
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.style import GREEN, GREY, RED, short
from openilias.report.layout import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["query", "positive", "negative"]
Pixels = npt.NDArray[np.uint8]
Look = Callable[[str], Pixels | None]
_COLOURS: Mapping[Kind, str] = {"query": GREY, "positive": GREEN, "negative": RED}
SHOWN = 4
"""Positives, and negatives, of each query."""


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet: its id, what it is, and the words beneath."""

    id: str
    kind: Kind
    words: str


@dataclass(frozen=True)
class Line:
    """A line of a sheet: the words above it, the text of a text query, the pictures."""

    title: str
    cells: tuple[Cell, ...]
    text: str | None = None


def retrieved(
    name: str,
    evaluation: Evaluation,
    queries: Sequence[QueryResult],
    first: Mapping[str, Sequence[tuple[str, float]]],
    look: Look,
    texts: Mapping[str, str] | None = None,
) -> Exhibit | None:
    """Draw queries with their positives and the negatives above them, and their ranks; None without any.

    Args:
        name: of the model.
        evaluation: it is of.
        queries: that are drawn.
        first: query -> ids and scores of its first images.
        look: returns the picture of an id, None if there is none.
        texts: of text queries; None draws image queries.
    """
    lines, rows = [], []
    for query in queries:
        order = sorted(zip(query.positives, query.ranks, strict=True), key=lambda pair: (pair[1] is None, pair[1] or 0))
        own = set(query.positives)
        negatives = [(item, rank) for rank, (item, _) in enumerate(first.get(query.query_id, ()), 1) if item not in own]
        cells = [
            *(
                Cell(item, "positive", "not in the list" if rank is None else f"{rank:,}")
                for item, rank in order[:SHOWN]
            ),
            *(Cell(item, "negative", f"{rank:,}") for item, rank in negatives[:SHOWN]),
        ]
        if texts is None:
            cells.insert(0, Cell(query.query_id, "query", ""))
        title = f"{query.query_id}: AP {100 * query.ap:.1f}"
        lines.append(Line(title, tuple(cells), None if texts is None else texts.get(query.query_id, "")))
        rows += [(query.query_id, 100 * query.ap, cell.kind, cell.id, cell.words) for cell in cells]
    if not lines:
        return None
    columns = (
        Column("query", "query"),
        Column("ap", "AP, %"),
        Column("kind", "kind"),
        Column("image", "image"),
        Column("rank", "rank"),
    )
    kind, paper, file = ("image", "Figs. 2, L", "l-images") if texts is None else ("text", "Fig. M", "m-texts")
    title = f"{name}: {kind} queries, their positives and the hardest negatives, with ranks."
    table = Table(title, columns, tuple(rows))
    return Exhibit(f"figure-{file}", paper, table, sheet(lines, look))


def objects(queries: Mapping[str, Sequence[str]], positives: Mapping[str, Sequence[str]], look: Look) -> Exhibit | None:
    """Draw the queries and positives of some objects; None without any.

    Args:
        queries: object -> its image queries.
        positives: object -> its positives.
        look: returns the picture of an id, None if there is none.
    """
    lines = [
        Line(
            name,
            (
                *(Cell(item, "query", "") for item in queries[name][:2]),
                *(Cell(item, "positive", "") for item in positives[name][: 2 * SHOWN - 1]),
            ),
        )
        for name in queries
    ]
    if not lines:
        return None
    columns = (Column("object", "object"), Column("kind", "kind"), Column("image", "image"))
    rows = tuple((line.title, cell.kind, cell.id) for line in lines for cell in line.cells)
    return Exhibit(
        "figure-n-objects", "Fig. N", Table("Queries and positives of some objects.", columns, rows), sheet(lines, look)
    )


@dataclass(frozen=True)
class Moved:
    """A query and a positive that re-ranking moved: how many negatives stand above it, before and after."""

    query_id: str
    positive: str
    before: int
    after: int
    ap_before: float
    ap_after: float


def reranked(name: str, moves: Sequence[Moved], look: Look) -> Exhibit | None:
    """Draw the queries that gain most from re-ranking, with the positive that rises most; None without any."""
    if not moves:
        return None
    lines = [
        Line(
            f"{short(move.query_id, 30)}\nAP {100 * move.ap_before:.1f} → {100 * move.ap_after:.1f}",
            (
                Cell(move.query_id, "query", ""),
                Cell(move.positive, "positive", f"above: {move.before:,} → {move.after:,}"),
            ),
        )
        for move in moves
    ]
    columns = (
        Column("query", "query"),
        Column("ap_before", "AP before, %"),
        Column("ap_after", "after, %"),
        Column("positive", "positive"),
        Column("above_before", "negatives above, before"),
        Column("above_after", "after"),
    )
    rows = tuple((m.query_id, 100 * m.ap_before, 100 * m.ap_after, m.positive, m.before, m.after) for m in moves)
    table = Table(f"{name}: queries that gain most from re-ranking.", columns, rows)
    return Exhibit("figure-j-reranking", "Fig. J", table, sheet(lines, look, across=3))


def sheet(lines: Sequence[Line], look: Look, *, across: int = 1) -> Figure:
    """Draw lines of pictures in frames: grey queries, green positives, red negatives.

    Args:
        lines: from top to bottom.
        look: returns the picture of an id, None if there is none.
        across: lines side by side.
    """
    from matplotlib.figure import Figure as Drawn

    width = max(len(line.cells) + (2 if line.text is not None else 0) for line in lines)
    down = -(-len(lines) // across)
    figure = Drawn(figsize=(1.22 * width * across, 1.72 * down), layout=None)
    for number, line in enumerate(lines):
        top, left = 1 - (number // across) / down, (number % across) / across
        height = 1 / down
        title = "\n".join(short(part, 14 * width + 4) for part in line.title.split("\n"))
        figure.text(left + 0.004, top - 0.03 * height, title, fontsize=8, va="top", weight="bold")
        place = 0
        if line.text is not None:
            wrapped = "\n".join(textwrap.wrap(line.text, 30)[:8])
            figure.text(left + 0.004, top - 0.18 * height, wrapped, fontsize=6.5, va="top")
            place = 2
        for cell in line.cells:
            box = (
                left + (place + 0.04) / width / across,
                top - 0.86 * height,
                0.92 / width / across,
                0.68 * height,
            )
            axes = figure.add_axes(box)
            axes.set_xticks([])
            axes.set_yticks([])
            picture = look(cell.id)
            if picture is None:
                axes.text(0.5, 0.5, "no picture", ha="center", va="center", fontsize=7, transform=axes.transAxes)
                axes.set_aspect("equal", adjustable="datalim")
            else:
                axes.imshow(picture, interpolation="lanczos", aspect="equal")
            for spine in axes.spines.values():
                spine.set(visible=True, color=_COLOURS[cell.kind], linewidth=2.2)
            axes.set_xlabel(cell.words, fontsize=7, labelpad=2)
            place += 1
    return figure
