"""Models compared: intervals, differences, and the queries that decide them (nothing of it is in the paper)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openilias.evaluate.comparison import Comparison, Pair, differences_of
from openilias.report.figures.exhibit import Exhibit, write_exhibit
from openilias.report.figures.per_query import ap_table
from openilias.report.figures.style import BLUE, GREY, LINE, ORANGE, figure_style, grid, heading, new_figure, short
from openilias.report.layout import Column, Table, csv_of
from openilias.report.output import output_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KIND = "model_comparison"
MOST_PLOTS = 6
"""Pairs whose queries are drawn."""


def percent(value: float | None) -> float | None:
    """Return a share in %."""
    return None if value is None else 100 * value


def standings(comparison: Comparison) -> Exhibit:
    """Return each model's mAP with its confidence interval, best first."""
    low, high = f"{100 * comparison.level:g} % from", "to"
    rows = [
        (one.name, 100 * one.map, percent(one.low), percent(one.high))
        for one in sorted(comparison.standings, key=lambda one: -one.map)
    ]
    columns = (
        Column("model", "model"),
        Column("map", "mAP", 2, "high"),
        Column("low", low, 2),
        Column("high", high, 2),
    )
    return Exhibit("models", "", Table(_of(comparison, "mAP in %, with confidence intervals"), columns, tuple(rows)))


def _of(comparison: Comparison, what: str) -> str:
    aligned = comparison.aligned
    things = f"{len(aligned.ids):,} {'queries' if aligned.unit == 'query' else 'objects'}"
    objects = f" of {len(set(aligned.objects)):,} objects" if aligned.unit == "query" else ""
    return f"{what}; {things}{objects}, {comparison.resamples:,} resamples of the objects."


def differences(comparison: Comparison, corrected_for: int | None = None) -> Exhibit:
    """Return a line per pair, and draw the differences with their confidence intervals.

    Args:
        comparison: the pairs.
        corrected_for: how many pairs p is corrected for, where not all of them are here.
    """
    unit = "queries" if comparison.aligned.unit == "query" else "objects"
    columns = (
        Column("a", "model A"),
        Column("b", "model B"),
        Column("difference", "B − A", 2, signed=True),
        Column("low", f"{100 * comparison.level:g} % from", 2, signed=True),
        Column("high", "to", 2, signed=True),
        Column("p", "p", 4),
        Column("p_adjusted", "p, Holm", 4),
        Column("effect", "effect", 2, signed=True),
        Column("better", "better"),
        Column("worse", "worse"),
        Column("same", "same"),
        Column("gain", "gain each", 1, signed=True),
        Column("loss", "loss each", 1, signed=True),
        Column("carried_by", "carried by, objects"),
    )
    rows = tuple(
        (
            pair.a,
            pair.b,
            100 * pair.difference,
            percent(pair.low),
            percent(pair.high),
            pair.p,
            pair.adjusted,
            pair.effect,
            pair.better,
            pair.worse,
            pair.same,
            100 * pair.gain,
            100 * pair.loss,
            pair.carried_by,
        )
        for pair in comparison.pairs
    )
    notes = (
        f"better, worse, same: {unit} with a higher, lower, equal AP; gain, loss each: their mean difference.",
        f"p: paired permutation test over objects; Holm: corrected for {corrected_for or len(rows)} pairs.",
        "effect: mean difference of an object over the standard deviation of these.",
        "carried by: the least number of objects without which there is no difference left.",
    )
    table = Table(_of(comparison, "Differences of mAP in points"), columns, rows, notes=notes)
    figure, axes = new_figure(6.4, 1.1 + 0.34 * max(1, len(rows)))
    places = np.arange(len(rows))
    for place, pair in zip(places, comparison.pairs, strict=True):
        low, high = pair.low or 0.0, pair.high or 0.0
        colour = GREY if low <= 0 <= high else BLUE if pair.difference > 0 else ORANGE
        if pair.low is not None:
            axes.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot([100 * pair.difference], [place], "o", color=colour, markersize=5)
    axes.axvline(0, color=LINE, linewidth=0.8)
    axes.set_yticks(places, [f"{short(pair.b)} − {short(pair.a)}" for pair in comparison.pairs])
    axes.set(xlabel="difference of mAP, points", ylim=(len(rows) - 0.5, -0.5))
    heading(figure, f"Differences and their {100 * comparison.level:g} % confidence intervals")
    grid(axes, "x")
    return Exhibit("differences", "", table, figure)


