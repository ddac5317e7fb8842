"""AP of every query, one model against another, as Fig. 6 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openilias.evaluate.comparison import Aligned, differences_of
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.style import BLUE, LINE, grid, short
from openilias.report.layout import Column, Table

MOST = 9
"""Models that are drawn against the first."""


def per_query(aligned: Aligned, pairs: Sequence[tuple[int, int]] | None = None) -> Exhibit | None:
    """Draw the APs of one model over those of another, with Pearson's correlation; None of one model alone.

    Args:
        aligned: the APs.
        pairs: (x, y) columns; all others over the first by default.
    """
    from matplotlib.figure import Figure

    chosen = list(pairs if pairs is not None else ((0, n) for n in range(1, len(aligned.names))))
    if not chosen:
        return None
    drawn = chosen[:MOST]
    across = min(3, len(drawn))
    down = -(-len(drawn) // across)
    figure = Figure(figsize=(0.4 + 2.9 * across, 0.3 + 3.1 * down), layout="constrained")
    plots = figure.subplots(down, across, squeeze=False).ravel()
    things = "queries" if aligned.unit == "query" else "objects"
    for axes, (x, y) in zip(plots, drawn, strict=False):
        axes.plot([0, 100], [0, 100], color=LINE, linewidth=0.7)
        axes.plot(100 * aligned.ap[:, x], 100 * aligned.ap[:, y], "o", color=BLUE, alpha=0.35, markersize=3.5,
                  markeredgewidth=0)  # fmt: skip
        r = correlation(aligned.ap[:, x], aligned.ap[:, y])
        axes.set(
            xlabel=f"AP of {short(aligned.names[x], 30)}, %",
            ylabel=f"AP of {short(aligned.names[y], 30)}, %",
            xlim=(-2, 102),
            ylim=(-2, 102),
            aspect="equal",
        )
        axes.set_title("" if r is None else f"r = {r:.2f}")
        grid(axes, "both")
    for axes in plots[len(drawn) :]:
        axes.set_visible(False)
    columns = (
        Column("x", "model"),
        Column("y", "against"),
        Column("pearson", "Pearson r", 3),
        Column("better", f"{things} better"),
        Column("worse", f"{things} worse"),
        Column("same", f"{things} the same"),
    )
    rows = []
    for x, y in chosen:
        each = differences_of(aligned, x, y)
        counts = int((each > 0).sum()), int((each < 0).sum()), int((each == 0).sum())
        rows.append((aligned.names[x], aligned.names[y], correlation(aligned.ap[:, x], aligned.ap[:, y]), *counts))
    notes = () if len(drawn) == len(chosen) else (f"Drawn are the first {MOST}.",)
    table = Table(
        "AP per query, and Pearson's correlation; better: the second model.", columns, tuple(rows), notes=notes
    )
    return Exhibit(f"figure-6-per-{aligned.unit}", "Fig. 6", table, figure, ap_table(aligned))


def ap_table(aligned: Aligned) -> Table:
    """Return the AP of every query by every model."""
    names = tuple(Column(name, name) for name in aligned.names)
    lines = (100 * aligned.ap).tolist()
    rows = tuple((item, *line) for item, line in zip(aligned.ids, lines, strict=True))
    return Table("AP in %", (Column(f"{aligned.unit}_id", aligned.unit), *names), rows)


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Pearson's correlation; None if one of them does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
