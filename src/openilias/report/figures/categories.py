"""mAP by category of several models, as Figs. 5 and F of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from openilias.data.taxonomy import UNASSIGNED
from openilias.evaluate.groups import Group
from openilias.report.figures.exhibit import Exhibit
from openilias.report.figures.measured import MOST_DRAWN, Measured, map_label, of_the_best, on_benchmarks
from openilias.report.figures.style import colour, grid, legend_below, new_figure, short
from openilias.report.layout import Column, Table

Level = Literal["mid", "coarse"]


def _groups(one: Measured, level: Level) -> dict[str, Group]:
    return {
        group.name: group for group in (one.evaluation.mid_categories if level == "mid" else one.evaluation.categories)
    }


def ordered_categories(measured: Sequence[Measured], level: Level) -> list[str]:
    """Return the categories: coarse ones by falling size, the mid ones in each by mAP of the first model."""
    first = _groups(measured[0], level)
    sizes: dict[str, int] = {}
    for name, group in first.items():
        coarse = name.partition("/")[0]
        sizes[coarse] = sizes.get(coarse, 0) + group.size
    if level == "coarse":
        return sorted(first, key=lambda name: (-(first[name].map or 0), name))
    return sorted(
        first,
        key=lambda name: (-sizes[name.partition("/")[0]], name.partition("/")[0], -(first[name].map or 0), name),
    )


def categories(measured: Sequence[Measured], level: Level = "mid") -> Exhibit | None:
    """Draw mAP by category, a mark for each model; None if there are no categories.

    Args:
        measured: the first one gives the order within a coarse category.
        level: of the taxonomy; the paper's Fig. 5 is ``mid``, Fig. F ``coarse``.
    """
    with_groups = [one for one in measured if _groups(one, level)]
    if not with_groups:
        return None
    order = ordered_categories(with_groups, level)
    found = [_groups(one, level) for one in with_groups]
    figure, axes = new_figure(7.2, 1.5 + 0.24 * len(order) + 0.1 * min(MOST_DRAWN, len(with_groups)))
    coarse = [name.partition("/")[0] for name in order]
    for place, name in enumerate(coarse):
        if level == "mid" and list(dict.fromkeys(coarse)).index(name) % 2 == 0:
            axes.axhspan(place - 0.5, place + 0.5, color="#f1f3f5", linewidth=0)
    for number, (one, groups) in enumerate(of_the_best(list(zip(with_groups, found, strict=True)))):
        shown = [(groups[name].map, place) for place, name in enumerate(order) if name in groups]
        values = [(100 * value, place) for value, place in shown if value is not None]
        marker = "os^DvPX*"[number % 8]
        axes.plot(*zip(*values, strict=True), marker, color=colour(number), markersize=5.5, label=short(one.name, 40))
    axes.set_yticks(range(len(order)), [f"{_label(name)} ({found[0][name].size})" for name in order])
    axes.set(xlabel=map_label(with_groups), ylim=(len(order) - 0.5, -0.5))
    axes.set_title(f"mAP by {'mid-level' if level == 'mid' else 'primary'} category (objects)")
    legend_below(figure)
    grid(axes, "x")
    columns = (
        *(
            (Column("coarse", "category"), Column("mid", "mid-level"))
            if level == "mid"
            else (Column("coarse", "category"),)
        ),
        Column("objects", "objects"),
        *(Column(one.name, one.name, best="high") for one in with_groups),
    )
    rows = tuple(
        (
            *(name.split("/", maxsplit=1) if level == "mid" else (name,)),
            found[0][name].size,
            *(_percent(groups.get(name)) for groups in found),
        )
        for name in order
    )
    what = f"mAP by category in %, mean over the objects of a category; {on_benchmarks(with_groups)}."
    notes = (f"Drawn are the {MOST_DRAWN} best.",) if len(with_groups) > MOST_DRAWN else ()
    paper = "Fig. 5" if level == "mid" else "Fig. F"
    name = "figure-5-categories" if level == "mid" else "figure-f-primary-categories"
    return Exhibit(name, paper, Table(what, columns, rows, notes=notes, across=True), figure)


def _percent(group: Group | None) -> float | None:
    return None if group is None or group.map is None else 100 * group.map


def _label(name: str) -> str:
    coarse, _, mid = name.partition("/")
    return f"{coarse}: other" if mid == UNASSIGNED else mid or coarse