def queries(comparison: Comparison) -> Exhibit:
    """Return the queries that decide each pair, and draw the differences of all queries by size."""
    columns = (
        Column("a", "model A"),
        Column("b", "model B"),
        Column(comparison.aligned.unit, comparison.aligned.unit),
        Column("ap_a", "AP of A"),
        Column("ap_b", "AP of B"),
        Column("difference", "B − A", signed=True),
    )
    rows = tuple(
        (pair.a, pair.b, one.id, 100 * one.a, 100 * one.b, 100 * (one.b - one.a))
        for pair in comparison.pairs
        for one in pair.deciding
    )
    drawn = comparison.pairs[:MOST_PLOTS]
    notes = () if len(drawn) == len(comparison.pairs) else (f"Drawn are the first {MOST_PLOTS} pairs.",)
    table = Table("The largest differences of AP, in points.", columns, rows, notes=notes)
    if not drawn:
        return Exhibit("queries", "", table)
    from matplotlib.figure import Figure

    across = min(2, len(drawn))
    down = -(-len(drawn) // across)
    figure = Figure(figsize=(1.2 + 4.2 * across, 0.4 + 2.6 * down), layout="constrained")
    plots = figure.subplots(down, across, squeeze=False).ravel()
    for axes, pair in zip(plots, drawn, strict=False):
        _waterfall(axes, comparison, pair)
    for axes in plots[len(drawn) :]:
        axes.set_visible(False)
    return Exhibit("queries", "", table, figure)


def _waterfall(axes: Axes, comparison: Comparison, pair: Pair) -> None:
    aligned = comparison.aligned
    first, second = aligned.names.index(pair.a), aligned.names.index(pair.b)
    each = 100 * np.sort(differences_of(aligned, first, second))[::-1]
    places = np.arange(len(each))
    axes.fill_between(places, each, where=(each > 0).tolist(), color=BLUE, step="mid", linewidth=0)
    axes.fill_between(places, each, where=(each < 0).tolist(), color=ORANGE, step="mid", linewidth=0)
    axes.axhline(0, color=LINE, linewidth=0.8)
    axes.axhline(100 * pair.difference, color=LINE, linewidth=0.9, linestyle="--")
    things = "queries" if aligned.unit == "query" else "objects"
    axes.set(xlabel=f"{things}, by difference", ylabel="difference of AP, points", xlim=(-0.5, len(each) - 0.5))
    counts = f"{pair.better:,} better, {pair.worse:,} worse, mean {100 * pair.difference:+.1f}"
    named = f"{pair.b} − {pair.a}"
    if len(named) > 44:
        named = f"{short(pair.b, 44)}\n− {short(pair.a, 42)}"
    axes.set_title(f"{named}\n{counts}")
    grid(axes)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values, but for the single queries."""
    aligned = comparison.aligned
    return {
        "unit": aligned.unit,
        "compared": len(aligned.ids),
        "objects": len(set(aligned.objects)),
        "level": comparison.level,
        "interval": comparison.interval,
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "models": [vars(one) for one in comparison.standings],
        "pairs": [vars(pair) | {"deciding": [vars(one) for one in pair.deciding]} for pair in comparison.pairs],
    }


def write_comparison(comparison: Comparison, out: Path) -> list[str]:
    """Write all exhibits, ``per_query.csv`` and ``model_comparison.json``: equal input, equal bytes.

    Raises:
        OpenIliasError: ``out`` holds something else.
    """
    with output_folder(out, KIND, comparison_json(comparison)) as folder, figure_style():
        names = [
            name
            for exhibit in (standings(comparison), differences(comparison), queries(comparison))
            for name in write_exhibit(exhibit, folder)
        ]
        (folder / "per_query.csv").write_text(csv_of(ap_table(comparison.aligned)), encoding="utf-8")
    return [*names, "per_query.csv"]
