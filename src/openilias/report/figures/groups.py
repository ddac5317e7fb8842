"""mAP by area coverage and clutter, as Fig. 7, and where such positives stand, as Fig. E of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from openilias.evaluate.evaluation import Attribute, QueryResult
from openilias.evaluate.groups import CLUTTER_EDGES, COVERAGE_EDGES, RANK_EDGES, Group, rank_table
from openilias.published import printed
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import MOST_DRAWN, Measured, map_label, of_the_best, on_benchmarks
from openilias.report.figures.style import colour, from_zero, grid, heading, legend_below, new_figure, short
from openilias.report.layout import Column, Table, printed_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {"coverage": "area coverage, %", "clutter": "segments outside the boxes"}
EDGES: Mapping[Attribute, tuple[float, ...]] = {"coverage": COVERAGE_EDGES, "clutter": CLUTTER_EDGES}


def edge_labels(attribute: Attribute, edges: Sequence[float]) -> list[str]:
    """Return the groups between edges in words: the lower edge belongs to a group, the upper one does not."""
    shown = [100 * edge if attribute == "coverage" else edge for edge in edges]
    last = "100]" if attribute == "coverage" else "∞)"
    texts = [f"{edge:.1f}".removesuffix(".0") for edge in shown]
    return [f"[{low}, {last if np.isinf(shown[n + 1]) else texts[n + 1] + ')'}" for n, low in enumerate(texts[:-1])]


def groups(
    measured: Sequence[Measured],
    attribute: Attribute,
    *,
    edges: Sequence[float] | None = None,
    found: Sequence[Sequence[Group]] | None = None,
) -> Exhibit | None:
    """Draw mAP by groups of positives, a line for each model; None if nothing is known of the positives.

    Args:
        measured: the models.
        attribute: of the positives.
        edges: of the groups; those of the official evaluation by default.
        found: the groups of each model between these edges; those of the evaluations by default.
    """
    own = list(found) if found is not None else [getattr(one.evaluation, attribute) for one in measured]
    kept = [(one, list(some)) for one, some in zip(measured, own, strict=True) if some]
    if not kept:
        return None
    official = edges is None
    labels = edge_labels(attribute, edges or EDGES[attribute])
    sizes = [group.size for group in kept[0][1]]
    figure, axes = new_figure(5.6, 3.4)
    for number, (one, some) in enumerate(of_the_best(kept)):
        points = [(place, 100 * group.map) for place, group in enumerate(some) if group.map is not None]
        marker = "os^DvPX*"[number % 8]
        axes.plot(*zip(*points, strict=True), f"{marker}-", color=colour(number), label=short(one.name, 40))
    axes.set_xticks(range(len(labels)), [f"{label}\n({size:,})" for label, size in zip(labels, sizes, strict=True)])
    axes.set(
        xlabel=f"{_NAMES[attribute]} (queries)",
        ylabel=map_label([one for one, _ in kept]),
        xlim=(-0.3, len(labels) - 0.7),
    )
    from_zero(axes)
    cut = "official groups" if official else "quartiles of these positives"
    axes.set_title(f"mAP by {'area coverage' if attribute == 'coverage' else 'clutter'}, {cut}")
    legend_below(figure)
    grid(axes)
    columns = (
        Column("group", _NAMES[attribute]),
        Column("queries", "queries"),
        Column("positives", "positives"),
        *(Column(one.name, one.name, best="high") for one, _ in kept),
    )
    rows = tuple(
        (
            label,
            kept[0][1][place].size,
            kept[0][1][place].positives,
            *(None if some[place].map is None else 100 * some[place].map for _, some in kept),
        )
        for place, label in enumerate(labels)
    )
    notes = ["Positives of other groups are taken out of the lists, queries without a positive in a group left out."]
    if any([group.size for group in some] != sizes for _, some in kept):
        notes.append(f"The numbers of queries are those of {kept[0][0].name}.")
    if len(kept) > MOST_DRAWN:
        notes.append(f"Drawn are the {MOST_DRAWN} best.")
    title = f"mAP in % by {_NAMES[attribute]}, {cut}; {on_benchmarks([one for one, _ in kept])}."
    name = f"figure-7-{attribute}{'' if official else '-quartiles'}"
    return Exhibit(name, "Fig. 7", Table(title, columns, rows, notes=tuple(notes), across=True), figure)


def rank_labels(ranks: Sequence[int] = RANK_EDGES) -> list[str]:
    """Return the ranges of ranks in words."""
    return [f"({low:,}, {high:,}]" for low, high in pairwise(ranks)] + [f"over {ranks[-1]:,}"]


def ranks(
    name: str,
    queries: Sequence[QueryResult],
    values: Mapping[str, float],
    attribute: Attribute,
    *,
    depth: int,
    edges: Sequence[float] | None = None,
) -> Exhibit | None:
    """Draw which positives stand at which ranks: the share of each group in each range; None if nothing is known.

    Args:
        name: of the model.
        queries: with the ranks of their positives.
        values: positive -> attribute.
        attribute: which one.
        depth: how far the lists were looked at; what is not among these images stands in the last range.
        edges: of the groups; those of the official evaluation by default.
    """  # fmt: skip
    chosen = edges or EDGES[attribute]
    cut = [edge for edge in RANK_EDGES if edge < depth or edge == RANK_EDGES[-1] <= depth]
    cut += [depth] if depth < RANK_EDGES[-1] else []
    counts = rank_table(queries, values, chosen, cut)
    if not counts.sum():
        return None
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(100.0 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    labels, lines = edge_labels(attribute, chosen), rank_labels(cut)
    if depth <= RANK_EDGES[-1]:
        lines[-1] = f"not among {depth:,}"
    figure = _heat(shares, labels, [f"{line}\n({n:,})" for line, n in zip(lines, totals[:, 0], strict=True)], attribute)
    heading(figure, f"{short(name, 40)}: positives by rank, % of a line")
    published = _published(attribute) if edges is None and depth >= RANK_EDGES[-1] else {}
    columns = (
        Column("rank", "rank"),
        Column("group", _NAMES[attribute]),
        Column("positives", "positives"),
        Column("share", "share of the line, %", 2),
        *((Column("paper", "paper", 2),) if published else ()),
    )
    rows = tuple(
        (
            line,
            label,
            int(counts[row, column]),
            None if np.isnan(shares[row, column]) else float(shares[row, column]),
            *((published[row, column],) if published else ()),
        )
        for row, line in enumerate(lines)
        for column, label in enumerate(labels)
    )
    notes = ("paper: SigLIP, adapted, on ILIAS with 100M distractors.",) if published else ()
    what = "clutter" if attribute == "clutter" else "area coverage"
    title = (
        f"Share of the positives in a range of ranks by {what}; {name}. Pairs of a query and a positive are counted."
    )
    return Exhibit(f"figure-e-{attribute}-ranks", "Fig. E", Table(title, columns, rows, notes=notes), figure)


def _heat(shares: npt.NDArray[np.float64], labels: Sequence[str], lines: Sequence[str], attribute: Attribute) -> Figure:
    """Draw shares in %, (lines, groups), as shades with their numbers."""
    figure, axes = new_figure(5.4, 3.1)
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=max(60.0, float(np.nanmax(shares))), aspect="auto")
    for (row, column), value in np.ndenumerate(shares):
        text = "–" if np.isnan(value) else f"{value:.1f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if value > 45 else "black")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(lines)), lines)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set(xlabel=_NAMES[attribute], ylabel="rank (positives)")
    return figure


def published_ranks(attribute: Attribute) -> Exhibit:
    """Draw Fig. E as it is printed."""
    source = printed("figure E").where("attribute", attribute)
    shares = np.array([float(row[3]) for row in source.cells]).reshape(len(RANK_EDGES), -1)
    labels = list(dict.fromkeys(row[2] for row in source.cells))
    lines = list(dict.fromkeys(row[0] for row in source.cells))
    figure = _heat(shares, labels, lines, attribute)
    heading(figure, "The paper: SigLIP, adapted, ILIAS with 100M distractors, % of a line")
    return Exhibit(f"paper-figure-e-{attribute}", "Fig. E", printed_table(source), figure)


def _published(attribute: Attribute) -> dict[tuple[int, int], float]:
    rows = [row for row in printed("figure E").rows if row[1] == attribute]
    return {divmod(n, 4): float(share) for n, (*_, share) in enumerate(rows) if isinstance(share, float)}
