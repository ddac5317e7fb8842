"""mAP over the years of publication, as Fig. 1 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from openilias.published import image_rows, reranked_by_method, text_rows
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import MOST_DRAWN, Measured
from openilias.report.figures.style import BLUE, GREEN, ORANGE, RED, apart, from_zero, grid, new_figure, short
from openilias.report.layout import Column, Table

IMAGES, TEXTS, RERANKED = "image-to-image, adapted", "text-to-image", "re-ranked with local descriptors"
_COLOURS = {IMAGES: BLUE, TEXTS: ORANGE, RERANKED: GREEN}


def published_points() -> list[tuple[str, int, str, float]]:
    """Return (curve, year, model, mAP in %) of the models of the paper, with 100M distractors."""
    years = {row.checkpoint: row.year for row in image_rows()}
    return [
        *((IMAGES, row.year, row.checkpoint, row.map_100m_adapted) for row in image_rows()),
        *((TEXTS, row.year, row.checkpoint, row.map_100m) for row in text_rows()),
        *(
            (RERANKED, years[row.model], f"{row.model} + {row.method}", row.map)
            for row in reranked_by_method()
            if row.method in ("CS", "SP", "AMES") and row.adapted
        ),
    ]


def best_so_far(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return (year, the best until its end), a point for each year with a better one."""
    found: list[tuple[int, float]] = []
    for year in sorted({year for year, _ in points}):
        best = max(value for other, value in points if other == year)
        if not found or best > found[-1][1]:
            found.append((year, best))
    return found


def timeline(measured: Sequence[Measured] = ()) -> Exhibit:
    """Draw the published models and the best so far, and place ours.

    A model without a record has no year and stands at the right edge; ours are hollow where the database is not that of
    ILIAS with 100M distractors: such numbers are not to be compared with the curves.
    """
    from matplotlib.patheffects import withStroke

    published = published_points()
    last = max(year for _, year, _, _ in published)
    figure, axes = new_figure(6.8, 4)
    for name, colour in _COLOURS.items():
        points = [(year, value) for curve, year, _, value in published if curve == name]
        axes.plot(*zip(*points, strict=True), "o", color=colour, alpha=0.3, markersize=3.5)
        curve = best_so_far(points)
        steps = [*curve, (max(last, curve[-1][0]) + 0.6, curve[-1][1])]
        axes.step(*zip(*steps, strict=True), where="post", color=colour, linewidth=1.8, label=name)
    others = not all(one.full for one in measured)
    values = [100 * one.evaluation.map for one in measured]
    highest = max([*values, *(value for *_, value in published)])
    labelled = sorted(range(len(values)), key=lambda n: -values[n])[:MOST_DRAWN]
    places = dict(zip(labelled, apart([values[n] for n in labelled], 0.045 * highest), strict=True))
    for number, (one, value) in enumerate(zip(measured, values, strict=True)):
        year = last + 0.5 if one.record is None else one.record.year
        fill = RED if one.full else "white"
        axes.plot([year], [value], "*", color=RED, markerfacecolor=fill, markersize=10)
        if number in places:
            axes.annotate(
                short(one.name), (year, places[number]), xytext=(8, 0), textcoords="offset points", va="center",
                fontsize=8, path_effects=[withStroke(linewidth=2.5, foreground="white")], zorder=5,
            )  # fmt: skip
    for label, fill in (("ours", RED), ("ours, on another database", "white")):
        if any(one.full == (fill == RED) for one in measured):
            axes.plot([], [], "*", color=RED, markerfacecolor=fill, markersize=8, label=label)
    axes.set(xlabel="year of publication", ylabel="mAP@1k, %", xlim=(2011.5, last + 0.8))
    from_zero(axes)
    axes.set_title("Performance over time on ILIAS, 100M distractors" + (", and ours" if measured else ""))
    axes.legend(loc="upper left")
    grid(axes)
    columns = (
        Column("curve", "curve"),
        Column("year", "year"),
        Column("model", "model"),
        Column("map", "mAP, %"),
        Column("database", "database"),
    )
    rows = [
        *((curve, year, model, value, "ILIAS 100M") for curve, year, model, value in published),
        *(
            ("ours", None if one.record is None else one.record.year, one.name, 100 * one.evaluation.map, one.benchmark)
            for one in measured
        ),
    ]
    note = "Hollow: measured on another database than that of the curves, and not to be compared with them."
    table = Table("mAP by year of publication, in %.", columns, tuple(rows), notes=(note,) if others else ())
    return Exhibit("figure-1-timeline", "Fig. 1", table, figure)
