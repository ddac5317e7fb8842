"""mAP against the number of distractors (Fig. C), and mini-ILIAS against random distractors (Table 3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from openilias.evaluate.distractors import Curve, equivalent_size
from openilias.published import printed
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import MOST_DRAWN
from openilias.report.figures.style import GREY, colour, from_zero, grid, new_figure, short
from openilias.report.layout import Column, Table


def distractors(curves: Mapping[str, Curve], *, k: int) -> Exhibit | None:
    """Draw mAP over the number of distractors, a line for each model; None if there is none.

    Where lists are too short to settle it, the range of what it can be is shaded.
    """
    if not curves:
        return None
    figure, axes = new_figure(6.4, 3.9)
    first = min((size for curve in curves.values() for size in curve.sizes if size), default=1)
    zero = first / 3  # where 0 stands on the logarithmic axis
    open_ = False
    best = sorted(curves, key=lambda name: -float(curves[name].mean[-1]))[:MOST_DRAWN]
    for number, (name, curve) in enumerate((name, curve) for name, curve in curves.items() if name in best):
        places = [size or zero for size in curve.sizes]
        low, high = 100 * curve.low.mean(axis=1), 100 * curve.high.mean(axis=1)
        axes.fill_between(places, low, high, color=colour(number), alpha=0.18, linewidth=0)
        axes.plot(places, 100 * curve.mean, "-", color=colour(number), linewidth=1.5)
        for settled, fill in ((True, colour(number)), (False, "white")):
            chosen = curve.settled == settled
            axes.plot(
                np.array(places)[chosen], 100 * curve.mean[chosen], "o", color=colour(number), markersize=4.5,
                markerfacecolor=fill, label=short(name) if settled == bool(curve.settled.any()) else None,
            )  # fmt: skip
        open_ |= not curve.settled.all()
    axes.set_xscale("log")
    largest = max(size for curve in curves.values() for size in curve.sizes)
    powers = [10**power for power in range(1, 10) if first <= 10**power <= largest]
    ends = [largest] if largest and (not powers or largest > 1.6 * powers[-1]) else []
    axes.set_xticks([zero, *powers, *ends], ["0", *map(_count, (*powers, *ends))])
    axes.minorticks_off()
    axes.set(xlabel="distractors", ylabel=f"mAP@{k:,}, %")
    from_zero(axes)
    if open_:
        axes.plot([], [], "o", color=GREY, markerfacecolor="white", markersize=4.5, label="a range: lists too short")
    axes.set_title("mAP against the number of distractors")
    axes.legend()
    grid(axes, "both")
    columns = (
        Column("model", "model"),
        Column("distractors", "distractors"),
        Column("map", "mAP, %", 2),
        Column("std", "std", 2),
        Column("least", "at least", 2),
        Column("most", "at most", 2),
    )
    rows = tuple(
        (
            name,
            size,
            100 * float(curve.mean[n]),
            100 * float(curve.std[n]),
            100 * float(curve.low[n].mean()),
            100 * float(curve.high[n].mean()),
        )
        for name, curve in curves.items()
        for n, size in enumerate(curve.sizes)
    )
    subsets = next(iter(curves.values())).low.shape[1]
    notes = ("Hollow: the lists are too short to settle it; its range is shaded. Search deeper: -k.",) if open_ else ()
    title = f"mAP against the number of distractors, mean and standard deviation of {subsets} random nested subsets."
    return Exhibit("figure-c-distractors", "Fig. C", Table(title, columns, rows, notes=notes), figure)


def _count(number: int) -> str:
    for size, name in ((10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g}{name}"
    return str(number)


@dataclass(frozen=True, eq=False)
class MiniSet:
    """A chosen set of distractors against random ones of the same number.

    Attributes:
        name: of the model.
        whole: mAP with all distractors, in [0, 1].
        size: of the chosen set.
        chosen: the least and the most that mAP can be with the chosen set.
        random: the curve of random subsets, with ``size`` among its sizes.
    """

    name: str
    whole: float
    size: int
    chosen: tuple[float, float]
    random: Curve


def mini(sets: Mapping[str, MiniSet] | list[MiniSet]) -> Exhibit | None:
    """Return mAP with all distractors, with the chosen and with random ones; None if there is none."""
    found = list(sets.values() if isinstance(sets, Mapping) else sets)
    if not found:
        return None
    columns = (
        Column("model", "model"),
        Column("all", "all distractors"),
        Column("chosen", f"{found[0].size:,} chosen"),
        Column("random", f"{found[0].size:,} random"),
        Column("random_std", "std", 2),
        Column("equivalent", "as hard as so many random ones"),
    )
    rows, notes = [], []
    for one in found:
        place = one.random.sizes.index(one.size)
        value = sum(one.chosen) / 2
        as_hard = equivalent_size(one.random, value)
        rows.append(
            (
                one.name,
                100 * one.whole,
                100 * value,
                100 * float(one.random.mean[place]),
                100 * float(one.random.std[place]),
                None if as_hard is None else round(as_hard),
            )
        )
        if one.chosen[0] != one.chosen[1] or not one.random.settled[place]:
            low, high = 100 * one.random.low[place].mean(), 100 * one.random.high[place].mean()
            notes.append(
                f"{one.name}: the lists are too short to settle it: {100 * one.chosen[0]:.1f} to "
                f"{100 * one.chosen[1]:.1f} with the chosen, {low:.1f} to {high:.1f} with random ones."
            )
    paper = printed("3")
    notes.append(
        "paper, ILIAS 100M, mini-ILIAS, 5M random: "
        + "; ".join(f"{row[0]} † {row[1]}, {row[2]}, {row[3]} ± {row[4]}" for row in paper.cells)
        + "; about 26M random distractors are as hard as mini-ILIAS."
    )
    title = f"Chosen distractors against random ones, mAP in %; {found[0].random.low.shape[1]} random subsets."
    return Exhibit("table-3-mini", "Table 3", Table(title, columns, tuple(rows), notes=tuple(notes)))
